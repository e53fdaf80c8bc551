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

pub mod admit;
pub mod boot;
pub mod device;
pub mod disk;
pub mod idle;
pub mod link;
mod machine;
pub mod part;
pub mod path;
mod process;
mod program;
pub mod report;
pub mod switch;

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
    Bench {
        name: "admit",
        about: "admission alone: five thousand flows against ten, small frames, a million conversations",
        run: admit::run,
    },
    Bench {
        name: "path",
        about: "the gate's tunnel from guest to far end, against other WireGuards and a bare wire",
        run: path::run,
    },
    Bench {
        name: "direct",
        about: "the office LAN without a tunnel, against a plain PC at the same switch",
        run: path::direct::run,
    },
    Bench {
        name: "packet",
        about: "what a packet costs the gates, from frame link to wire and back",
        run: path::packets::run,
    },
    Bench {
        name: "switch",
        about: "how long the guest is without an answer when its way changes",
        run: switch::run,
    },
    Bench {
        name: "boot",
        about: "the VMM's start, end and memory in the QEMU laptop, against QEMU microvm",
        run: boot::run,
    },
    Bench {
        name: "firmware",
        about: "the start by UEFI firmware in the QEMU laptop, against QEMU q35",
        run: boot::run_firmware,
    },
    Bench {
        name: "disk",
        about: "NVMe and virtio-blk in the QEMU laptop, against QEMU's",
        run: disk::run,
    },
    Bench {
        name: "idle",
        about: "what an idle desktop costs in the QEMU laptop, against QEMU q35",
        run: idle::run,
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
pub const PARTS: &[Part] = &[
    Part {
        name: link::PEER,
        run: link::peer,
    },
    Part {
        name: boot::INSIDE,
        run: boot::inside,
    },
    Part {
        name: disk::INSIDE,
        run: disk::inside,
    },
    Part {
        name: idle::INSIDE,
        run: idle::inside,
    },
];

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
    /// A channel to a process under test failed.
    #[error("the channel to {process} failed: {source}")]
    Channel {
        /// Which process.
        process: String,
        /// Why.
        source: sekisho_control::ChannelError,
    },
    /// The namespaces or the papers could not be made.
    #[error(transparent)]
    Lab(#[from] sekisho_lab::LabError),
    /// The QEMU laptop failed.
    #[error(transparent)]
    Laptop(#[from] sekisho_laptop::LaptopError),
    /// The guest's kernel or user space could not be had.
    #[error(transparent)]
    Fetch(#[from] sekisho_laptop::debian::FetchError),
    /// A program of the guest could not be built.
    #[error(transparent)]
    Build(#[from] sekisho_laptop::build::BuildError),
    /// The work OS could not be made.
    #[error(transparent)]
    Guest(#[from] sekisho_laptop::GuestError),
    /// A program failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Its command line or name.
        program: String,
        /// What it said.
        said: String,
    },
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
