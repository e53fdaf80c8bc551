//! The fuzz target of what a client of the control socket can say.

use std::time::Duration;

use sekisho_varlink::{MAX_OUTPUT, Server, take_message};

use super::{Desk, Machine, Refusal, State, Statistics};
use crate::board::pause::Holder;

/// A machine of the mind: what was done to it.
#[derive(Default)]
struct Toy {
    paused: bool,
    done: u64,
}

impl Machine for Toy {
    fn state(&self) -> State {
        State {
            held_by: self.paused.then_some(Holder::Person).into_iter().collect(),
            age: Duration::ZERO,
            cpus: 1,
            memory_mib: 1,
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    fn pause(&mut self) -> Result<(), Refusal> {
        self.done += 1;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) {
        self.done += 1;
        self.paused = false;
    }

    fn press_power_button(&mut self) {
        self.done += 1;
    }

    fn press_sleep_button(&mut self) -> Result<(), Refusal> {
        self.done += 1;
        Err(Refusal::NoButton)
    }

    fn reset(&mut self) {
        self.done += 1;
    }
}

/// The first byte is the user, the rest what it says.
///
/// # Panics
/// When somebody who may not has something done, or what comes out is not whole replies.
pub fn machine_socket(data: &[u8]) {
    let Some((user, said)) = data.split_first() else {
        return;
    };
    let user = u32::from(*user % 3);
    let mut machine = Toy::default();
    let mut server = Server::new(Duration::ZERO);
    let Some(id) = server.accept(user, Duration::ZERO) else {
        return;
    };
    let (mut now, mut rest, mut out) = (Duration::ZERO, said, Vec::new());
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(server.room(id, now).min(rest.len()).min(64));
        rest = later;
        // Time for one more call.
        now += Duration::from_millis(250);
        let mut desk = Desk {
            machine: &mut machine,
            user: 2,
        };
        let received = server.received(id, piece, &mut desk, now);
        let output = server.output(id);
        assert!(output.len() <= MAX_OUTPUT);
        out.extend_from_slice(output);
        let length = output.len();
        if received.is_err() || server.wrote(id, length, &mut desk, now).is_err() {
            break;
        }
    }
    assert!(user != 1 || machine.done == 0, "user 1 may nothing");
    while let Some(message) = take_message(&mut out) {
        let reply: serde_json::Value = serde_json::from_slice(&message).unwrap_or_default();
        assert!(reply["parameters"].is_object(), "{reply}");
    }
}
