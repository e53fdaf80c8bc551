//! The way in for fuzzers: hostile bytes to everything that parses them.

use std::time::Duration;

use crate::frame::{Decoder, MAX_MESSAGE, Piece};
use crate::{AgentSession, HostOutput, HostSession};

/// Feeds `data`, cut by its own first byte, to both ends, and checks what must always hold.
pub fn channel(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    let mut decoder = Decoder::default();
    let mut host = HostSession::new(Duration::ZERO);
    host.attached(1, Duration::ZERO);
    let (mut agent, _) = AgentSession::new(2, Duration::ZERO);
    let mut reports = 0_u32;
    for (turn, part) in (0_u32..).zip(stream.chunks(cut)) {
        decoder.push(part, |piece| {
            if let Piece::Message(body) = piece {
                assert!(body.len() <= MAX_MESSAGE);
            }
        });
        let now = Duration::from_millis(turn.into());
        for output in host.received(part, now).into_iter().chain(host.tick(now)) {
            if let HostOutput::Report { detail, .. } = output {
                reports += 1;
                assert!(!detail.contains(char::is_control));
            }
        }
        agent.received(part, now);
        agent.tick(now);
        assert!(agent.next_tick() > now);
        // The burst, one a second, and one `flood` beside each.
        assert!(reports <= 2 * (16 + turn / 1000) + 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::channel(&data);
        }

        /// Nearer to what the parsers expect.
        #[test]
        fn any_json_is_survived(bodies in proptest::collection::vec(
            r#"\{"seq":[0-9]{1,3},"body":\{"say":"(hello|heartbeat|notice|shutdown|notice-shown)","(id|countdown|uptime_ms)":[0-9]{1,12}\}\}"#,
            0..20,
        )) {
            let mut data = vec![200];
            for body in bodies {
                data.extend(crate::frame::encode(body.into_bytes()).expect("short"));
            }
            super::channel(&data);
        }
    }
}
