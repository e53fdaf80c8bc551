//! `cargo xtask`: the one door for people.
//!
//! It only installs, builds and starts: what it starts are programs of the workspace, so that the
//! door itself opens in seconds on a fresh machine.
#![forbid(unsafe_code)]

mod attacks;
mod fuzz;
mod lint;
mod packages;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::packages::Need;
use crate::steps::{Failure, Program, build, run};

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Build, show and test Sekisho. Each command installs what it needs from the distribution."
)]
struct Door {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Watch a laptop go from power-on to LGWAN, into the office and back.
    Demo {
        /// Open a way round on purpose: the demo must notice it and fail.
        #[arg(long)]
        leak: bool,
        /// What carries the packets from the cafe.
        #[arg(long, value_parser = ["wireguard", "tls", "ikev2"], default_value = "wireguard")]
        tunnel: String,
        /// Print one JSON document instead of steps for people.
        #[arg(long)]
        json: bool,
    },
    /// Run every test: unit, property, device, attack and end-to-end.
    Test {
        /// Only tests whose name contains this text; `attacks` stands for the attack tests of all
        /// crates, of which a table is written to the book.
        filter: Option<String>,
    },
    /// Boot the QEMU laptop and run a command in it, or get a shell.
    Laptop {
        /// The command and its arguments; none for a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// The networks outside the laptop: build them and hold them for who wants to look inside.
    Lab {
        /// Draw them.
        #[arg(long)]
        draw: bool,
        /// Draw them as SVG.
        #[arg(long, conflicts_with = "draw")]
        svg: bool,
    },
    /// Measure against peers in the same run.
    Bench {
        /// Which benchmark, and its options; see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz the parsers for a while, several at a time.
    Fuzz(fuzz::Args),
    /// Formatting, clippy, licences and advisories: silent when all is well.
    Lint,
    /// What cargo starts each program of tests by.
    #[command(hide = true)]
    RunTests {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match perform(Door::parse().task) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode, Failure> {
    match task {
        Task::Demo { leak, tunnel, json } => {
            packages::install(&[Need::Build, Need::Lab, Need::Laptop])?;
            build(&["--workspace", "--bins"])?;
            let mut demo = Program::built("sekisho-demo");
            demo.flag("--leak", leak)
                .flag("--json", json)
                .arguments(&["--tunnel".to_owned(), tunnel]);
            run(&mut demo)
        }
        Task::Test { filter } if filter.as_deref() == Some(attacks::ALL) => attacks::all(),
        Task::Test { filter } => test::all(filter.as_deref()),
        Task::Laptop { command } => {
            packages::install(&[Need::Build, Need::Laptop])?;
            build(&["--package", "sekisho-laptop", "--bins"])?;
            run(Program::built("sekisho-laptop").arguments(&command))
        }
        Task::Lab { draw, svg } => {
            if !draw && !svg {
                packages::install(&[Need::Build, Need::Lab])?;
            }
            build(&["--package", "sekisho-lab", "--bins"])?;
            let mut lab = Program::built("sekisho-lab");
            lab.flag("--draw", draw).flag("--svg", svg);
            run(&mut lab)
        }
        Task::Bench { arguments } => {
            packages::install(&[Need::Build, Need::Lab, Need::Laptop, Need::Bench])?;
            build(&["--release", "--workspace", "--bins"])?;
            run(Program::built_for_speed("sekisho-bench").arguments(&arguments))
        }
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Lint => lint::all(),
        Task::RunTests { words } => test::program(&words),
    }
}
