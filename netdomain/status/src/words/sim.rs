//! The SIM in words.

use sekisho_control::ModemFound;

use super::Lang;
use crate::status::UplinkState;

/// How far the SIM is, or why it goes no further.
pub const fn sim(state: ModemFound, lang: Lang) -> &'static str {
    match state {
        ModemFound::Unasked => lang.of(
            "使いません（SIM の部品が設定されていません）",
            "not used: no part is set up to ask for it",
        ),
        ModemFound::Absent => lang.of("ModemManager 応答なし", "ModemManager does not answer"),
        ModemFound::NoModem => lang.of("通信機器なし", "no modem"),
        ModemFound::Failed => lang.of("通信機器の故障", "the modem is broken"),
        ModemFound::SimMissing => lang.of("SIM なし", "no SIM"),
        ModemFound::SimLocked => lang.of("SIM の暗証番号待ち", "the SIM asks for a code"),
        ModemFound::Starting => lang.of("起動中", "starting"),
        ModemFound::Searching => lang.of("圏外", "no network"),
        ModemFound::WrongNetwork => lang.of(
            "拒否（許可されていない事業者）",
            "refused: policy does not name this mobile network",
        ),
        ModemFound::Roaming => lang.of("拒否（ローミング）", "refused: outside its own network"),
        ModemFound::Connecting => lang.of("接続中", "connecting"),
        ModemFound::Refused => lang.of(
            "事業者が接続を断りました",
            "the mobile network refuses the connection",
        ),
        ModemFound::Unusable => lang.of(
            "拒否（使えない接続方式または接続先）",
            "refused: connected in a way, or to an access point, that is not used",
        ),
        ModemFound::OtherInterface => lang.of(
            "拒否（ポリシーにない機器）",
            "refused: its interface is not the policy's",
        ),
        ModemFound::Connected => lang.of("接続", "connected"),
    }
}

/// How far a SIM's interface has come, where that differs from a cable's.
pub const fn sim_uplink(state: UplinkState, lang: Lang) -> &'static str {
    match state {
        UplinkState::NoCarrier => lang.of("未接続", "not connected"),
        other => super::uplink(other, lang),
    }
}

/// The quality of a signal.
pub fn signal(percent: u8, lang: Lang) -> String {
    match lang {
        Lang::Ja => format!("電波 {percent}%"),
        Lang::En => format!("signal {percent}%"),
    }
}
