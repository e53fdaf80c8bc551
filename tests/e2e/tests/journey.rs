//! The demo's steps as tests with names of their own: one laptop, one working day.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use sekisho_e2e::journey::{Journey, Tunnel, steps};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each step stands on the one before it.
    arguments.test_threads = Some(1);
    let journey: Arc<Mutex<Option<Journey>>> = Arc::default();
    let trials = steps(false)
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
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The laptop and its world end before the verdict is told.
    drop(journey);
    conclusion.exit_code()
}
