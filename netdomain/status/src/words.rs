//! What it all means, in words that a person understands: Japanese, and English.

mod factor;
mod refusals;
mod sim;

use sekisho_control::{GatewayFound, Place, QuotaState, Side, UplinkKind};

pub use factor::{demand, factor};
pub use refusals::{knows as knows_rule, refusal};
pub use sim::{signal, sim, sim_uplink};

use crate::{
    doctor::{Cause, Outcome, Step},
    status::{Dot1x, ProcessState, UplinkState},
};

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lang {
    /// Japanese.
    #[default]
    Ja,
    /// English.
    En,
}

impl Lang {
    /// The language that the environment asks for: the first of `LC_ALL`, `LC_MESSAGES` and `LANG`
    /// that is set. Japanese, unless it names another language; `C` and `POSIX` name none.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let value = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set);
        let language = value.as_deref().map(|value| {
            let end = value.find(['_', '.', '@']).unwrap_or(value.len());
            &value[..end]
        });
        match language {
            None | Some("ja" | "C" | "POSIX") => Self::Ja,
            Some(_) => Self::En,
        }
    }

    /// The one of the two that is in this language.
    pub const fn of<T: Copy>(self, ja: T, en: T) -> T {
        match self {
            Self::Ja => ja,
            Self::En => en,
        }
    }
}

/// The gate's reasons for being closed, as it words them, and what they mean.
const REASONS: &[(&str, &str, &str)] = &[
    ("started", "起動したところです", "it has just started"),
    (
        "no uplink leads to a gateway",
        "つながるネットワークがありません",
        "there is no network to connect over",
    ),
    (
        "waiting for the gateway's handshake",
        "市のゲートウェイに接続しています",
        "connecting to the city's gateway",
    ),
    (
        "the gateway does not answer",
        "市のゲートウェイが応答しません",
        "the city's gateway does not answer",
    ),
    (
        "the uplink process is gone",
        "通信部品が再起動しています",
        "the network part is being restarted",
    ),
    ("suspended", "休止しています", "the laptop sleeps"),
    (
        "the clock jumped or the laptop slept",
        "休止または時計の変更のあと、確かめ直しています",
        "proving everything again after sleep or a change of the clock",
    ),
    (
        "waiting for the second factor",
        "本人確認（ワンタイムパスワードなど）を待っています",
        "waiting for your one-time password or PIN",
    ),
    (
        "the second factor is missing",
        "本人確認（ワンタイムパスワードなど）が済んでいません",
        "your one-time password or PIN was not given, or not taken",
    ),
];

/// A reason of the gate's, or its own words where they are not known here.
pub fn reason(reason: &str, lang: Lang) -> &str {
    REASONS
        .iter()
        .find(|(known, ..)| *known == reason)
        .map_or(reason, |(_, ja, en)| lang.of(ja, en))
}

/// Whether a reason of the gate's has words here.
pub fn knows_reason(reason: &str) -> bool {
    REASONS.iter().any(|(known, ..)| *known == reason)
}

/// That the network of a card wants people to visit a page first, or seems to.
pub const fn portal(named: bool, lang: Lang) -> &'static str {
    if named {
        lang.of(
            "認証ページのある回線です。この端末では使えません",
            "a network with a sign-in page, which this laptop does not use",
        )
    } else {
        lang.of(
            "認証ページのある回線のようです。この端末では使えません",
            "seems to be a network with a sign-in page, which this laptop does not use",
        )
    }
}

/// What follows from how much of the SIM's month is used.
pub const fn quota(state: QuotaState, lang: Lang) -> &'static str {
    match state {
        QuotaState::Within => lang.of("範囲内", "within"),
        QuotaState::Warned => lang.of("上限に近づいています", "near its end"),
        QuotaState::Throttled => {
            lang.of("上限に達し、低速です", "spent: slow until it begins anew")
        }
        QuotaState::Refused => lang.of(
            "上限に達し、使えません",
            "spent: not used until it begins anew",
        ),
    }
}

/// A kind of uplink.
pub const fn kind(kind: UplinkKind, lang: Lang) -> &'static str {
    match kind {
        UplinkKind::Wired => lang.of("有線 LAN", "cable"),
        UplinkKind::Wifi => lang.of("Wi-Fi", "Wi-Fi"),
        UplinkKind::Sim => lang.of("内蔵 SIM", "built-in SIM"),
    }
}

