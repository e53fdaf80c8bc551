//! How a test says that it cannot run on this machine: to who watches, and to the summary of
//! `cargo xtask test`, which would count it as passed otherwise.
//!
//! ```
//! fn a_test_with_kvm() {
//!     let kvm = std::path::Path::new("/dev/kvm").exists();
//!     if sekisho_skip::skip_unless(kvm, "guests need /dev/kvm") {
//!         return;
//!     }
//! }
//! # a_test_with_kvm();
//! ```
#![forbid(unsafe_code)]

use std::{env, ffi::OsStr, fmt::Display, fs::File, io::Write, path::Path, thread};

/// Names the file that gets a line for each skipped test.
const LOG: &str = "SEKISHO_SKIP_LOG";

/// Skips the running test unless `possible`: says why, and gives `true`, upon which the test returns.
#[must_use = "a test that is skipped returns at once"]
pub fn skip_unless(possible: bool, why: impl Display) -> bool {
    if !possible {
        skip(why);
    }
    !possible
}

/// Says that the running test is skipped, and why; the test then returns at once.
///
/// # Panics
/// When the log cannot be written: a skip that nobody counts would pass for a test.
pub fn skip(why: impl Display) {
    let line = format!("{}: {why}", test()).replace('\n', " ");
    eprintln!("skipped: {line}");
    if let Some(log) = env::var_os(LOG)
        && let Err(error) = append(Path::new(&log), &line)
    {
        panic!("cannot note the skipped test in {}: {error}", log.display());
    }
}

/// The test's name where the thread bears it, as the standard test runner has it, else its program's.
fn test() -> String {
    let thread = thread::current();
    if let Some(name) = thread.name().filter(|name| *name != "main") {
        return name.to_owned();
    }
    let program = env::current_exe().unwrap_or_default();
    let stem = program
        .file_stem()
        .and_then(OsStr::to_str)
        .unwrap_or("a test");
    // Cargo adds a hash.
    stem.rsplit_once('-')
        .map_or(stem, |(name, _)| name)
        .to_owned()
}

/// In one write, so that lines of tests that run side by side stay whole.
fn append(log: &Path, line: &str) -> std::io::Result<()> {
    File::options()
        .append(true)
        .create(true)
        .open(log)?
        .write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The skipped test itself, in the process that the test below starts.
    #[test]
    fn on_another_machine() {
        let _ = skip_unless(env::var_os("SEKISHO_SKIP_TRY").is_none(), "no\nluck");
    }

    #[test]
    fn each_skip_is_a_line_of_the_log() {
        let log = env::temp_dir().join(format!("sk-skip-{}", std::process::id()));
        for _ in 0..2 {
            let output = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", "tests::on_another_machine"])
                .env("SEKISHO_SKIP_TRY", "1")
                .env(LOG, &log)
                .output();
            assert!(output.expect("started").status.success());
        }
        let lines = std::fs::read_to_string(&log).expect("the log");
        std::fs::remove_file(&log).expect("removed");
        assert_eq!(lines, "tests::on_another_machine: no luck\n".repeat(2));
    }
}
