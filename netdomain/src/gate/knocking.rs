//! Who answers where no gateway does: the gate's side of a knock.

use std::os::fd::OwnedFd;

use sekisho_control::Report;

use super::engine::Gate;
use super::situation::Situation;
use super::sockets::{is_bound_to, set_nonblocking};
use crate::moment::Moment;
use crate::portal::Heard;

/// Knocks at one time: one a port.
pub(super) const MAX_KNOCKS: usize = 4;

impl Gate {
    /// Begins on a connection that the uplink handed over.
    pub(super) fn begin_knock(&mut self, port: String, socket: OwnedFd, now: Moment) {
        self.knocks.retain(|knock| knock.port() != port);
        if self.knocks.len() >= MAX_KNOCKS {
            return;
        }
        if !is_bound_to(&socket, &port) {
            tracing::warn!(%port, "a connection over another port");
            return;
        }
        if set_nonblocking(&socket).is_err() {
            return;
        }
        match self.knocker.begin(port, socket, now) {
            Ok(knock) => self.knocks.push(knock),
            Err(error) => tracing::warn!("cannot ask who answers: {error}"),
        }
        self.advance_knocks(now);
    }

    /// Goes on with every knock. Beside a way out there is none.
    pub(super) fn advance_knocks(&mut self, now: Moment) {
        if !matches!(self.machine.situation(), Situation::Closed(_)) {
            self.knocks.clear();
        }
        let mut index = 0;
        while let Some(knock) = self.knocks.get_mut(index) {
            let heard = knock.advance(now);
            if heard == Heard::Waiting {
                index += 1;
                continue;
            }
            let knock = self.knocks.swap_remove(index);
            if heard == Heard::Stranger {
                let port = knock.port().to_owned();
                tracing::info!(%port, "somebody answers in the gateway's place");
                // Told each time, and so soon again where the channel is full.
                let _ = self.control.send(&Report::Stranger { port }, &[]);
            }
        }
    }
}
