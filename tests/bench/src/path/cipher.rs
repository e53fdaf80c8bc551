//! What the cipher of `WireGuard` takes by itself: what a gate's figures are to be seen beside, since it is
//! another one on each machine.

use std::time::Duration;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};

use super::world::MTU;
use crate::BenchError;

/// Packets in turn, as many as a super-frame has: they stay in the second-level cache.
const PACKETS: usize = 45;
/// How long one measurement lasts.
const SEAL_FOR: Duration = Duration::from_millis(200);

/// Processor time to seal a full packet in place with ChaCha20-Poly1305 (RFC 8439), in nanoseconds, by
/// the library that the gate has.
pub(super) fn seal() -> Result<f64, BenchError> {
    let broken = |_| BenchError::Missing("a cipher that works".to_owned());
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map_err(broken)?;
    let key = LessSafeKey::new(key);
    let mut packets = vec![[0x5a; MTU as usize]; PACKETS];
    let start = thread_time();
    let mut sealed = 0_u64;
    loop {
        for packet in &mut packets {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&sealed.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
            let _tag = std::hint::black_box(tag.map_err(broken)?);
            sealed += 1;
        }
        let spent = thread_time().saturating_sub(start);
        if spent >= SEAL_FOR {
            let count = super::packets::count(usize::try_from(sealed).unwrap_or(usize::MAX));
            return Ok(spent.as_secs_f64() * 1e9 / count);
        }
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}
