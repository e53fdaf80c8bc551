//! Which changes of the situation the person is told of, in the work OS: a pure machine.
//!
//! Short interruptions are no news: a cable is pulled and plugged in, a part is started again. What
//! is told is a state that lasts, and its end; never two notices in quick succession, and what
//! passed meanwhile is not told any more.

use std::time::Duration;

use sekisho_control::{Command, Place};
use sekisho_status::Situation;

/// Without a way out for so long, the person is told; what the page for them calls a minute.
const LONG: Duration = Duration::from_mins(1);
/// Shortest time between two notices: whoever walks about with the cable is not followed.
const PAUSE: Duration = Duration::from_secs(30);

/// What the person believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    /// Nothing yet.
    Nothing,
    /// No connection.
    Lost,
    /// Connected, outside the office.
    Remote,
    /// Connected, in the office.
    Office,
}

/// What is in the way, as far as it matters to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nothing that is known.
    Unknown,
    /// The network wants a page of its own filled in first, or seems to.
    Page,
}

/// What was told, and when.
#[derive(Debug)]
pub(crate) struct Notices {
    belief: Belief,
    last: Option<Duration>,
    obstacle: Obstacle,
}

impl Notices {
    /// Nothing was told.
    pub(crate) const fn new() -> Self {
        Self {
            belief: Belief::Nothing,
            last: None,
            obstacle: Obstacle::Unknown,
        }
    }

    /// What the next notice of a lost connection names as its cause.
    pub(crate) const fn facing(&mut self, obstacle: Obstacle) {
        self.obstacle = obstacle;
    }

    /// When [`Notices::on`] is wanted though the situation does not change.
    pub(crate) fn due(&self, situation: &Situation, since: Duration) -> Option<Duration> {
        let wanted = match judge(situation) {
            Belief::Lost if self.belief != Belief::Lost => since + LONG,
            judged if judged != self.belief && judged != Belief::Lost => since,
            _ => return None,
        };
        Some(self.last.map_or(wanted, |last| wanted.max(last + PAUSE)))
    }

    /// Looks at a situation that has been since `since`; the notice to show, if there is one.
    pub(crate) fn on(
        &mut self,
        situation: &Situation,
        since: Duration,
        now: Duration,
    ) -> Option<Command> {
        if self.due(situation, since)? > now {
            return None;
        }
        let before = std::mem::replace(&mut self.belief, judge(situation));
        let (ja, en) = words(before, self.belief, self.obstacle)?;
        self.last = Some(now);
        Some(Command::Notice {
            ja: ja.to_owned(),
            en: en.to_owned(),
        })
    }
}

const fn judge(situation: &Situation) -> Belief {
    match situation {
        Situation::Unknown | Situation::Closed { .. } => Belief::Lost,
        Situation::Tunnelled { place, .. } => match place {
            Place::Remote => Belief::Remote,
            Place::Office => Belief::Office,
        },
        Situation::Direct { .. } => Belief::Office,
    }
}

