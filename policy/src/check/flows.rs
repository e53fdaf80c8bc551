//! Flows: what may be reached.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Check, is_name, repeated};
use crate::Direction;
use crate::address::{Bits, Edge, bounds};
use crate::schema::{Flow, Policy};
use crate::source::Step::{Index, Key};

/// Most flows. A rule is named by 16 bits; a city of the example's kind has ten, and what is decided
/// costs the same with five thousand (`bench admit`).
const MAX_FLOWS: usize = 8192;
/// Most entries of the compiled tables of one class, were nothing merged: each interval of
/// addresses times the port ranges that apply there. Only flows that overlap each other many times
/// over come near it; it bounds compilation to some tens of megabytes.
const MAX_ENTRIES: u64 = 1 << 17;

impl Check<'_> {
    pub(super) fn flows(&mut self) {
        let policy = self.policy;
        if policy.flow.len() > MAX_FLOWS {
            self.refuse(
                &[Key("flow"), Index(MAX_FLOWS)],
                format!("more than {MAX_FLOWS} flows"),
                format!("flow が {MAX_FLOWS} 個を超えています"),
            );
            return;
        }
        let ids = policy.flow.iter().map(|flow| flow.id.as_str());
        for (index, id) in repeated(ids) {
            self.refuse(
                &[Key("flow"), Index(index), Key("id")],
                format!("flow id `{id}` is used twice"),
                format!("flow の id `{id}` が重複しています"),
            );
        }
        for (index, flow) in policy.flow.iter().enumerate() {
            self.flow(index, flow);
        }
        if entries::<u32>(policy).saturating_add(entries::<u128>(policy)) > MAX_ENTRIES {
            self.refuse(
                &[Key("flow")],
                "the flows overlap each other too often: name fewer hosts or ports in several flows",
                "flow の重なりが多すぎます。複数の flow に書いたホストやポートを減らしてください",
            );
        }
    }

    fn flow(&mut self, index: usize, flow: &Flow) {
        let at = |key| [Key("flow"), Index(index), Key(key)];
        if !is_name(&flow.id) || ["default-deny", "forbidden"].contains(&flow.id.as_str()) {
            self.refuse(
                &at("id"),
                "`id` must be 1 to 64 letters, digits, `.`, `-` or `_`, and not `default-deny` or `forbidden`",
                "`id` は英数字と `.` `-` `_` で 1〜64 文字とし、`default-deny` と `forbidden` は使えません",
            );
        }
        if flow.tcp.is_empty() && flow.udp.is_empty() && !flow.icmp {
            self.refuse(
                &[Key("flow"), Index(index)],
                format!("flow `{}` allows nothing: add `tcp`, `udp` or `icmp = true`", flow.id),
                format!("flow `{}` は何も許可していません。`tcp`、`udp`、`icmp = true` のいずれかを書いてください", flow.id),
            );
        }
        for (key, empty) in [
            ("places", flow.places.is_empty()),
            ("uplinks", flow.uplinks.is_empty()),
        ] {
            if empty {
                self.refuse(
                    &at(key),
                    format!("`{key}` is empty, so the flow never applies: leave it out for all"),
                    format!(
                        "`{key}` が空なので適用されません。すべてを指すには行ごと省いてください"
                    ),
                );
            }
        }
        let side = match flow.direction {
            Direction::Out => "to",
            Direction::In => "from",
        };
        let Some(segment) = self.policy.segments.get(&flow.peers.segment) else {
            let known: Vec<&str> = self.policy.segments.keys().map(String::as_str).collect();
            let (name, known) = (&flow.peers.segment, known.join("`, `"));
            self.refuse(
                &[Key("flow"), Index(index), Key(side), Key("segment")],
                format!("there is no segment `{name}`; there is `{known}`"),
                format!("セグメント `{name}` はありません。あるのは `{known}` です"),
            );
            return;
        };
        let hosts = [Key("flow"), Index(index), Key(side), Key("hosts")];
        if flow.peers.hosts.is_empty() {
            self.refuse(&hosts, "`hosts` is empty", "`hosts` が空です");
        }
        let [a, b, c, d] = hosts;
        for (number, host) in flow.peers.hosts.iter().enumerate() {
            let path = [a, b, c, d, Index(number)];
            if !segment.prefixes.iter().any(|prefix| prefix.contains(host)) {
                let name = &flow.peers.segment;
                self.refuse(
                    &path,
                    format!("{host} is not inside segment `{name}`"),
                    format!("{host} はセグメント `{name}` の外です"),
                );
            }
            let overlaps =
                |forbidden: &&IpNet| forbidden.contains(host) || host.contains(*forbidden);
            if let Some(forbidden) = self.policy.forbidden.prefixes.iter().find(overlaps) {
                self.refuse(
                    &path,
                    format!("{host} overlaps {forbidden}, which [forbidden] names"),
                    format!("{host} は [forbidden] の {forbidden} と重なっています"),
                );
            }
        }
    }
}

/// Entries of the compiled tables of one family, were nothing merged: a sweep over the edges of all
/// hosts.
fn entries<B: Bits>(policy: &Policy) -> u64 {
    let mut edges: BTreeMap<Edge<B>, i64> = BTreeMap::new();
    for flow in &policy.flow {
        let ports = flow.tcp.len() + flow.udp.len() + usize::from(flow.icmp);
        // A file of 1 MiB holds fewer values than 2^20.
        let weight = i64::try_from(ports).unwrap_or(i64::MAX >> 32);
        for (start, end) in flow.peers.hosts.iter().copied().filter_map(bounds) {
            *edges.entry(start).or_default() += weight;
            *edges.entry(end).or_default() -= weight;
        }
    }
    // Each edge of `[forbidden]` may cut one more interval, but flows do not overlap it.
    let mut active = 0_i64;
    edges.values().fold(0_u64, |sum, change| {
        active += change;
        sum.saturating_add(active.unsigned_abs())
    })
}
