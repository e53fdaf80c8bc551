//! Fuzzing with cargo-fuzz.

use std::process::ExitCode;

use crate::packages::{self, Need};
use crate::steps::{Failure, cargo, done, say, wait, workspace};

/// Where cargo-fuzz finds its targets.
const TARGETS: &str = "tests/fuzz";

/// Runs one target for some seconds, or lists the targets.
pub(crate) fn target(target: Option<&str>, seconds: u32) -> Result<ExitCode, Failure> {
    packages::install(&[Need::Build])?;
    if !cargo()
        .args(["fuzz", "--version"])
        .output()
        .is_ok_and(|answer| answer.status.success())
    {
        let started = say("installing cargo-fuzz (once)");
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "cargo-fuzz"]);
        if !wait(&mut install, "cargo install")?.success() {
            return Err(Failure::Step("installing cargo-fuzz".to_owned()));
        }
        done(started);
    }
    let mut fuzz = cargo();
    // The sanitizer's coverage needs a flag that stable only takes when told so.
    fuzz.current_dir(workspace().join(TARGETS))
        .env("RUSTC_BOOTSTRAP", "1")
        .arg("fuzz");
    match target {
        None => fuzz.arg("list"),
        Some(target) => fuzz.args(["run", target, "--", &format!("-max_total_time={seconds}")]),
    };
    let status = wait(&mut fuzz, "cargo fuzz")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
