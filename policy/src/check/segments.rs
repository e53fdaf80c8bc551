//! Segments and what is forbidden: the networks behind the gateways.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Check, is_name};
use crate::schema::Segment;
use crate::source::Step::{Index, Key};

impl Check<'_> {
    pub(super) fn segments(&mut self) {
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
                let address = IpAddr::V4(*server);
                if !segment
                    .prefixes
                    .iter()
                    .any(|prefix| prefix.contains(&address))
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
                    .any(|prefix| prefix.contains(&address))
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

    pub(super) fn forbidden(&mut self) {
        let forbidden = &self.policy.forbidden;
        if !forbidden.prefixes.is_empty() && forbidden.reason.trim().is_empty() {
            self.refuse(
                &[Key("forbidden"), Key("reason")],
                "`reason` must tell the person why",
                "`reason` に、利用者に示す理由を書いてください",
            );
        }
    }
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
