//! The ways out: uplinks, gateways, and the proof of being in the office.

use std::collections::HashSet;
use std::time::Duration;

use super::{Check, is_name, repeated};
use crate::UplinkKind;
use crate::schema::{Gateway, GatewayProtocol};
use crate::source::Step::{self, Index, Key};

/// Longest name of a Linux interface (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE: usize = 15;
/// Shortest duration that a timer of the gate can keep in an orderly way.
const MIN_TIMER: Duration = Duration::from_millis(100);
/// Bounds of the beacon's answer: below 1 ms no LAN answers, above 1 s a relay across the country
/// fits in.
const ROUND_TRIP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

impl Check<'_> {
    pub(super) fn uplinks(&mut self) {
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

    pub(super) fn vpn(&mut self) {
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
            self.protocol(index, gateway);
            if gateway.uplinks.is_empty() {
                self.refuse(&at("uplinks"), "`uplinks` is empty", "`uplinks` が空です");
            }
        }
    }

    /// What holds for one protocol only.
    fn protocol(&mut self, index: usize, gateway: &Gateway) {
        let at = |key| [Key("vpn"), Key("gateway"), Index(index), Key(key)];
        match gateway.protocol {
            GatewayProtocol::Wireguard { public_key } => {
                if public_key.0 == [0; 32] {
                    self.refuse(
                        &at("public_key"),
                        "an all-zero key is nobody's",
                        "すべて 0 の鍵は使えません",
                    );
                }
                let others = &self.policy.vpn.gateway[..index];
                if others
                    .iter()
                    .any(|other| matches!(other.protocol, GatewayProtocol::Tls { .. }))
                {
                    self.refuse(
                        &at("kind"),
                        "a `wireguard` gateway stands behind one of kind `tls`: the slower one is \
                         the fallback and comes last",
                        "`wireguard` のゲートウェイが `tls` より後にあります。`tls` は予備なので最後に書いてください",
                    );
                }
            }
            GatewayProtocol::Tls { .. } => {
                if gateway.lan_address.is_some() {
                    self.refuse(
                        &at("lan_address"),
                        "a gateway of kind `tls` has no `lan_address`: in the office nothing blocks \
                         the first choice",
                        "`tls` のゲートウェイに `lan_address` は書けません",
                    );
                }
            }
        }
    }

    pub(super) fn onprem(&mut self) {
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
}

fn is_interface(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    (1..=MAX_INTERFACE).contains(&text.len())
        && text.bytes().all(allowed)
        && text != "."
        && text != ".."
}
