//! The second factor in words.

use sekisho_control::{DemandStage, Factor};

use super::{Lang, span};
use crate::status::Demand;

/// A sentence in both languages.
pub(super) struct Sentence(&'static str, &'static str);

impl Sentence {
    pub(super) const fn of(&self, lang: Lang) -> &'static str {
        lang.of(self.0, self.1)
    }
}

/// What to do where nobody gave it.
pub(super) const WANTED: Sentence = Sentence(
    "端末のコンソールで sekisho answer と入力し、ワンタイムパスワードなどを入れてください。",
    "Type `sekisho answer` in the laptop's console, and give the one-time password or PIN.",
);
/// Where it was not taken.
pub(super) const REFUSED: Sentence = Sentence(
    "入力した番号が受け付けられませんでした。新しい番号を確かめ、sekisho answer でもう一度入れてください。",
    "What you gave was not taken: get a new one, and type `sekisho answer` again.",
);
/// Where it was not taken too often.
pub(super) const STOPPED: Sentence = Sentence(
    "誤った番号が続いたため、しばらく尋ねません。情報担当へ連絡し、番号の発行方法を確かめてください。",
    "Too many were not taken, so it is not asked for a while: tell IT, and have the token or its list checked.",
);
/// Where the card is not in its reader.
pub(super) const CARD_ABSENT: Sentence = Sentence(
    "端末に登録された IC カードをカードリーダーに差してください。差してあれば、抜いてもう一度差してください。",
    "Put the card that belongs to this laptop into its reader; if it is in it, take it out and put it in again.",
);
/// Where the card did not take the PIN.
pub(super) const PIN_REFUSED: Sentence = Sentence(
    "暗証番号が違います。カードは数回の間違いでロックされます。番号を確かめてから、sekisho answer でもう一度入れてください。",
    "The PIN was wrong, and a card locks itself after a few wrong ones: make sure of it, and type `sekisho answer` again.",
);
/// Where it did not take it too often.
pub(super) const PIN_STOPPED: Sentence = Sentence(
    "暗証番号の間違いが続いたため、カードがロックされる前に止めました。ほかの端末でも試さず、情報担当へ連絡してください。番号を確かめ、端末を再起動すると、また尋ねます。",
    "Wrong PINs: it was stopped before the card locks itself. Do not try elsewhere, and tell IT. With the right PIN at hand, restart the laptop, and it is asked again.",
);

/// What is demanded.
pub const fn factor(factor: Factor, lang: Lang) -> &'static str {
    match factor {
        Factor::Otp => lang.of("ワンタイムパスワード", "one-time password"),
        Factor::Pin => lang.of("IC カードの暗証番号", "smart card PIN"),
    }
}

/// A demand in one line, with what the person is to do.
pub fn demand(demand: &Demand, lang: Lang) -> String {
    let what = factor(demand.factor, lang);
    let left = demand.left_ms.map(|left| span(left, lang));
    match (demand.state, left, lang) {
        (DemandStage::Asked, Some(left), Lang::Ja) => {
            format!("{what}を入力してください: sekisho answer（あと {left}）")
        }
        (DemandStage::Asked, Some(left), Lang::En) => {
            format!("give your {what}: sekisho answer ({left} left)")
        }
        (DemandStage::Asked | DemandStage::Lapsed, _, Lang::Ja) => {
            format!("{what}が入力されませんでした。接続するには: sekisho answer")
        }
        (DemandStage::Asked | DemandStage::Lapsed, _, Lang::En) => {
            format!("no {what} was given; to connect: sekisho answer")
        }
        (DemandStage::Judged, _, Lang::Ja) => format!("{what}を確認しています"),
        (DemandStage::Judged, _, Lang::En) => format!("your {what} is being judged"),
        (DemandStage::Refused, _, Lang::Ja) => format!(
            "{what}が受け付けられませんでした。まもなくもう一度尋ねます（あと {} 回）",
            demand.tries
        ),
        (DemandStage::Refused, _, Lang::En) => format!(
            "your {what} was not taken; it is asked again in a moment ({} tries left)",
            demand.tries
        ),
        (DemandStage::Absent, _, Lang::Ja) => {
            "IC カードがカードリーダーにありません。差すと、まもなく先へ進みます".to_owned()
        }
        (DemandStage::Absent, _, Lang::En) => {
            "your smart card is not in its reader; put it in, and it goes on in a moment".to_owned()
        }
        (DemandStage::Stopped, Some(left), Lang::Ja) => {
            format!("誤った{what}が続いたため、{left}は尋ねません。情報担当へ連絡してください")
        }
        (DemandStage::Stopped, Some(left), Lang::En) => {
            format!("too many wrong answers: no {what} is asked for {left}; tell IT")
        }
        (DemandStage::Stopped, None, Lang::Ja) => {
            format!("誤った{what}が続いたため、もう尋ねません。情報担当へ連絡してください")
        }
        (DemandStage::Stopped, None, Lang::En) => {
            format!("too many wrong answers: no {what} is asked any more; tell IT")
        }
    }
}
