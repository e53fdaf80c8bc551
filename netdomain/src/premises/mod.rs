//! Proof that the laptop is in the office: the gate's side of the beacon.
//!
//! The uplink connects TCP to the beacon over one wired port and hands the socket over; TLS 1.3
//! with a pinned key, a fresh nonce and a bound on the round trip make the proof. Names, addresses
//! and certificates' dates prove nothing and are not looked at.

mod answer;
mod beacon;
mod pin;

pub use beacon::{BeaconClient, NOT_ITS_KEY, Probe, Progress, QUESTIONS};

/// Judges `data` and each of its beginnings: see [`crate::fuzzing`].
pub(crate) fn fuzz_answer(data: &[u8]) {
    const ALL_A: [u8; answer::NONCE] = [b'a'; answer::NONCE];
    let mut over = false;
    for len in 0..=data.len().min(answer::MAX_ANSWER + 1) {
        let judged = answer::read(&data[..len], &ALL_A);
        // What was wrong stays wrong, and what was right is right only as it is.
        assert!(!over || judged == answer::Answer::Wrong);
        over = judged != answer::Answer::Incomplete;
    }
}
