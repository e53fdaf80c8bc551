//! Every test there is, and a summary in the test runner's own words.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::packages::{self, Need};
use crate::steps::{Failure, build, built, cargo, done, say, wait, workspace};

/// Tests write a line here when they cannot run on this machine; read out at the end.
const SKIPS: &str = "SEKISHO_SKIP_LOG";
/// Each program of tests writes a line here: how long it ran.
const TIMES: &str = "SEKISHO_TEST_TIMES";
/// How cargo is told by what programs of tests are started ("Configuration", `target.<triple>.runner`).
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
/// Programs of tests that took longer are named at the end.
const LONG: Duration = Duration::from_secs(30);

/// Runs all tests, or those whose name contains `filter`.
pub(crate) fn all(filter: Option<&str>) -> Result<ExitCode, Failure> {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    Ok(Run::of(&arguments)?.conclude())
}

/// Runs one program of tests, as cargo's runner.
pub(crate) fn program(words: &[String]) -> Result<ExitCode, Failure> {
    let Some((path, arguments)) = words.split_first() else {
        return Ok(ExitCode::FAILURE);
    };
    let name = name(path);
    let mut command = Command::new(path);
    command.args(arguments);
    let started = Instant::now();
    let status = wait(&mut command, path)?;
    if let Some(log) = std::env::var_os(TIMES) {
        let line = format!("{} {name}\n", started.elapsed().as_secs());
        let open = std::fs::File::options().create(true).append(true).open(log);
        let _ = open.and_then(|mut log| log.write_all(line.as_bytes()));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// The name of a test program: `target/debug/deps/attacks-0123456789abcdef` without what cargo adds.
fn name(path: &str) -> &str {
    let file = Path::new(path).file_name().and_then(|file| file.to_str());
    let file = file.unwrap_or(path);
    file.rsplit_once('-').map_or(file, |(name, _)| name)
}

/// Names the programs of tests that took long, the longest first.
fn tell_times(log: &str) {
    let mut slow: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(seconds, name)| Some((seconds.parse::<u64>().ok()?, name)))
        .filter(|(seconds, _)| *seconds > LONG.as_secs())
        .collect();
    slow.sort_unstable_by(|one, other| other.cmp(one));
    for (seconds, name) in slow {
        eprintln!("   {seconds:4} s {name}");
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    Failed,
    /// It said that it cannot run on this machine.
    Skipped,
}

/// A run of tests.
#[derive(Debug)]
pub(crate) struct Run {
    /// By the name of the test's function.
    pub(crate) ended: BTreeMap<String, Ended>,
    totals: Totals,
    skipped: Vec<String>,
    success: bool,
}

impl Run {
    /// Installs and builds what tests need and runs cargo with these arguments.
    pub(crate) fn of(arguments: &[&str]) -> Result<Self, Failure> {
        packages::install(&[Need::Build, Need::Lab, Need::Laptop, Need::Judges])?;
        build(&["--workspace", "--bins"])?;

        let failed = |error| Failure::Start("cargo test".to_owned(), error);
        let skips = workspace().join("target").join("skipped-tests");
        let times = workspace().join("target").join("test-times");
        for log in [&skips, &times] {
            let _ = std::fs::remove_file(log);
        }
        let started = say("testing");
        let mut command = cargo();
        command.args(arguments);
        // By its path: the file that this runs from was made anew by the build.
        let own = built("xtask");
        command.env(RUNNER, format!("{} run-tests", own.display()));
        command.env(SKIPS, &skips).env(TIMES, &times);
        command.stdout(Stdio::piped());
        let mut tests = command.spawn().map_err(failed)?;
        let mut totals = Totals::default();
        let mut ended = BTreeMap::new();
        if let Some(output) = tests.stdout.take() {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                totals.count(&line);
                if let Some((name, how)) = result(&line) {
                    ended.insert(function(name).to_owned(), how);
                }
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
        let status = tests.wait().map_err(failed)?;
        done(started);
        tell_times(&std::fs::read_to_string(&times).unwrap_or_default());

        let log = std::fs::read_to_string(&skips).unwrap_or_default();
        let skipped: Vec<String> = log.lines().map(str::to_owned).collect();
        for line in &skipped {
            let name = line.split(": ").next().unwrap_or_default();
            // A test that failed after it had been skipped in part has failed.
            let how = ended
                .entry(function(name).to_owned())
                .or_insert(Ended::Skipped);
            if *how == Ended::Passed {
                *how = Ended::Skipped;
            }
        }
        Ok(Self {
            ended,
            totals,
            skipped,
            success: status.success(),
        })
    }

    /// Says how it went, and what the exit status is to be.
    pub(crate) fn conclude(self) -> ExitCode {
        for line in &self.skipped {
            println!("skipped: {line}");
        }
        for name in &self.totals.failures {
            println!("failed: {name}");
        }
        let Totals {
            passed,
            failed,
            ignored,
            ..
        } = self.totals;
        println!(
            "{passed} passed, {failed} failed, {} skipped",
            ignored + self.skipped.len()
        );
        if self.success && failed == 0 && passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// A runner's line about one test: `test t28_kill::t28_kills ... ok`.
fn result(line: &str) -> Option<(&str, Ended)> {
    let (name, how) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let how = match how {
        "ok" => Ended::Passed,
        "FAILED" => Ended::Failed,
        _ if how.starts_with("ignored") => Ended::Skipped,
        _ => return None,
    };
    Some((name, how))
}

/// The function of a test's path.
fn function(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// What the runners' closing lines add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
    ignored: usize,
    failures: Vec<String>,
}

impl Totals {
    fn count(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        // `ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s`
        let figures = result.split_once(". ").map_or("", |(_, figures)| figures);
        for part in figures.split("; ") {
            let mut words = part.split(' ');
            let Some(number) = words.next().and_then(|word| word.parse::<usize>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_names_a_test_and_its_end() {
        assert_eq!(
            result("test t28_kill::t28_kills ... ok"),
            Some(("t28_kill::t28_kills", Ended::Passed))
        );
        assert_eq!(
            result("test a::b ... FAILED"),
            Some(("a::b", Ended::Failed))
        );
        assert_eq!(
            result("test a::b ... ignored, slow"),
            Some(("a::b", Ended::Skipped))
        );
        assert_eq!(result("test result: ok. 4 passed; 0 failed"), None);
        assert_eq!(function("t28_kill::t28_kills"), "t28_kills");
    }

    #[test]
    fn a_program_of_tests_has_its_targets_name() {
        assert_eq!(name("/t/debug/deps/attacks-bf97f7653de5bb3b"), "attacks");
        assert_eq!(
            name("/t/deps/virtio-peers-bf97f7653de5bb3b"),
            "virtio-peers"
        );
        assert_eq!(name("rust_out"), "rust_out");
    }

    #[test]
    fn closing_lines_add_up() {
        let mut totals = Totals::default();
        for line in [
            "test gate::t35_a_forged_source_is_dropped ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s",
            "test result: ok. 4 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.21s",
        ] {
            totals.count(line);
        }
        let failures = vec!["gate::t35_a_forged_source_is_dropped".to_owned()];
        assert_eq!(
            totals,
            Totals {
                passed: 7,
                failed: 1,
                ignored: 2,
                failures
            }
        );
    }
}