/// What is said of a change; of the first connection after power-on nothing, as it is expected.
const fn words(
    before: Belief,
    after: Belief,
    obstacle: Obstacle,
) -> Option<(&'static str, &'static str)> {
    match (before, after) {
        (_, Belief::Nothing) | (Belief::Nothing, Belief::Remote | Belief::Office) => None,
        (_, Belief::Lost) if matches!(obstacle, Obstacle::Page) => Some((
            "庁内ネットワークにつながっていません。この回線は利用前に認証ページの入力を求めているようです。この端末では開けませんので、モバイルルーターなど別の回線を使ってください。",
            "There is no connection to the closed network. This network seems to want a sign-in page filled in first, which this laptop does not do: use another one such as a mobile router.",
        )),
        (_, Belief::Lost) => Some((
            "庁内ネットワークにつながっていません。ケーブルを確かめるか、モバイルルーターなど別の回線を使ってください。",
            "There is no connection to the closed network. Check the cable, or use another network such as a mobile router.",
        )),
        (Belief::Lost, Belief::Remote) => Some((
            "庁内ネットワークに再びつながりました。",
            "The connection to the closed network is back.",
        )),
        (Belief::Lost, Belief::Office) => Some((
            "庁内ネットワークに再びつながりました（庁内）。",
            "The connection to the closed network is back, in the office.",
        )),
        (_, Belief::Office) => Some((
            "庁内です。共有フォルダーなど、庁内だけで使えるものが開きました。",
            "In the office: what may be used only here, such as shared folders, is open.",
        )),
        (_, Belief::Remote) => Some((
            "庁外です。庁内だけで使えるものは閉じました。",
            "Outside the office: what may be used only there is closed.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sekisho_control::Side;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn closed() -> Situation {
        Situation::Closed {
            reason: "no uplink leads to a gateway".into(),
        }
    }

    fn tunnelled(place: Place) -> Situation {
        Situation::Tunnelled {
            gateway: "honcho-1".into(),
            port: "eth0".into(),
            side: Side::Outside,
            place,
        }
    }

    fn english(command: Option<Command>) -> Option<String> {
        match command {
            Some(Command::Notice { en, .. }) => Some(en),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn power_on_is_no_news_and_a_short_gap_neither() {
        let mut notices = Notices::new();
        assert_eq!(notices.on(&closed(), at(0), at(5)), None);
        assert_eq!(notices.on(&tunnelled(Place::Remote), at(6), at(6)), None);
        assert_eq!(notices.on(&closed(), at(100), at(130)), None);
        assert_eq!(
            notices.on(&tunnelled(Place::Remote), at(131), at(131)),
            None
        );
        assert_eq!(notices.due(&tunnelled(Place::Remote), at(131)), None);
    }

    #[test]
    fn lost_back_office_and_out_again() {
        let mut notices = Notices::new();
        notices.on(&tunnelled(Place::Remote), at(1), at(1));
        assert_eq!(notices.due(&closed(), at(100)), Some(at(160)));
        let lost = english(notices.on(&closed(), at(100), at(160)));
        assert!(lost.unwrap().starts_with("There is no connection"));
        assert_eq!(notices.on(&closed(), at(100), at(500)), None, "once");
        let back = english(notices.on(&tunnelled(Place::Remote), at(501), at(501)));
        assert!(back.unwrap().ends_with("is back."));
        // In the office at once: that waits its turn.
        let office = tunnelled(Place::Office);
        assert_eq!(notices.on(&office, at(505), at(505)), None);
        assert_eq!(notices.due(&office, at(505)), Some(at(531)));
        let told = english(notices.on(&office, at(505), at(531)));
        assert!(told.unwrap().starts_with("In the office"));
        let out = english(notices.on(&tunnelled(Place::Remote), at(600), at(600)));
        assert!(out.unwrap().starts_with("Outside the office"));
    }

    #[test]
    fn a_laptop_that_never_connects_says_so() {
        let mut notices = Notices::new();
        let unknown = Situation::Unknown;
        assert_eq!(notices.on(&unknown, at(0), at(59)), None);
        assert!(notices.on(&unknown, at(0), at(60)).is_some());
    }

    #[test]
    fn a_sign_in_page_is_named_where_it_is_in_the_way() {
        for (obstacle, named) in [(Obstacle::Page, true), (Obstacle::Unknown, false)] {
            let mut notices = Notices::new();
            notices.facing(obstacle);
            let lost = english(notices.on(&closed(), at(0), at(60))).unwrap();
            assert_eq!(lost.contains("sign-in page"), named, "{lost}");
            assert!(lost.contains("mobile router"), "{lost}");
        }
    }

    proptest! {
        /// Whatever happens: never two notices within the pause, and once it is quiet, the person
        /// believes what is.
        #[test]
        fn few_notices_and_true_ones(
            story in proptest::collection::vec((0u64..40, 0u8..3), 0..80),
        ) {
            let mut notices = Notices::new();
            let (mut now, mut since, mut last) = (0, 0, None);
            let mut situation = Situation::Unknown;
            let mut step = |notices: &mut Notices, situation: &Situation, since, now| {
                if notices.on(situation, at(since), at(now)).is_some()
                    && let Some(before) = last.replace(now)
                {
                    assert!(now - before >= PAUSE.as_secs());
                }
            };
            for (pause, kind) in story {
                now += pause;
                step(&mut notices, &situation, since, now);
                let next = match kind {
                    0 => closed(),
                    1 => tunnelled(Place::Remote),
                    _ => tunnelled(Place::Office),
                };
                if next != situation {
                    situation = next;
                    since = now;
                }
                step(&mut notices, &situation, since, now);
            }
            step(&mut notices, &situation, since, now + LONG.as_secs());
            prop_assert_eq!(notices.belief, judge(&situation));
            prop_assert_eq!(notices.due(&situation, at(since)), None);
        }
    }
}
