//! The ways out: uplinks, gateways, and the proof of being in the office.

use std::collections::HashSet;
use std::time::Duration;

use super::{Check, is_name, repeated};
use crate::UplinkKind;
use crate::schema::{Gateway, GatewayProtocol, NAT_T, SecondFactor, Uplink};
use crate::source::Step::{self, Index, Key};

/// Longest name of a Linux interface (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE: usize = 15;
/// Shortest duration that a timer of the gate can keep in an orderly way.
const MIN_TIMER: Duration = Duration::from_millis(100);
/// Bounds of the beacon's answer: below 1 ms no LAN answers, above 1 s a relay across the country
/// fits in.
const ROUND_TRIP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// The bound where packets go onto the proven wire in clear: light in glass goes there and back over
/// some 500 km in this time, and a relay has its own line, machines and hops in it as well. The best
/// of several answers counts, so a busy laptop keeps it.
const ROUND_TRIP_DIRECT: Duration = Duration::from_millis(5);

/// Patterns of denied SSIDs. Each is held against each network of the person; nobody keeps a longer
/// list.
const MAX_DENIED: usize = 64;
/// Mobile networks. Japan has some ten; more is a slip of the pen.
const MAX_PLMN: usize = 16;

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
            self.wifi(index, uplink);
            self.sim(index, uplink);
        }
        for kind in [UplinkKind::Wifi, UplinkKind::Sim] {
            let mut of_kind = uplinks.iter().enumerate().filter(|(_, u)| u.kind == kind);
            if let (Some(_), Some((index, _))) = (of_kind.next(), of_kind.next()) {
                // One radio, one SIM, one quota.
                self.refuse(
                    &[Key("uplink"), Index(index), Key("kind")],
                    "one `[[uplink]]` for Wi-Fi and one for the SIM",
                    "Wi-Fi と SIM の `[[uplink]]` はそれぞれ一つだけです",
                );
            }
        }
    }

    fn wifi(&mut self, index: usize, uplink: &Uplink) {
        let at = |key| [Key("uplink"), Index(index), Key(key)];
        let wifi = uplink.kind == UplinkKind::Wifi;
        if wifi == uplink.security.is_empty() {
            self.refuse(
                &at("security"),
                "`security` belongs to Wi-Fi uplinks, and each of these needs it",
                "`security` は Wi-Fi の uplink だけに、必ず書いてください",
            );
        }
        if !wifi && !uplink.deny_ssids.is_empty() {
            self.refuse(
                &at("deny_ssids"),
                "`deny_ssids` belongs to Wi-Fi uplinks",
                "`deny_ssids` は Wi-Fi の uplink だけに書けます",
            );
        }
        if uplink.deny_ssids.len() > MAX_DENIED {
            self.refuse(
                &at("deny_ssids"),
                format!("more than {MAX_DENIED} patterns"),
                format!("パターンは {MAX_DENIED} 個までです"),
            );
        }
    }

    fn sim(&mut self, index: usize, uplink: &Uplink) {
        let at = |key| [Key("uplink"), Index(index), Key(key)];
        let keys = [
            ("apn", uplink.apn.is_some()),
            ("plmn", !uplink.plmn.is_empty()),
            ("roaming", uplink.roaming),
            ("monthly_quota", uplink.monthly_quota.is_some()),
        ];
        for (key, written) in keys {
            if written && uplink.kind != UplinkKind::Sim {
                self.refuse(
                    &at(key),
                    format!("`{key}` belongs to SIM uplinks"),
                    format!("`{key}` は SIM の uplink だけに書けます"),
                );
            }
        }
        if uplink.plmn.len() > MAX_PLMN {
            self.refuse(
                &at("plmn"),
                format!("more than {MAX_PLMN} mobile networks"),
                format!("事業者は {MAX_PLMN} 個までです"),
            );
        }
        let beside = [
            ("quota_resets", uplink.quota_resets.is_some()),
            ("warn_percent", !uplink.warn_percent.is_empty()),
            ("over_quota", uplink.over_quota.is_some()),
        ];
        for (key, written) in beside {
            if written && uplink.monthly_quota.is_none() {
                self.refuse(
                    &at(key),
                    format!("`{key}` needs `monthly_quota`"),
                    format!("`{key}` には `monthly_quota` が必要です"),
                );
            }
        }
        if uplink.monthly_quota.is_some() && uplink.over_quota.is_none() {
            self.refuse(
                &at("monthly_quota"),
                "say what happens beyond the quota: `over_quota = { action = \"throttle\", rate = \"256kbit/s\" }` or `{ action = \"refuse\" }`",
                "上限を超えたときの扱いを `over_quota` に書いてください（\"throttle\" か \"refuse\"）",
            );
        }
        if uplink
            .quota_resets
            .is_some_and(|day| !(1..=31).contains(&day))
        {
            self.refuse(
                &at("quota_resets"),
                "`quota_resets` is a day of the month, 1 to 31",
                "`quota_resets` は 1〜31 の日付です",
            );
        }
        let warn = &uplink.warn_percent;
        let rising = warn.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || warn.iter().any(|percent| !(1..=99).contains(percent)) {
            self.refuse(
                &at("warn_percent"),
                "`warn_percent` rises, from 1 to 99",
                "`warn_percent` は 1〜99 を小さい順に書いてください",
            );
        }
    }

    pub(super) fn vpn(&mut self) {
        let vpn = &self.policy.vpn;
        for (key, duration) in [
            ("up_within", vpn.up_within),
            ("dead_after", vpn.dead_after),
            ("answer_within", vpn.answer_within),
            ("prefer_first_after", vpn.prefer_first_after),
        ] {
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
            self.second_factor(index, gateway);
            if gateway.uplinks.is_empty() {
                self.refuse(&at("uplinks"), "`uplinks` is empty", "`uplinks` が空です");
            }
        }
    }

    /// Who can ask for it: what a gateway does not demand in its protocol cannot be demanded for it.
    fn second_factor(&mut self, index: usize, gateway: &Gateway) {
        let at = [
            Key("vpn"),
            Key("gateway"),
            Index(index),
            Key("second_factor"),
        ];
        match (&gateway.protocol, gateway.second_factor) {
            (GatewayProtocol::Wireguard { .. }, Some(_)) => self.refuse(
                &at,
                "`wireguard` has no second factor: its gateway knows a key and nothing of people. Use a \
                 gateway of kind `tls`",
                "`wireguard` に `second_factor` は書けません。鍵だけで接続する方式のためです。`tls` のゲートウェイを使ってください",
            ),
            (GatewayProtocol::Ikev2 { .. }, Some(SecondFactor::Otp)) => self.refuse(
                &at,
                "a gateway of kind `ikev2` takes `second_factor = \"pin\"` alone, the PIN of the token \
                 that holds the laptop's key: it is not asked for passwords. Use a gateway of kind `tls`",
                "`ikev2` の `second_factor` は `\"pin\"`（端末の鍵が入った IC カードの暗証番号）だけです。ワンタイムパスワードには `tls` のゲートウェイを使ってください",
            ),
            (GatewayProtocol::Ikev2 { .. }, found) => {
                let others = &self.policy.vpn.gateway[..index];
                let before = others
                    .iter()
                    .find(|other| matches!(other.protocol, GatewayProtocol::Ikev2 { .. }));
                if before.is_some_and(|before| before.second_factor != found) {
                    self.refuse(
                        &at,
                        "`second_factor` is for all gateways of kind `ikev2` or for none: the laptop has \
                         one key for them, and the token that holds it asks each time or never",
                        "`second_factor` は `ikev2` のゲートウェイすべてに書くか、どれにも書かないでください。端末の鍵は一つで、同じ IC カードに入っているためです",
                    );
                }
            }
            (GatewayProtocol::Tls { .. }, Some(SecondFactor::Pin)) => self.refuse(
                &at,
                "a gateway of kind `tls` takes `second_factor = \"otp\"` alone: the laptop's key for \
                 it is in no token",
                "`tls` の `second_factor` は `\"otp\"` だけです。端末の鍵がトークンにないためです",
            ),
            (GatewayProtocol::Tls { .. }, Some(SecondFactor::Otp) | None)
            | (GatewayProtocol::Wireguard { .. }, None) => {}
        }
    }

    /// What holds for one protocol only.
    fn protocol(&mut self, index: usize, gateway: &Gateway) {
        let at = |key| [Key("vpn"), Key("gateway"), Index(index), Key(key)];
        match &gateway.protocol {
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
                    .any(|other| !matches!(other.protocol, GatewayProtocol::Wireguard { .. }))
                {
                    self.refuse(
                        &at("kind"),
                        "a `wireguard` gateway stands behind one of kind `ikev2` or `tls`: the \
                         slower one is the fallback and comes last",
                        "`wireguard` のゲートウェイが `ikev2` や `tls` より後にあります。予備なので最後に書いてください",
                    );
                }
            }
            GatewayProtocol::Ikev2 { .. } => {
                if gateway.lan_address.is_some_and(|lan| lan.port() != NAT_T) {
                    self.refuse(
                        &at("lan_address"),
                        "the port of a gateway of kind `ikev2` is always 4500",
                        "`ikev2` のゲートウェイのポートは 4500 だけです",
                    );
                }
            }
            GatewayProtocol::Tls { .. } => {
                if gateway.lan_address.is_some() {
                    self.refuse(
                        &at("lan_address"),
                        "a gateway of kind `tls` has no `lan_address`: its tunnel goes to the outside \
                         address alone",
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
        self.direct();
    }

    /// What `direct` asks of the rest: no way into the tunnel from the LAN, and a proof that is worth
    /// clear packets.
    fn direct(&mut self) {
        let Some(onprem) = self.policy.onprem.as_ref().filter(|o| o.direct.is_some()) else {
            return;
        };
        if onprem.beacon.round_trip > ROUND_TRIP_DIRECT {
            self.refuse(
                &[Key("onprem"), Key("beacon"), Key("round_trip")],
                "with `direct`, `round_trip` must be 5ms or shorter: what passes leaves in clear, so \
                 a relay must not fit in",
                "`direct` では `round_trip` を 5ms 以下にしてください。暗号化せずに送るため、中継が入り込めない短さが必要です",
            );
        }
        for (index, gateway) in self.policy.vpn.gateway.iter().enumerate() {
            if gateway.lan_address.is_some() {
                self.refuse(
                    &[Key("vpn"), Key("gateway"), Index(index), Key("lan_address")],
                    "`lan_address` and `direct` exclude each other: with a gateway on the LAN the \
                     packets stay in the tunnel",
                    "`lan_address` と `direct` は同時に書けません。LAN 側にゲートウェイがあれば、通信はトンネルの中に残します",
                );
            }
        }
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
