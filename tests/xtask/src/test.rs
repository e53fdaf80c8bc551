//! Every test there is, and a summary in the test runner's own words.

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use crate::packages::{self, Need};
use crate::steps::{Failure, build, cargo, done, say, workspace};

/// Tests write a line here when they cannot run on this machine; read out at the end.
const SKIPS: &str = "SEKISHO_SKIP_LOG";

/// Runs all tests, or those whose name contains `filter`.
pub(crate) fn all(filter: Option<&str>) -> Result<ExitCode, Failure> {
    packages::install(&[Need::Build, Need::Lab, Need::Laptop, Need::Judges])?;
    build(&["--workspace", "--bins"])?;

    let skips = workspace().join("target").join("skipped-tests");
    let _ = std::fs::remove_file(&skips);
    let started = say("testing");
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args(filter);
    command.env(SKIPS, &skips).stdout(Stdio::piped());
    let mut tests = command
        .spawn()
        .map_err(|error| Failure::Start("cargo test".to_owned(), error))?;
    let mut totals = Totals::default();
    if let Some(output) = tests.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            totals.count(&line);
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
    let status = tests
        .wait()
        .map_err(|error| Failure::Start("cargo test".to_owned(), error))?;
    done(started);

    let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    for name in &totals.failures {
        println!("failed: {name}");
    }
    let Totals {
        passed,
        failed,
        ignored,
        ..
    } = totals;
    println!(
        "{passed} passed, {failed} failed, {} skipped",
        ignored + skipped.lines().count()
    );
    if status.success() && failed == 0 && passed > 0 {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
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
