//! `sekisho answer`: waits for the asking, reads the answer, gives it, and says what became of it.
//!
//! A connection lives for one call: a person looks for a telephone longer than the laptop keeps one
//! that says nothing.

use std::{
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use sekisho_control::{DemandId, DemandStage, Factor};
use sekisho_status::{
    Demand, Status,
    client::{Client, ClientError},
    words::{self, Lang},
};

use crate::{
    Failure,
    typed::{self, Typed},
};

/// How often the laptop is asked how far it is: as fast as it lets one client ask.
const LOOK: Duration = Duration::from_millis(300);
/// From the word that the person is there to the asking: a connection to the gateway.
const ASKED_WITHIN: Duration = Duration::from_secs(30);
/// From the word that the person is there to the end of a look for their card.
const LOOKED_WITHIN: Duration = Duration::from_secs(4);
/// From the answer to the tunnel: as long as policy gives an engine by default, and some more.
const JUDGED_WITHIN: Duration = Duration::from_mins(1);

/// What is to be done about what the laptop says.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Answer this.
    Answer(Demand),
    /// Say that the person is there.
    Call,
    /// Wait a little.
    Wait,
    /// There is nothing to answer.
    Nothing,
    /// It is connected.
    Connected,
    /// It is not asked for at present, as this says.
    Stopped(Demand),
    /// The card is not there, and was looked for.
    Absent(Demand),
}

/// `called` when the person was said to be there.
fn next(status: Status, called: bool) -> Next {
    if status.situation.situation.is_open() {
        return Next::Connected;
    }
    match status.demand {
        Some(demand) => match demand.state {
            DemandStage::Asked => Next::Answer(demand),
            DemandStage::Stopped => Next::Stopped(demand),
            DemandStage::Lapsed | DemandStage::Absent if !called => Next::Call,
            DemandStage::Absent => Next::Absent(demand),
            DemandStage::Judged | DemandStage::Refused | DemandStage::Lapsed => Next::Wait,
        },
        None if called => Next::Wait,
        None => Next::Nothing,
    }
}

/// What became of the answer to this asking, as far as it shows: whether it was taken.
fn outcome(status: &Status, answered: DemandId) -> Option<bool> {
    if status.situation.situation.is_open() {
        return Some(true);
    }
    let demand = status.demand.as_ref()?;
    let over = demand.id != answered
        || matches!(
            demand.state,
            DemandStage::Refused | DemandStage::Stopped | DemandStage::Absent
        );
    over.then_some(false)
}

pub(crate) fn run(
    connect: impl Fn() -> Result<Client, ClientError>,
    lang: Lang,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let mut called = false;
    let demand = loop {
        match next(connect()?.status()?, called) {
            Next::Answer(demand) => break demand,
            Next::Call => {
                told(connect()?.ask_again(), lang)?;
                called = true;
            }
            Next::Wait if started.elapsed() < ASKED_WITHIN => {}
            Next::Wait | Next::Nothing => {
                return Ok(say(
                    false,
                    lang.of("いま入力するものはありません", "nothing is asked now"),
                ));
            }
            Next::Connected => {
                let text = lang.of("すでにつながっています", "it is connected already");
                return Ok(say(true, text));
            }
            Next::Absent(_) if started.elapsed() < LOOKED_WITHIN => {}
            Next::Stopped(demand) | Next::Absent(demand) => {
                return Ok(say(false, &words::demand(&demand, lang)));
            }
        }
        sleep(LOOK);
    };
    let answer = match typed::secret(&prompt(&demand, lang))? {
        Typed::Answer(answer) => answer,
        Typed::Cancelled => return Ok(say(false, lang.of("取り消しました", "cancelled"))),
        Typed::NoAnswer => {
            let text = lang.of(
                "入力できるのは空白などを除く英数字と記号 64 文字までです",
                "an answer has at most 64 letters, digits and signs, and no spaces",
            );
            return Ok(say(false, text));
        }
    };
    told(connect()?.answer(demand.id, &answer), lang)?;
    // What is left of it is the gateway's.
    drop(answer);
    let given = Instant::now();
    while given.elapsed() < JUDGED_WITHIN {
        let status = connect()?.status()?;
        match outcome(&status, demand.id) {
            Some(true) => return Ok(say(true, lang.of("つながりました", "connected"))),
            Some(false) => {
                let text = lang.of("受け付けられませんでした", "it was not taken");
                let absent = status.demand.filter(|now| now.state == DemandStage::Absent);
                let text = absent.map_or(text.into(), |absent| words::demand(&absent, lang));
                return Ok(say(false, &text));
            }
            None => sleep(LOOK),
        }
    }
    let text = lang.of(
        "まだつながりません。sekisho status で確かめてください",
        "not connected yet; see `sekisho status`",
    );
    Ok(say(false, text))
}

