//! The fuzz target of everything that a client, or a process that went mad, can say.

use std::time::Duration;

use sekisho_control::Report;
use sekisho_varlink::{MAX_OUTPUT, MAX_PEERS, PeerId, Server, take_message};
use serde_json::Value;

use crate::{Ledger, Window, Wish, diagnose};

/// Bytes of one step: what, who, how much.
const STEP: usize = 3;
/// A user who may answer, beside root.
const ANSWERER: u32 = 3;

/// The input is a story: each step takes three bytes and as many more as it says.
///
/// # Panics
/// When a bound is broken, or what comes out is not whole messages.
pub fn status_socket(mut data: &[u8]) {
    let mut now = Duration::ZERO;
    let mut ledger = Ledger::new("0", now);
    let mut server = Server::new(now);
    let mut window = Window::new("0", vec![ANSWERER]);
    let mut out: [Vec<u8>; MAX_PEERS] = std::array::from_fn(|_| Vec::new());
    while let Some((step, rest)) = data.split_at_checked(STEP) {
        let (kind, who, amount) = (step[0], step[1], usize::from(step[2]));
        data = rest;
        let slot = usize::from(who) % MAX_PEERS;
        let id = PeerId(who % u8::try_from(MAX_PEERS).unwrap_or(u8::MAX));
        match kind % 6 {
            0 => {
                if let Some(id) = server.accept(u32::from(step[2] % 6), now) {
                    out[usize::from(id.0)].clear();
                }
            }
            1 => {
                // Long calls come of short inputs by saying the same again.
                let (text, rest) = data.split_at(amount.min(data.len()));
                data = rest;
                let times = if kind >= 128 { 64 } else { 1 };
                let mut bytes = text.repeat(times);
                bytes.truncate(server.room(id, now));
                if !bytes.is_empty()
                    && server
                        .received(id, &bytes, &mut window.onto(&ledger), now)
                        .is_err()
                {
                    server.close(id);
                }
            }
            2 => {
                let taken = server.output(id).len().min(amount * 256);
                out[slot].extend_from_slice(&server.output(id)[..taken]);
                if taken > 0
                    && server
                        .wrote(id, taken, &mut window.onto(&ledger), now)
                        .is_err()
                {
                    server.close(id);
                }
                whole(&mut out[slot]);
            }
            3 => {
                now += Duration::from_millis(u64::from(who) * 256 + u64::from(step[2]));
                for (id, _) in server.tick(&mut window.onto(&ledger), now) {
                    server.close(id);
                }
            }
            4 => {
                let (text, rest) = data.split_at(amount.min(data.len()));
                data = rest;
                let from = ["gate", "uplink", "guest", "vmm"][slot % 4];
                if let Ok(report) = serde_json::from_slice::<Report>(text) {
                    ledger.reported(from, &report, now);
                }
            }
            _ => {
                let process = ["gate", "uplink", "guest", "vmm"][slot % 4];
                if amount % 2 == 0 {
                    ledger.started(process, now);
                } else {
                    ledger.ended(process, "signal: 9 (SIGKILL)", now);
                }
            }
        }
        // What comes out to be given was asked for, of those who may.
        if let Some(Wish::Answer(id, _)) = window.take_wish() {
            assert_eq!(ledger.asked(), Some(id));
        }
        assert!(server.len() <= MAX_PEERS);
        for slot in 0..MAX_PEERS {
            let id = PeerId(u8::try_from(slot).unwrap_or(u8::MAX));
            assert!(server.output(id).len() <= MAX_OUTPUT);
        }
    }
    assert_eq!(diagnose(&ledger.status(now)).len(), crate::Step::ALL.len());
}

/// Takes the whole messages off: each is an object that is a reply or an error.
fn whole(bytes: &mut Vec<u8>) {
    while let Some(message) = take_message(bytes) {
        let reply: Value = serde_json::from_slice(&message).unwrap_or_default();
        assert!(reply["parameters"].is_object(), "{reply}");
    }
}
