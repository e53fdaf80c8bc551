//! The demo: a laptop from power-on to LGWAN, into the office and back, for a person to watch.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sekisho_e2e::journey::{Journey, StepReport, Tunnel, steps};
use serde::Serialize;

/// Shows the whole journey; exits with 0 only if each step held and nothing leaked.
#[derive(Parser)]
struct Arguments {
    /// Open a way round on purpose: the demo must notice it and fail.
    #[arg(long)]
    leak: bool,
    /// What carries the packets from the cafe; with `tls` the cafe forwards no UDP,
    /// with `ikev2` none to `WireGuard`'s port.
    #[arg(long, value_enum, default_value_t)]
    tunnel: Tunnel,
    /// Print one JSON document instead of steps for people.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    holds: bool,
    leak: bool,
    steps: Vec<StepReport>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut journey = match Journey::prepare(arguments.leak, arguments.tunnel) {
        Ok(journey) => journey,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if !arguments.json {
        let way = if arguments.leak {
            ", with a way round opened on purpose"
        } else {
            ""
        };
        println!("Sekisho: from power-on to LGWAN{way}");
        println!("captures and logs: {}\n", journey.folder().display());
        println!("{:>9}  {:>8}  step", "at", "took");
    }
    let mut reports = Vec::new();
    for step in steps(arguments.leak) {
        let report = journey.take(step);
        if !arguments.json {
            show(&report, step.about);
        }
        let stop = !report.holds && !arguments.leak && report.name == "power-on";
        reports.push(report);
        if stop {
            break;
        }
    }
    let all = reports.len() == steps(arguments.leak).count();
    let holds = all && reports.iter().all(|report| report.holds);
    drop(journey);
    if arguments.json {
        let document = Document {
            holds,
            leak: arguments.leak,
            steps: reports,
        };
        match serde_json::to_string_pretty(&document) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("error: {error}"),
        }
    } else {
        table(&reports);
        println!(
            "\n{}",
            if holds {
                "every step holds, nothing leaked"
            } else {
                "NOT everything holds"
            }
        );
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:01} s", ms / 1000, ms % 1000 / 100)
}

fn show(report: &StepReport, about: &str) {
    let mark = if report.holds { "ok " } else { "NOT" };
    println!(
        "{:>9}  {:>8}  {mark} {about}",
        seconds(report.at_ms),
        seconds(report.took_ms)
    );
    for line in report.detail.lines() {
        println!("{:>24} {line}", "");
    }
}

fn table(steps: &[StepReport]) {
    println!("\n{:<20} {:<6} {:>9} {:>9}", "step", "holds", "at", "took");
    for step in steps {
        let holds = if step.holds { "yes" } else { "NO" };
        let (at, took) = (seconds(step.at_ms), seconds(step.took_ms));
        println!("{:<20} {holds:<6} {at:>9} {took:>9}", step.name);
    }
}