/// What is asked for, and of a card, which locks itself, how often it may be wrong.
fn prompt(demand: &Demand, lang: Lang) -> String {
    let (what, gateway, tries) = (
        words::factor(demand.factor, lang),
        &demand.gateway,
        demand.tries,
    );
    match (demand.factor, lang) {
        (Factor::Otp, Lang::Ja) => format!("{what}（{gateway}）: "),
        (Factor::Otp, Lang::En) => format!("{what} ({gateway}): "),
        (Factor::Pin, Lang::Ja) => format!("{what}（{gateway}、あと {tries} 回）: "),
        (Factor::Pin, Lang::En) => format!("{what} ({gateway}, tries left: {tries}): "),
    }
}

fn say(good: bool, text: &str) -> ExitCode {
    if good {
        println!("{text}");
    } else {
        eprintln!("sekisho: {text}");
    }
    ExitCode::from(u8::from(!good))
}

/// Puts the errors of our interface into words.
fn told(said: Result<(), ClientError>, lang: Lang) -> Result<(), Failure> {
    said.map_err(|error| match &error {
        ClientError::Refused(name) if name.ends_with(".NotAllowed") => Failure::Refused(lang.of(
            "あなたは入力を許可されていません",
            "you are not among those who may answer",
        )),
        ClientError::Refused(name) if name.ends_with(".NotAsked") => Failure::Refused(lang.of(
            "もう尋ねられていません。sekisho answer をもう一度",
            "it is not asked any more; type `sekisho answer` again",
        )),
        _ => Failure::Client(error),
    })
}

#[cfg(test)]
mod tests {
    use sekisho_control::{Demand as Told, Report};
    use sekisho_status::Ledger;

    use super::*;

    fn status(stage: Option<DemandStage>) -> Status {
        let mut ledger = Ledger::new("0", Duration::ZERO);
        let demand = stage.map(|stage| Told {
            id: DemandId(7),
            gateway: "honcho-tls".into(),
            factor: Factor::Otp,
            stage,
            ends_ms: None,
            tries: 3,
        });
        ledger.reported("gate", &Report::Demand { demand }, Duration::ZERO);
        ledger.status(Duration::ZERO)
    }

    #[test]
    fn the_person_is_called_once_and_waited_for_as_long_as_it_makes_sense() {
        assert_eq!(next(status(None), false), Next::Nothing);
        assert_eq!(next(status(None), true), Next::Wait);
        let lapsed = Some(DemandStage::Lapsed);
        assert_eq!(next(status(lapsed), false), Next::Call);
        assert_eq!(next(status(lapsed), true), Next::Wait);
        let absent = Some(DemandStage::Absent);
        assert_eq!(next(status(absent), false), Next::Call);
        assert!(matches!(next(status(absent), true), Next::Absent(_)));
        let asked = next(status(Some(DemandStage::Asked)), true);
        assert!(matches!(asked, Next::Answer(demand) if demand.id == DemandId(7)));
        let stopped = next(status(Some(DemandStage::Stopped)), false);
        assert!(matches!(stopped, Next::Stopped(_)));
    }

    #[test]
    fn a_card_is_asked_for_with_what_is_left_of_its_tries() {
        let mut demand = status(Some(DemandStage::Asked)).demand.unwrap();
        assert_eq!(
            prompt(&demand, Lang::En),
            "one-time password (honcho-tls): "
        );
        demand.factor = Factor::Pin;
        demand.tries = 1;
        let said = prompt(&demand, Lang::En);
        assert_eq!(said, "smart card PIN (honcho-tls, tries left: 1): ");
        assert!(prompt(&demand, Lang::Ja).contains("あと 1 回"));
    }

    #[test]
    fn an_answer_was_not_taken_where_it_is_asked_anew() {
        let judged = status(Some(DemandStage::Judged));
        assert_eq!(outcome(&judged, DemandId(7)), None);
        assert_eq!(outcome(&judged, DemandId(6)), Some(false));
        for stage in [
            DemandStage::Refused,
            DemandStage::Stopped,
            DemandStage::Absent,
        ] {
            let over = status(Some(stage));
            assert_eq!(outcome(&over, DemandId(7)), Some(false));
        }
        assert_eq!(outcome(&status(None), DemandId(7)), None);
    }
}
