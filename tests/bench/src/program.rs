//! Other programs: ours beside this one, the peers, and what they cost.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::BenchError;

/// Lines of a program's own words that are shown when it failed.
const TAIL: usize = 12;

/// A program of the workspace, built beside this one.
pub(crate) fn ours(name: &str) -> Result<PathBuf, BenchError> {
    let here = std::env::current_exe().map_err(BenchError::system("find this program"))?;
    let program = here.with_file_name(name);
    if program.exists() {
        return Ok(program);
    }
    Err(BenchError::Missing(format!(
        "{} is not there: build with `cargo build --release --workspace --bins`",
        program.display()
    )))
}

/// Runs a command to its end and gives its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, BenchError> {
    let program = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::system(format!("start {program}")))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!(
        "{}{stdout} ({})",
        String::from_utf8_lossy(&output.stderr),
        output.status
    );
    Err(BenchError::Program { program, said })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// A program that serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; its words go to a file in `folder`.
    pub(crate) fn start(
        name: &str,
        folder: &Path,
        command: &mut Command,
    ) -> Result<Self, BenchError> {
        let log = folder.join(format!("{name}.log"));
        let failed = || BenchError::system(format!("start {}", shown(command)));
        let file = File::create(&log).map_err(failed())?;
        let second = file.try_clone().map_err(failed())?;
        let failed = failed();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of what it said.
    pub(crate) fn failed(&self, why: &str) -> BenchError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        BenchError::Program {
            program: self.name.clone(),
            said: format!("{why}\n{}", tail.join("\n")),
        }
    }

    /// Processor time that it has used so far, user and kernel.
    pub(crate) fn cpu_time(&self) -> Result<Duration, BenchError> {
        let path = format!("/proc/{}/stat", self.id());
        let text =
            std::fs::read_to_string(&path).map_err(BenchError::system(format!("read {path}")))?;
        cpu_time(&text).ok_or_else(|| self.failed("its processor time cannot be read"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and kernel time of `/proc/PID/stat` (proc(5), fields 14 and 15). The name in parentheses
/// may hold anything, so fields are counted after its end.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Duration::from_nanos(
        (user + kernel) * (1_000_000_000 / ticks.max(1)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_counted_after_the_name() {
        let stat = "7 (a) b 9) S 1 7 7 0 -1 0 1 0 0 0 150 50 0 0 20 0 1 0 9 0 0\n";
        let ticks = rustix::param::clock_ticks_per_second();
        let expected = Duration::from_secs_f64(200.0 / f64::from(u32::try_from(ticks).unwrap()));
        assert_eq!(cpu_time(stat), Some(expected));
        assert_eq!(cpu_time("7 (short) S 1"), None);
    }
}
