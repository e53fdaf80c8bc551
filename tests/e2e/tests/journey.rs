//! The demo's steps as tests with names of their own: one laptop, one working day.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use sekisho_e2e::journey::{Journey, Tunnel, steps};

/// Cargo passes on as many names as it is given; the harness knows but one.
fn arguments() -> (Arguments, Vec<String>) {
    let mut words = std::env::args();
    let program: Vec<String> = words.by_ref().take(1).collect();
    let names: Vec<String> = words.collect();
    if names.len() > 1 && names.iter().all(|name| !name.starts_with('-')) {
        return (Arguments::from_iter(program), names);
    }
    (Arguments::from_args(), Vec::new())
}

fn main() -> ExitCode {
    let (mut arguments, names) = arguments();
    // Each step stands on the one before it.
    arguments.test_threads = Some(1);
    let journey: Arc<Mutex<Option<Journey>>> = Arc::default();
    let trials: Vec<Trial> = steps(false)
        .map(|step| {
            let journey = Arc::clone(&journey);
            Trial::test(
                format!("journey_{}", step.name.replace('-', "_")),
                move || {
                    let mut journey = journey
                        .lock()
                        .map_err(|_| Failed::from("an earlier step panicked"))?;
                    if journey.is_none() {
                        *journey = Some(Journey::prepare(false, Tunnel::default())?);
                    }
                    let report = journey.as_mut().map(|journey| journey.take(step));
                    match report {
                        Some(report) if report.holds => {
                            eprintln!(
                                "{} ms, took {} ms: {}",
                                report.at_ms, report.took_ms, report.detail
                            );
                            Ok(())
                        }
                        Some(report) => Err(report.detail.into()),
                        None => Err("there is no laptop".into()),
                    }
                },
            )
        })
        .filter(|trial| names.is_empty() || names.iter().any(|name| trial.name().contains(name)))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The laptop and its world end before the verdict is told.
    drop(journey);
    conclusion.exit_code()
}
