//! Rules that tie the values of a policy together: what types alone cannot say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::UplinkKind;
use crate::admission::bounds;
use crate::fault::{Fault, Problem};
use crate::schema::{Flow, Policy, Segment};
use crate::source::{Source, Step};
use Step::{Index, Key};

/// Most flows. A rule is named by 16 bits; a city of the example's kind has ten.
const MAX_FLOWS: usize = 4096;
/// Most entries of the compiled tables of one class, were nothing merged: each interval of
/// addresses times the port ranges that apply there. Only flows that overlap each other many times
/// over come near it; it bounds compilation to some tens of megabytes.
const MAX_ENTRIES: u64 = 1 << 17;
/// Widest prefix. `0.0.0.0/0`, or two halves of it, cannot be written: a policy names networks of
/// the city, not the internet.
const MIN_PREFIX_LEN: u8 = 8;
/// Longest identifier of a flow or gateway: it is shown in one line of a table.
const MAX_NAME: usize = 64;
/// Problems told at once: nobody reads more, and the report stays small for hostile files.
const MAX_PROBLEMS: usize = 32;
/// Longest name of a Linux interface (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE: usize = 15;
/// Addresses that are no unicast destination in any network (RFC 6890): this host, loopback,
/// link-local, multicast and everything above.
const SPECIAL: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
/// Shortest duration that a timer of the gate can keep in an orderly way.
const MIN_TIMER: Duration = Duration::from_millis(100);
/// Bounds of the beacon's answer: below 1 ms no LAN answers, above 1 s a relay across the country
/// fits in.
const ROUND_TRIP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// Everything that is wrong with the meaning of a policy, in the order of the schema.
pub(crate) fn problems(policy: &Policy, source: &Source) -> Vec<Problem> {
    let mut check = Check {
        policy,
        source,
        problems: Vec::new(),
    };
    check.meta();
    check.segments();
    check.forbidden();
    check.flows();
    check.uplinks();
    check.vpn();
    check.onprem();
    check.tests();
    check.problems
}

