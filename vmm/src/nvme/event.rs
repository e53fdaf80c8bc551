//! Asynchronous events (NVMe, section 5.2).

/// Requests that may be held at once.
pub(super) const LIMIT: u8 = 4;

/// What the driver did wrong without a command that could be answered: error events, which the error
/// log goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A doorbell of a queue that is not there.
    UnknownDoorbell = 0,
    /// A value that is no place of the queue.
    DoorbellValue = 1,
}

/// The error information log page.
const ERROR_LOG: u32 = 0x01;

/// Whether a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    TooMany,
}

/// Events that are there and requests that wait for them.
#[derive(Debug, Default)]
pub(super) struct Events {
    pending: [bool; 2],
    /// One was told, and the driver has not read the log since: it is told no other.
    told: bool,
    held: Vec<u16>,
}

impl Events {
    pub(super) fn raise(&mut self, event: Event) {
        self.pending[event as usize] = true;
    }

    pub(super) fn hold(&mut self, command: u16) -> Held {
        if self.held.len() == usize::from(LIMIT) {
            return Held::TooMany;
        }
        self.held.push(command);
        Held::Yes
    }

    /// Whether one can be told now.
    pub(super) fn ready(&self) -> bool {
        !self.told && !self.held.is_empty() && self.pending.contains(&true)
    }

    /// The request to answer, and what with.
    pub(super) fn take(&mut self) -> Option<(u16, u32)> {
        if !self.ready() {
            return None;
        }
        let event = self.pending.iter().position(|pending| *pending)?;
        self.pending[event] = false;
        self.told = true;
        let command = self.held.remove(0);
        // Type 0, error; what it is; which log to read.
        let information = u32::try_from(event).unwrap_or(0);
        Some((command, information << 8 | ERROR_LOG << 16))
    }

    pub(super) fn error_log_read(&mut self) {
        self.told = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_the_log_is_read() {
        let mut events = Events::default();
        events.raise(Event::DoorbellValue);
        events.raise(Event::DoorbellValue);
        assert_eq!(events.take(), None);
        for command in 1..=4 {
            assert_eq!(events.hold(command), Held::Yes);
        }
        assert_eq!(events.hold(5), Held::TooMany);
        assert_eq!(events.take(), Some((1, 0x1_0100)));
        events.raise(Event::UnknownDoorbell);
        assert_eq!(events.take(), None);
        events.error_log_read();
        assert_eq!(events.take(), Some((2, 0x1_0000)));
        events.error_log_read();
        assert_eq!(events.take(), None);
    }
}
