//! Rules that tie the values of a policy together: what types alone cannot say.

mod bandwidth;
mod flows;
mod ipv6;
mod segments;
mod ways;

use std::collections::HashSet;
use std::hash::Hash;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::fault::{Fault, Problem};
use crate::schema::Policy;
use crate::source::{Source, Step};
use Step::{Index, Key};

/// Widest prefix. `0.0.0.0/0`, or two halves of it, cannot be written: a policy names networks of
/// the city, not the internet.
const MIN_PREFIX_LEN: u8 = 8;
/// Longest identifier of a flow or gateway: it is shown in one line of a table.
const MAX_NAME: usize = 64;
/// Problems told at once: nobody reads more, and the report stays small for hostile files.
pub(crate) const MAX_PROBLEMS: usize = 32;
/// Addresses that are no unicast destination in any network (RFC 6890): this host, loopback,
/// link-local, multicast and everything above.
const SPECIAL: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

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
    check.ipv6();
    check.bandwidth();
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

    fn prefix(&mut self, path: &[Step<'_>], prefix: IpNet) {
        match prefix {
            IpNet::V4(prefix) => self.prefix_v4(path, prefix),
            IpNet::V6(prefix) => self.prefix_v6(path, prefix),
        }
    }

    fn prefix_v4(&mut self, path: &[Step<'_>], prefix: Ipv4Net) {
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

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}
