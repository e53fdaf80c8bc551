//! Second processes, and what both sides measure of themselves.

use std::{
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use sekisho_laptop::{Laptop, exec::Said};
use serde::{Serialize, de::DeserializeOwned};

use crate::BenchError;

/// A second process that is measuring.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    child: Child,
}

/// Starts this program again as the part `name` with `input` as its standard input.
pub fn start(name: &'static str, arguments: &[String], input: OwnedFd) -> Result<Part, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::system("find this program"))?;
    let child = Command::new(program)
        .args(["part", name])
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(BenchError::system(format!(
            "start the second process of {name}"
        )))?;
    Ok(Part { name, child })
}

impl Part {
    /// Waits for its end and takes the measurement that it printed.
    pub fn finish<M: DeserializeOwned>(self) -> Result<M, BenchError> {
        let output = self
            .child
            .wait_with_output()
            .map_err(BenchError::system("wait for the second process"))?;
        serde_json::from_slice(&output.stdout).map_err(|error| BenchError::Part {
            part: self.name.to_owned(),
            said: format!("{error}; it ended with {}", output.status),
        })
    }
}

/// Runs the part `name` inside a laptop, shows its progress and takes the measurement that it printed.
pub fn run_in<M: DeserializeOwned>(
    laptop: &Laptop,
    name: &str,
    arguments: &[String],
    limit: Duration,
) -> Result<M, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::system("find this program"))?;
    let program = program.to_string_lossy().into_owned();
    let mut words = vec![program.as_str(), "part", name];
    words.extend(arguments.iter().map(String::as_str));
    let deadline = Instant::now() + limit;
    let mut running = laptop.spawn(&words)?;
    let (mut answer, mut said) = (Vec::new(), String::new());
    let failed = |said: String| BenchError::Part {
        part: name.to_owned(),
        said,
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match running
            .next(left)
            .map_err(|error| failed(error.to_string()))?
        {
            Some(Said::Stdout(bytes)) => answer.extend(bytes),
            Some(Said::Stderr(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                eprint!("{text}");
                said.push_str(&text);
            }
            Some(Said::Ended(status)) if status.success() => break,
            Some(Said::Ended(status)) => return Err(failed(format!("{status}: {said}"))),
            None => return Err(failed(format!("it took too long: {said}"))),
        }
    }
    serde_json::from_slice(&answer).map_err(|error| failed(format!("{error}: {said}")))
}

/// Prints what a part measured, for [`Part::finish`].
pub fn tell<M: Serialize>(measurement: &M) -> Result<(), BenchError> {
    let text = serde_json::to_string(measurement)
        .map_err(std::io::Error::from)
        .map_err(BenchError::system("write the measurement"))?;
    println!("{text}");
    Ok(())
}

/// A processor core of one's own, as far as the system gives it; given back on drop.
#[derive(Debug)]
#[must_use = "the core is given back on drop"]
pub struct Seat {
    before: CpuSet,
}

impl Seat {
    /// Pins the calling thread to a core, so that pairs run alike, and puts it before all ordinary
    /// threads where the system allows it, so that the rest of the machine disturbs a short
    /// measurement less. Whoever sits there must sleep now and then; the kernel stops it for 50 ms
    /// of each second otherwise.
    pub fn take(core: usize) -> Result<Self, BenchError> {
        let before = sched_getaffinity(None).map_err(BenchError::system("ask for the cores"))?;
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).map_err(|_| {
            BenchError::Missing(format!(
                "this benchmark needs processor core {core}; run it on a machine with two cores"
            ))
        })?;
        schedule(libc::SCHED_FIFO, 1);
        Ok(Self { before })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        schedule(libc::SCHED_OTHER, 0);
        // The cores were ours before; there is nobody to tell if they are gone.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Without the privilege it does nothing, and the measurement is just noisier.
fn schedule(policy: i32, sched_priority: i32) {
    let parameter = libc::sched_param { sched_priority };
    // SAFETY: the parameter is valid for the call, which changes only how this thread is
    // scheduled.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
}

/// Processor time that this process has used so far.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
