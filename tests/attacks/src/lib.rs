//! Attacks that must fail, each against the real programs in network namespaces. The tests are in
//! `tests/attacks`, one module an attack, named by its number in the catalogue; this is the stage
//! that they share.
//!
//! Each test ends in [`Scene::holds`]: the oracle is green, the guest's canary was seen inside the
//! tunnel (so the search works), and then the positive control: a deliberate leak on the same wires
//! turns the same oracle red.
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    reason = "this is part of tests, which fail by panicking"
)]

pub mod asked;
pub mod card;
mod desk;
mod download;
mod engine;
pub mod hall;
mod scene;
pub mod search;
mod traffic;

use sekisho_lab::programs;
use sekisho_skip::{skip, skip_unless};

pub use desk::Found;
pub use download::Download;
pub use engine::{BACK_WITHIN, Engine};
pub use scene::{Expects, Scene};
pub use traffic::{chatter, download_whole, streams, times};

/// Says why a test cannot run here, if so.
pub fn skipped() -> bool {
    if skip_unless(
        rustix::process::geteuid().is_root(),
        "network namespaces need root",
    ) {
        return true;
    }
    if let Err(error) = programs() {
        // A machine that is asked to run these tests must not pass without them.
        assert!(std::env::var_os("CI").is_none(), "{error}");
        skip(error);
        return true;
    }
    false
}

/// Unwraps with the error's own words.
pub fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