struct Check<'a> {
    policy: &'a Policy,
    source: &'a Source,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn refuse(&mut self, path: &[Step<'_>], en: impl Into<String>, ja: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let fault = Fault::Rule {
                en: en.into(),
                ja: ja.into(),
            };
            self.problems.push(Problem {
                fault,
                at: self.source.span(path),
            });
        }
    }

    fn meta(&mut self) {
        let meta = &self.policy.policy;
        if !is_name(&meta.id) {
            self.refuse(
                &[Key("policy"), Key("id")],
                "`id` must be 1 to 64 letters, digits, `.`, `-` or `_`, such as \"jp.mihon-city\"",
                "`id` は英数字と `.` `-` `_` で 1〜64 文字にしてください（例: \"jp.mihon-city\"）",
            );
        }
        if meta.version == 0 {
            self.refuse(
                &[Key("policy"), Key("version")],
                "`version` starts at 1",
                "`version` は 1 から始めてください",
            );
        }
        if meta.expires <= meta.issued {
            self.refuse(
                &[Key("policy"), Key("expires")],
                "`expires` must be later than `issued`",
                "`expires` は `issued` より後にしてください",
            );
        }
    }

    fn segments(&mut self) {
        let policy = self.policy;
        if policy.segments.is_empty() {
            self.refuse(
                &[Key("segments")],
                "at least one segment is needed, such as `[segments.lgwan]`",
                "セグメントが一つもありません（例: `[segments.lgwan]`）",
            );
        }
        let mut owners: HashMap<String, &str> = HashMap::new();
        for (name, segment) in &policy.segments {
            let at = |key| [Key("segments"), Key(name), Key(key)];
            if !is_name(name) {
                self.refuse(
                    &[Key("segments"), Key(name)],
                    "a segment's name must be 1 to 64 letters, digits, `.`, `-` or `_`",
                    "セグメント名は英数字と `.` `-` `_` で 1〜64 文字にしてください",
                );
            }
            if segment.prefixes.is_empty() {
                self.refuse(
                    &at("prefixes"),
                    "a segment needs a prefix",
                    "prefixes が空です",
                );
            }
            for (index, prefix) in segment.prefixes.iter().enumerate() {
                let [a, b, c] = at("prefixes");
                self.prefix(&[a, b, c, Index(index)], *prefix);
            }
            self.servers(name, segment);
            if segment.dns.is_empty() && !segment.domains.is_empty() {
                self.refuse(
                    &at("domains"),
                    "`domains` need a resolver: name one in `dns`",
                    "`domains` があるのに `dns` がありません",
                );
            }
            for (index, domain) in segment.domains.iter().enumerate() {
                let [a, b, c] = at("domains");
                let path = [a, b, c, Index(index)];
                if !is_domain(domain) {
                    self.refuse(
                        &path,
                        format!("`{domain}` is not a domain name such as \"mihon-city.example\""),
                        format!(
                            "`{domain}` はドメイン名ではありません（例: \"mihon-city.example\"）"
                        ),
                    );
                }
                if let Some(other) = owners.insert(domain.to_ascii_lowercase(), name) {
                    self.refuse(
                        &path,
                        format!("domain `{domain}` already belongs to segment `{other}`"),
                        format!("ドメイン `{domain}` はすでにセグメント `{other}` にあります"),
                    );
                }
            }
        }
    }

    /// Resolvers and time servers must be reachable: inside the segment, outside `[forbidden]`.
    fn servers(&mut self, name: &str, segment: &Segment) {
        for (key, servers) in [("dns", &segment.dns), ("ntp", &segment.ntp)] {
            for (index, server) in servers.iter().enumerate() {
                let path = [Key("segments"), Key(name), Key(key), Index(index)];
                if !segment
                    .prefixes
                    .iter()
                    .any(|prefix| prefix.contains(server))
                {
                    self.refuse(
                        &path,
                        format!("{server} is not inside segment `{name}`"),
                        format!("{server} はセグメント `{name}` の外です"),
                    );
                }
                if self
                    .policy
                    .forbidden
                    .prefixes
                    .iter()
                    .any(|prefix| prefix.contains(server))
                {
                    self.refuse(
                        &path,
                        format!("{server} is inside [forbidden]"),
                        format!("{server} は [forbidden] の中です"),
                    );
                }
            }
        }
    }

    fn prefix(&mut self, path: &[Step<'_>], prefix: Ipv4Net) {
        if prefix.prefix_len() < MIN_PREFIX_LEN {
            self.refuse(
                path,
                format!("{prefix} is wider than /{MIN_PREFIX_LEN}: name the city's own networks"),
                format!(
                    "{prefix} は /{MIN_PREFIX_LEN} より広すぎます。庁内の網だけを書いてください"
                ),
            );
        } else if SPECIAL
            .iter()
            .any(|&(network, len)| Ipv4Net::new_assert(network, len).contains(&prefix.network()))
        {
            self.refuse(
                path,
                format!("{prefix} is no unicast network"),
                format!("{prefix} はユニキャストの網ではありません"),
            );
        }
    }

    fn forbidden(&mut self) {
        let forbidden = &self.policy.forbidden;
        if !forbidden.prefixes.is_empty() && forbidden.reason.trim().is_empty() {
            self.refuse(
                &[Key("forbidden"), Key("reason")],
                "`reason` must tell the person why",
                "`reason` に、利用者に示す理由を書いてください",
            );
        }
    }

    fn flows(&mut self) {
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
        if entries(policy) > MAX_ENTRIES {
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
            crate::Direction::Out => "to",
            crate::Direction::In => "from",
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
                |forbidden: &&Ipv4Net| forbidden.contains(host) || host.contains(*forbidden);
            if let Some(forbidden) = self.policy.forbidden.prefixes.iter().find(overlaps) {
                self.refuse(
                    &path,
                    format!("{host} overlaps {forbidden}, which [forbidden] names"),
                    format!("{host} は [forbidden] の {forbidden} と重なっています"),
                );
            }
        }
    }

    fn uplinks(&mut self) {
        let uplinks = &self.policy.uplink;
        if uplinks.is_empty() {
            self.refuse(
                &[Key("uplink")],
                "at least one `[[uplink]]` is needed",
                "`[[uplink]]` が一つもありません",
            );
        }
        for (index, rank) in repeated(uplinks.iter().map(|uplink| uplink.rank)) {
            self.refuse(
                &[Key("uplink"), Index(index), Key("rank")],
                format!("rank {rank} is used twice"),
                format!("rank {rank} が重複しています"),
            );
        }
        let mut seen = HashSet::new();
        for (index, uplink) in uplinks.iter().enumerate() {
            for (number, interface) in uplink.interfaces.iter().enumerate() {
                if !is_interface(interface) || !seen.insert(interface) {
                    self.refuse(
                        &[Key("uplink"), Index(index), Key("interfaces"), Index(number)],
                        format!("`{interface}` is not an interface name of its own (1 to 15 characters such as \"eth0\", named once)"),
                        format!("`{interface}` はインターフェース名として使えません（\"eth0\" のような 1〜15 文字、重複不可）"),
                    );
                }
            }
            let wifi = uplink.kind == UplinkKind::Wifi;
            if wifi == uplink.security.is_empty() {
                self.refuse(
                    &[Key("uplink"), Index(index), Key("security")],
                    "`security` belongs to Wi-Fi uplinks, and each of these needs it",
                    "`security` は Wi-Fi の uplink だけに、必ず書いてください",
                );
            }
        }
    }

    fn vpn(&mut self) {
        let vpn = &self.policy.vpn;
        for (key, duration) in [("up_within", vpn.up_within), ("dead_after", vpn.dead_after)] {
            self.timer(&[Key("vpn"), Key(key)], duration);
        }
        self.timer(&[Key("vpn"), Key("retry"), Key("first")], vpn.retry.first);
        if vpn.retry.max < vpn.retry.first {
            self.refuse(
                &[Key("vpn"), Key("retry"), Key("max")],
                "`max` is shorter than `first`",
                "`max` が `first` より短くなっています",
            );
        }
        if vpn.gateway.is_empty() {
            self.refuse(
                &[Key("vpn"), Key("gateway")],
                "at least one `[[vpn.gateway]]` is needed",
                "`[[vpn.gateway]]` が一つもありません",
            );
        }
        for (index, name) in repeated(vpn.gateway.iter().map(|gateway| &gateway.name)) {
            self.refuse(
                &[Key("vpn"), Key("gateway"), Index(index), Key("name")],
                format!("gateway name `{name}` is used twice"),
                format!("ゲートウェイ名 `{name}` が重複しています"),
            );
        }
        for (index, address) in repeated(vpn.gateway.iter().map(|gateway| gateway.address)) {
            self.refuse(
                &[Key("vpn"), Key("gateway"), Index(index), Key("address")],
                format!("gateway address {address} is used twice"),
                format!("ゲートウェイのアドレス {address} が重複しています"),
            );
        }
        for (index, gateway) in vpn.gateway.iter().enumerate() {
            let at = |key| [Key("vpn"), Key("gateway"), Index(index), Key(key)];
            if !is_name(&gateway.name) {
                self.refuse(
                    &at("name"),
                    "`name` must be 1 to 64 letters, digits, `.`, `-` or `_`",
                    "`name` は英数字と `.` `-` `_` で 1〜64 文字にしてください",
                );
            }
            self.unicast(&at("address"), *gateway.address.ip());
            if let Some(address) = gateway.lan_address {
                self.unicast(&at("lan_address"), *address.ip());
            }
            if gateway.public_key.0 == [0; 32] {
                self.refuse(
                    &at("public_key"),
                    "an all-zero key is nobody's",
                    "すべて 0 の鍵は使えません",
                );
            }
            if gateway.uplinks.is_empty() {
                self.refuse(&at("uplinks"), "`uplinks` is empty", "`uplinks` が空です");
            }
        }
    }

    fn onprem(&mut self) {
        let Some(onprem) = &self.policy.onprem else {
            return;
        };
        if onprem.uplinks != [UplinkKind::Wired] {
            self.refuse(
                &[Key("onprem"), Key("uplinks")],
                "only a cable proves the office: write `uplinks = [\"wired\"]`",
                "庁内の証明は有線だけです。`uplinks = [\"wired\"]` と書いてください",
            );
        }
        self.unicast(
            &[Key("onprem"), Key("beacon"), Key("address")],
            *onprem.beacon.address.ip(),
        );
        let (least, most) = ROUND_TRIP;
        if !(least..=most).contains(&onprem.beacon.round_trip) {
            self.refuse(
                &[Key("onprem"), Key("beacon"), Key("round_trip")],
                "`round_trip` must be between 1ms and 1s: a longer one lets a relay in",
                "`round_trip` は 1ms〜1s にしてください。長いと中継を見逃します",
            );
        }
        self.timer(&[Key("onprem"), Key("recheck")], onprem.recheck);
    }

    fn timer(&mut self, path: &[Step<'_>], duration: Duration) {
        if duration < MIN_TIMER {
            self.refuse(path, "at least 100ms", "100ms 以上にしてください");
        }
    }

    fn unicast(&mut self, path: &[Step<'_>], address: Ipv4Addr) {
        let special = SPECIAL
            .iter()
            .any(|&(net, len)| Ipv4Net::new_assert(net, len).contains(&address));
        if special {
            self.refuse(
                path,
                format!("{address} is no unicast address"),
                format!("{address} はユニキャストのアドレスではありません"),
            );
        }
    }

    fn tests(&mut self) {
        for (index, test) in self.policy.test.iter().enumerate() {
            if test.accept.is_empty() && test.deny.is_empty() {
                self.refuse(
                    &[Key("test"), Index(index)],
                    "the test expects nothing: add `accept` or `deny`",
                    "テストに `accept` も `deny` もありません",
                );
            }
        }
    }
}

/// The second and later occurrences of a value, with their index.
fn repeated<T: Hash + Eq + Copy>(values: impl Iterator<Item = T>) -> Vec<(usize, T)> {
    let mut seen = HashSet::new();
    values
        .enumerate()
        .filter(|(_, value)| !seen.insert(*value))
        .collect()
}

/// Entries of the compiled tables, were nothing merged: a sweep over the edges of all hosts.
fn entries(policy: &Policy) -> u64 {
    let mut edges: BTreeMap<u64, i64> = BTreeMap::new();
    for flow in &policy.flow {
        let ports = flow.tcp.len() + flow.udp.len() + usize::from(flow.icmp);
        // A file of 1 MiB holds fewer values than 2^20.
        let weight = i64::try_from(ports).unwrap_or(i64::MAX >> 32);
        for (start, end) in flow.peers.hosts.iter().map(bounds) {
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

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_interface(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    (1..=MAX_INTERFACE).contains(&text.len())
        && text.bytes().all(allowed)
        && text != "."
        && text != ".."
}

/// A host name of RFC 1123, without a dot at its end.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
