//! What the host's service manager is told: that everything was started, that the loop turns, and
//! that it ends (`sd_notify(3)`). Without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, seen from the loop.
#[derive(Debug)]
pub(crate) struct Host {
    /// How often it wants to hear of the loop.
    pace: Option<Duration>,
    due: Duration,
}

impl Host {
    /// From the environment that the service manager gave.
    pub(crate) fn new() -> Self {
        Self::wants(sd_notify::watchdog_enabled())
    }

    /// It takes a loop that is silent for `within` for hung; it hears of it twice in that time.
    fn wants(within: Option<Duration>) -> Self {
        Self {
            pace: within.map(|within| within / 2),
            due: Duration::ZERO,
        }
    }

    /// Everything was started once. Not that there is a network: a laptop whose policy has expired
    /// is whole, and closed.
    pub(crate) fn ready() {
        tell(NotifyState::Ready);
    }

    /// Everything has ended.
    pub(crate) fn stopping() {
        tell(NotifyState::Stopping);
    }

    /// When [`Host::turn`] has something to tell.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.pace.map(|_| self.due)
    }

    /// The loop has turned.
    pub(crate) fn turn(&mut self, now: Duration) {
        if self.beats(now) {
            tell(NotifyState::Watchdog);
        }
    }

    fn beats(&mut self, now: Duration) -> bool {
        let Some(pace) = self.pace else {
            return false;
        };
        let beats = now >= self.due;
        if beats {
            self.due = now + pace;
        }
        beats
    }
}

/// One that does not listen is no reason to end.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_twice_in_the_time_it_gives_and_not_more() {
        let mut host = Host::wants(Some(Duration::from_secs(30)));
        let beats = (0..60)
            .filter(|second| host.beats(Duration::from_secs(100 + second)))
            .count();
        assert_eq!(beats, 4);
        assert_eq!(host.due(), Some(Duration::from_secs(160)));
        let mut nobody = Host::wants(None);
        assert!(!nobody.beats(Duration::from_secs(1)) && nobody.due().is_none());
    }
}