/// How far a network card has come.
pub const fn uplink(state: UplinkState, lang: Lang) -> &'static str {
    match state {
        UplinkState::NoCarrier => lang.of("ケーブルなし", "no cable"),
        UplinkState::Carrier => lang.of("アドレス待ち", "waiting for an address"),
        UplinkState::Leased => lang.of("アドレスあり", "has an address"),
        UplinkState::Reached => lang.of("接続", "connected"),
        UplinkState::RouterSilent => lang.of("ルーター応答なし", "the router does not answer"),
    }
}

/// How a card stands with the switch at its other end.
pub const fn dot1x(dot1x: Dot1x, lang: Lang) -> &'static str {
    match dot1x {
        Dot1x::Asking => lang.of("802.1X 認証中", "802.1X under way"),
        Dot1x::Authenticated => lang.of("802.1X 認証済み", "authenticated by 802.1X"),
        Dot1x::Refused => lang.of(
            "802.1X 認証に失敗",
            "refused by the switch, or the switch by the laptop (802.1X)",
        ),
        Dot1x::Unanswered => lang.of("802.1X なし", "no 802.1X here"),
        Dot1x::Unable => lang.of(
            "802.1X の証明書が使えません",
            "no usable certificate for 802.1X",
        ),
    }
}

/// Where the laptop is.
pub const fn place(place: Place, lang: Lang) -> &'static str {
    match place {
        Place::Remote => lang.of("庁外", "outside the office"),
        Place::Office => lang.of("庁内", "in the office"),
    }
}

/// Which side of a gateway.
pub const fn side(side: Side, lang: Lang) -> &'static str {
    match side {
        Side::Outside => lang.of("インターネット側", "internet side"),
        Side::Lan => lang.of("庁内 LAN 側", "office side"),
    }
}

/// What was found at a gateway.
pub const fn found(found: GatewayFound, lang: Lang) -> &'static str {
    match found {
        GatewayFound::Asked => lang.of("応答待ち", "asked"),
        GatewayFound::Silent => lang.of("応答なし", "no answer"),
        GatewayFound::Unreachable => lang.of("到達不能", "cannot be reached"),
        GatewayFound::Unproven => lang.of("本物と確認できず", "does not prove itself"),
        GatewayFound::Answered => lang.of("応答あり", "answers"),
    }
}

/// Whether a process serves.
pub const fn process(state: ProcessState, lang: Lang) -> &'static str {
    match state {
        ProcessState::Starting => lang.of("起動中", "starting"),
        ProcessState::Serving => lang.of("稼働中", "runs"),
        ProcessState::Ended => lang.of("停止", "ended"),
    }
}

/// The name of one of our processes.
pub fn process_name(name: &str, lang: Lang) -> &str {
    match name {
        "gate" => lang.of("関所", "gate"),
        "uplink" => lang.of("回線", "uplink"),
        "vmm" => lang.of("業務 OS", "work OS"),
        "guest" => lang.of("連絡路", "guest channel"),
        "modem" => lang.of("SIM", "SIM"),
        other => other,
    }
}

/// A step of the doctor's list.
pub const fn step(step: Step, lang: Lang) -> &'static str {
    match step {
        Step::Parts => lang.of("端末の部品", "the laptop's own parts"),
        Step::Carrier => lang.of("ケーブルまたは電波", "cable or radio"),
        Step::Address => lang.of("アドレスの取得", "address from the network"),
        Step::Router => lang.of("ルーター", "router"),
        Step::Gateway => lang.of("ゲートウェイの応答", "the gateway answers"),
        Step::Handshake => lang.of("ゲートウェイとの相互確認", "the gateway proves itself"),
        Step::WorkAddress => lang.of("業務 OS のアドレス", "address of the work OS"),
        Step::Names => lang.of("名前の解決", "names"),
        Step::Page => lang.of("庁内サーバーの応答", "a server answers"),
    }
}

/// What became of a step, in a word.
pub const fn outcome(outcome: Outcome, lang: Lang) -> &'static str {
    match outcome {
        Outcome::Passed => lang.of("正常", "ok"),
        Outcome::Waiting => lang.of("待機中", "waiting"),
        Outcome::Failed { .. } => lang.of("異常", "failed"),
        Outcome::Unknown => lang.of("未確認", "not known"),
    }
}

