//! Measures Sekisho beside its peers, paired in the same run.
//!
//! Every benchmark is one module with a `run(Options) -> Result<Report, BenchError>` and one line
//! in [`BENCHES`]. What it measures it measures in pairs: ours, the peer, ours, the peer, …, and
//! reports medians of the ratios of neighbours, because absolute figures do not carry over from
//! one machine to another and not even from one minute to the next. A limit that the project has
//! set itself is a [`Bar`](report::Bar) of the report.
//!
//! Some benchmarks need a second process: a line in [`PARTS`], which the program runs as
//! `sekisho-bench part NAME …` (see [`part::start`]).

pub mod device;
pub mod link;
pub mod part;
pub mod report;

use report::Report;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Paired runs of each measurement.
    pub runs: usize,
}

/// Fewest paired runs: a median of less says little.
pub const MIN_RUNS: usize = 5;

/// One benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Bench {
    /// What the command line calls it.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Measures.
    pub run: fn(Options) -> Result<Report, BenchError>,
}

/// All benchmarks, in the order in which `all` runs them.
pub const BENCHES: &[Bench] = &[
    Bench {
        name: "link",
        about: "the frame link, against a bare SEQPACKET loop",
        run: link::run,
    },
    Bench {
        name: "device",
        about: "virtio-net alone, against the bare frame link",
        run: device::run,
    },
];

/// A second process of a benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// What [`part::start`] calls it.
    pub name: &'static str,
    /// What it does with its arguments. It prints its measurement by [`part::tell`].
    pub run: fn(&[String]) -> Result<(), BenchError>,
}

/// All second processes.
pub const PARTS: &[Part] = &[Part {
    name: link::PEER,
    run: link::peer,
}];

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The machine lacks something.
    #[error("{0}")]
    Missing(String),
    /// The operating system refused.
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What it answered.
        source: std::io::Error,
    },
    /// The frame link failed.
    #[error("the frame link failed: {0}")]
    Link(#[from] sekisho_framelink::LinkError),
    /// A second process said something else than a measurement.
    #[error("the second process of {part} gave no measurement: {said}")]
    Part {
        /// Which.
        part: String,
        /// What it said instead.
        said: String,
    },
}

impl BenchError {
    /// For `map_err`: names what was tried.
    pub fn system<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
