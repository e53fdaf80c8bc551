//! What libFuzzer said of a run, in one line.

use std::fmt::Write as _;
use std::time::Duration;

/// How one target's run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) took: Duration,
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Edges of the program that were reached.
    pub(super) coverage: u64,
    /// Inputs that each reach something of their own.
    pub(super) corpus: u64,
    /// The most memory, in MiB.
    pub(super) memory: u64,
    /// The input that ended it early, if one did.
    pub(super) crash: Option<String>,
}

impl Summary {
    /// Reads libFuzzer's words: its last line of progress, its final statistics, and where it wrote
    /// an input that crashed.
    ///
    /// ```text
    /// #1048576 pulse  cov: 355 ft: 1011 corp: 168/19Kb lim: 4096 exec/s: 174762 rss: 412Mb
    /// stat::number_of_executed_units: 1398101
    /// artifact_prefix='…'; Test unit written to …/crash-da39a3ee
    /// ```
    pub(super) fn read(name: &str, log: &str) -> Self {
        let mut summary = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for line in log.lines() {
            if let Some(tried) = line.strip_prefix('#') {
                let number = |key: &str| {
                    let (_, rest) = line.split_once(key)?;
                    leading(rest.trim_start())
                };
                summary.executions = leading(tried).unwrap_or(summary.executions);
                summary.coverage = number(" cov:").unwrap_or(summary.coverage);
                summary.corpus = number(" corp:").unwrap_or(summary.corpus);
                summary.memory = number(" rss:").unwrap_or(summary.memory);
            } else if let Some(executed) = line.strip_prefix("stat::number_of_executed_units:") {
                summary.executions = leading(executed.trim_start()).unwrap_or(summary.executions);
            } else if let Some((_, input)) = line.split_once("Test unit written to ") {
                summary.crash = Some(input.to_owned());
            }
        }
        summary
    }

    /// For people who wait.
    pub(super) fn line(&self) -> String {
        format!(
            "{}: {} inputs in {} s, {}",
            self.name,
            self.executions,
            self.took.as_secs(),
            self.end()
        )
    }

    fn end(&self) -> String {
        self.crash
            .as_ref()
            .map_or_else(|| "no crash".to_owned(), |crash| format!("CRASH: {crash}"))
    }
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<u64> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// All of them, in Markdown.
pub(super) fn table(ended: &[Summary]) -> String {
    let mut table = String::from(
        "| target | seconds | inputs | inputs/s | edges | corpus | MiB | end |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for summary in ended {
        let seconds = summary.took.as_secs().max(1);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            summary.name,
            seconds,
            summary.executions,
            summary.executions / seconds,
            summary.coverage,
            summary.corpus,
            summary.memory,
            summary.end()
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a program built with libfuzzer-sys 0.4.13 ended.
    const WELL: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb
#4096\tpulse  cov: 355 ft: 1011 corp: 168/19Kb lim: 4096 exec/s: 2048 rss: 312Mb
#8000\tDONE   cov: 360 ft: 1020 corp: 170/19Kb lim: 4096 exec/s: 2000 rss: 412Mb
Done 8000 runs in 4 second(s)
stat::number_of_executed_units: 8000
stat::peak_rss_mb:              412
";

    #[test]
    fn a_run_that_went_well_is_its_last_figures() {
        let summary = Summary::read("policy", WELL);
        assert_eq!(
            summary,
            Summary {
                name: "policy".to_owned(),
                executions: 8000,
                coverage: 360,
                corpus: 170,
                memory: 412,
                ..Summary::default()
            }
        );
        assert!(table(&[summary]).ends_with("| 8000 | 8000 | 360 | 170 | 412 | no crash |\n"));
    }

    #[test]
    fn a_crash_names_its_input() {
        let log = "#77\tNEW    cov: 5 ft: 5 corp: 2/3b\n==1== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='a/'; Test unit written to a/crash-1\n";
        let summary = Summary::read("policy", log);
        assert_eq!(summary.crash.as_deref(), Some("a/crash-1"));
        assert_eq!(summary.executions, 77);
        assert!(table(&[summary]).contains("CRASH: a/crash-1"));
    }

    #[test]
    fn words_that_are_not_libfuzzers_say_nothing() {
        let summary = Summary::read("policy", "#\n# cov: x\nstat::number_of_executed_units: -\n");
        assert_eq!(summary, Summary::read("policy", ""));
    }
}