/// What to do about a network that says, or seems, to want a page filled in first.
const fn behind_page(named: bool, lang: Lang) -> &'static str {
    if named {
        lang.of(
            "モバイルルーターなど別の回線を使ってください（この回線は利用前に認証ページの入力を求めています。この端末では開けません）。",
            "Use another network such as a mobile router: this one wants a sign-in page filled in first, which this laptop does not do.",
        )
    } else {
        lang.of(
            "モバイルルーターなど別の回線を使ってください（この回線は利用前に認証ページの入力を求めているようです。この端末では開けません）。",
            "Use another network such as a mobile router: this one seems to want a sign-in page filled in first, which this laptop does not do.",
        )
    }
}

/// What to do about it, in one sentence.
#[expect(clippy::too_many_lines, reason = "a table: one sentence a cause")]
pub const fn remedy(cause: Cause, lang: Lang) -> &'static str {
    match cause {
        Cause::GateDown => lang.of(
            "情報担当へ連絡してください（関所が動いていません。ポリシーの期限切れかもしれません）。",
            "Tell IT: the gate does not run; perhaps the policy has expired.",
        ),
        Cause::UplinkDown => lang.of(
            "情報担当へ連絡してください（回線の部品が動いていません）。",
            "Tell IT: the part that holds the network cards does not run.",
        ),
        Cause::NoPort => lang.of(
            "端末を再起動し、それでも直らなければ情報担当へ連絡してください（通信機器が見つかりません）。",
            "Restart the laptop, and tell IT if that does not help: no network card was found.",
        ),
        Cause::NoCarrier => lang.of(
            "LAN ケーブルの両端を差し直すか、別のケーブルや差込口を試してください。",
            "Plug the cable in again at both ends, or try another cable or socket.",
        ),
        Cause::ModemAbsent => lang.of(
            "端末を再起動し、それでも直らなければ情報担当へ連絡してください（SIM の通信機器が使えません）。",
            "Restart the laptop, and tell IT if that does not help: the modem of the SIM does not work.",
        ),
        Cause::SimMissing => lang.of(
            "情報担当へ連絡してください（SIM がないか、読めません）。",
            "Tell IT: there is no SIM, or it cannot be read.",
        ),
        Cause::SimLocked => lang.of(
            "情報担当へ連絡してください（SIM に暗証番号がかかっています。この端末は番号を送りません）。",
            "Tell IT: the SIM asks for a code, which this laptop never sends.",
        ),
        Cause::NoMobileNetwork => lang.of(
            "電波の入る場所へ移るか、LAN ケーブルなど別の回線を使ってください。",
            "Go where there is a signal, or use another network such as a cable.",
        ),
        Cause::WrongMobileNetwork => lang.of(
            "場所を移るか別の回線を使い、続くようなら情報担当へ連絡してください（市が契約していない事業者の電波につながろうとしています）。",
            "Go elsewhere or use another network, and tell IT if it goes on: the SIM is served by a mobile network that policy does not name.",
        ),
        Cause::SimRoaming => lang.of(
            "別の回線を使ってください（SIM が契約先の圏外で、ローミングは許可されていません）。",
            "Use another network: the SIM is outside its own network, and policy does not allow roaming.",
        ),
        Cause::SimRefused => lang.of(
            "しばらく待ち、続くようなら情報担当へ連絡してください（事業者が接続を断りました。APN の設定かもしれません）。",
            "Wait a little, and tell IT if it goes on: the mobile network refuses the connection; perhaps the APN is wrong.",
        ),
        Cause::SimUnusable => lang.of(
            "情報担当へ連絡してください（SIM の接続方式か接続先がポリシーに合いません）。",
            "Tell IT: the SIM's connection is of a kind, or to an access point, that policy does not name.",
        ),
        Cause::NoAddress => lang.of(
            "ルーターの電源を入れ直すか、モバイルルーターなど別の回線を使ってください。",
            "Switch the router off and on, or use another network such as a mobile router.",
        ),
        Cause::PortRefused => lang.of(
            "別の回線を使い、情報担当へ連絡してください（庁内 LAN の 802.1X 認証に失敗しました。端末の証明書の期限切れかもしれません）。",
            "Use another network, and tell IT: the 802.1X of this socket failed; the laptop's certificate may have expired.",
        ),
        Cause::PortUnable => lang.of(
            "別の回線を使い、情報担当へ連絡してください（802.1X の証明書または認証サーバーの設定が端末にありません）。",
            "Use another network, and tell IT: the laptop has no usable certificate for this socket's 802.1X.",
        ),
        Cause::RouterSilent => lang.of(
            "ルーターの電源を入れ直すか、別の回線を使ってください。",
            "Switch the router off and on, or use another network.",
        ),
        Cause::NoPath => lang.of(
            "別の回線を使い、続くようなら情報担当へ連絡してください（この回線から行けるゲートウェイがありません）。",
            "Use another network, and tell IT if it goes on: no gateway may be reached over this one.",
        ),
        Cause::Portal => behind_page(true, lang),
        Cause::PortalLikely => behind_page(false, lang),
        Cause::GatewaySilent => lang.of(
            "別の回線（モバイルルーターなど）を試し、同じなら情報担当へ連絡してください（この回線が通信を止めているか、認証ページのある回線か、ゲートウェイが止まっています）。",
            "Try another network such as a mobile router, and tell IT if it is the same: this network blocks the way or has a sign-in page, or the gateway is off.",
        ),
        Cause::GatewayUnreachable => lang.of(
            "別の回線を試し、同じなら情報担当へ連絡してください（ゲートウェイに届きません）。",
            "Try another network, and tell IT if it is the same: the gateway cannot be reached.",
        ),
        Cause::GatewayUnproven => lang.of(
            "情報担当へ連絡してください（応答したものが市のゲートウェイと確認できません）。",
            "Tell IT: what answers does not prove to be the city's gateway.",
        ),
        Cause::FactorWanted => factor::WANTED.of(lang),
        Cause::FactorRefused => factor::REFUSED.of(lang),
        Cause::FactorStopped => factor::STOPPED.of(lang),
        Cause::CardAbsent => factor::CARD_ABSENT.of(lang),
        Cause::PinRefused => factor::PIN_REFUSED.of(lang),
        Cause::PinStopped => factor::PIN_STOPPED.of(lang),
        Cause::WorkDown => lang.of(
            "端末を再起動してください（業務 OS が動いていません）。",
            "Restart the laptop: the work OS does not run.",
        ),
        Cause::NoWorkAddress => lang.of(
            "業務 OS を再起動し、それでも直らなければ情報担当へ連絡してください（アドレスを自動取得していません）。",
            "Restart the work OS, and tell IT if that does not help: it does not take its address by DHCP.",
        ),
        Cause::NamesSilent => lang.of(
            "しばらく待ち、続くようなら情報担当へ連絡してください（庁内の DNS が応答しません）。",
            "Wait a little, and tell IT if it goes on: the closed network's DNS does not answer.",
        ),
        Cause::ServersSilent => lang.of(
            "しばらく待ち、続くようなら情報担当へ連絡してください（庁内のサーバーが応答しません）。",
            "Wait a little, and tell IT if it goes on: the closed network's server does not answer.",
        ),
    }
}

