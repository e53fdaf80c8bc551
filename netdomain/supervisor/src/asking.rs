//! When the person is told, in the work OS, that a gateway asks for a one-time password or a PIN, or that
//! the card is not in its reader: a pure machine. Once for each asking, and not in quick succession.

use std::time::Duration;

use sekisho_control::{Command, Demand, DemandId, DemandStage, Factor};

/// Shortest time between two of these: a wrong answer is asked for anew after seconds, and whoever is
/// at it need not be told.
const PAUSE: Duration = Duration::from_secs(30);

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    told: Option<(Wanted, Duration)>,
}

/// What the person is told of: an asking, at a stage.
type Wanted = (DemandId, DemandStage);

fn wanted(demand: &Demand) -> Option<Wanted> {
    let told = matches!(demand.stage, DemandStage::Asked | DemandStage::Absent);
    told.then_some((demand.id, demand.stage))
}

impl Asking {
    /// When [`Asking::on`] is wanted though the demand does not change.
    pub(crate) fn due(&self, demand: Option<&Demand>) -> Option<Duration> {
        let (told, at) = self.told?;
        let wanted = demand.and_then(wanted)?;
        (wanted != told).then_some(at + PAUSE)
    }

    /// Looks at what is demanded; the notice to show, if there is one.
    pub(crate) fn on(&mut self, demand: Option<&Demand>, now: Duration) -> Option<Command> {
        let asked = demand?;
        let wanted = wanted(asked)?;
        if let Some((told, at)) = self.told
            && (told == wanted || now < at + PAUSE)
        {
            return None;
        }
        self.told = Some((wanted, now));
        let (ja, en) = match asked.stage {
            DemandStage::Absent => ABSENT,
            _ => words(asked.factor),
        };
        Some(Command::Notice {
            ja: ja.to_owned(),
            en: en.to_owned(),
        })
    }
}

/// Japanese and English.
const ABSENT: (&str, &str) = (
    "庁内ネットワークにつなぐには、IC カードが要ります。カードリーダーに差し、端末のコンソールで sekisho answer と入力してください。",
    "To connect to the closed network, your smart card is needed. Put it into its reader, and type `sekisho answer` in the laptop's console.",
);

const fn words(factor: Factor) -> (&'static str, &'static str) {
    match factor {
        Factor::Otp => (
            "庁内ネットワークにつなぐには、ワンタイムパスワードが要ります。端末のコンソールで sekisho answer と入力してください。",
            "To connect to the closed network, a one-time password is needed. Type `sekisho answer` in the laptop's console.",
        ),
        Factor::Pin => (
            "庁内ネットワークにつなぐには、IC カードの暗証番号が要ります。端末のコンソールで sekisho answer と入力してください。",
            "To connect to the closed network, the PIN of your smart card is needed. Type `sekisho answer` in the laptop's console.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(id: u32, stage: DemandStage) -> Demand {
        Demand {
            id: DemandId(id),
            gateway: "honcho-tls".into(),
            factor: Factor::Otp,
            stage,
            ends_ms: None,
            tries: 3,
        }
    }

    #[test]
    fn once_for_each_asking_and_not_at_once_again() {
        let at = Duration::from_secs;
        let mut asking = Asking::default();
        assert_eq!(asking.on(None, at(1)), None);
        let lapsed = demand(6, DemandStage::Lapsed);
        assert_eq!(asking.on(Some(&lapsed), at(1)), None);
        let first = demand(7, DemandStage::Asked);
        assert!(matches!(
            asking.on(Some(&first), at(2)),
            Some(Command::Notice { en, .. }) if en.contains("one-time password")
        ));
        assert_eq!(asking.on(Some(&first), at(100)), None);
        assert_eq!(asking.due(Some(&first)), None);
        let second = demand(8, DemandStage::Asked);
        assert_eq!(asking.on(Some(&second), at(31)), None);
        assert_eq!(asking.due(Some(&second)), Some(at(32)));
        assert!(asking.on(Some(&second), at(32)).is_some());
    }

    #[test]
    fn a_card_that_is_missing_is_told_once_and_then_its_pin_is_asked_for() {
        let at = Duration::from_secs;
        let mut asking = Asking::default();
        let absent = demand(6, DemandStage::Absent);
        assert!(matches!(
            asking.on(Some(&absent), at(2)),
            Some(Command::Notice { en, .. }) if en.contains("into its reader")
        ));
        // It is looked for again and again.
        assert_eq!(asking.on(None, at(7)), None);
        assert_eq!(asking.on(Some(&absent), at(100)), None);
        let asked = demand(7, DemandStage::Asked);
        assert!(asking.on(Some(&asked), at(101)).is_some());
    }
}