/// A span of time, in its largest two units.
pub fn span(millis: u64, lang: Lang) -> String {
    let seconds = millis / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let unit = |ja, en| lang.of(ja, en);
    let (d, h) = (unit(" 日", " d"), unit(" 時間", " h"));
    let (m, s) = (unit(" 分", " min"), unit(" 秒", " s"));
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}{s}"),
        (0, 0, _) => format!("{minutes}{m} {rest}{s}"),
        (0, ..) => format!("{hours}{h} {minutes}{m}"),
        _ => format!("{days}{d} {hours}{h}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn japanese_unless_another_language_is_named() {
        let lang = |value: Option<&str>| {
            Lang::of_environment(|name| value.filter(|_| name == "LANG").map(str::to_owned))
        };
        for ja in [
            None,
            Some("ja_JP.UTF-8"),
            Some("C.UTF-8"),
            Some("POSIX"),
            Some(""),
        ] {
            assert_eq!(lang(ja), Lang::Ja, "{ja:?}");
        }
        for en in ["en_US.UTF-8", "en", "de_DE@euro"] {
            assert_eq!(lang(Some(en)), Lang::En, "{en}");
        }
        let all = Lang::of_environment(|name| match name {
            "LC_ALL" => Some("en_GB".into()),
            _ => Some("ja_JP".into()),
        });
        assert_eq!(all, Lang::En);
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(999, Lang::En), "0 s");
        assert_eq!(span(61_000, Lang::Ja), "1 分 1 秒");
        assert_eq!(span(3_720_000, Lang::En), "1 h 2 min");
        assert_eq!(span(90_000_000, Lang::Ja), "1 日 1 時間");
    }
}
