//! What a process and its virtual machine have used so far.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{BenchError, program};

/// Where KVM tells of its machines: a folder each, named after the process and a descriptor.
const KVM: &str = "/sys/kernel/debug/kvm";

/// Has the kernel show what it counts, where it does not yet.
pub(crate) fn show_machines() -> Result<(), BenchError> {
    if Path::new(KVM).exists() {
        return Ok(());
    }
    let place = "/sys/kernel/debug";
    program::run(Command::new("mount").args(["-t", "debugfs", "debugfs", place]))?;
    Ok(())
}

/// Counts of a machine's exits since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exits {
    /// All.
    pub(crate) all: u64,
    /// Because the guest had nothing to do.
    pub(crate) halts: u64,
    /// For a port or an address that a device answers.
    pub(crate) accesses: u64,
}

impl Exits {
    /// Of the machine of process `pid`.
    pub(crate) fn of(pid: u32) -> Result<Self, BenchError> {
        let prefix = format!("{pid}-");
        let folders = fs::read_dir(KVM).map_err(BenchError::system("ask KVM for its machines"))?;
        let folder = folders
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .ok_or_else(|| BenchError::Missing(format!("KVM knows no machine of {pid}")))?;
        let count = |name| count(&folder.path().join(name));
        Ok(Self {
            all: count("exits")?,
            halts: count("halt_exits")?,
            accesses: count("io_exits")? + count("mmio_exits")?,
        })
    }
}

fn count(path: &Path) -> Result<u64, BenchError> {
    let failed = || BenchError::system(format!("read {}", path.display()));
    let text = fs::read_to_string(path).map_err(failed())?;
    text.trim()
        .parse()
        .map_err(std::io::Error::other)
        .map_err(failed())
}

/// Processor time of all threads of process `pid`, those that ended too, to the nanosecond: the ticks
/// of `/proc/PID/stat` are too coarse for who runs a hundredth of the time.
pub(crate) fn processor_time(pid: u32) -> Result<Duration, BenchError> {
    let failed = || BenchError::system(format!("ask for the processor time of {pid}"));
    let number = libc::pid_t::try_from(pid)
        .map_err(std::io::Error::other)
        .map_err(failed())?;
    let mut clock = 0;
    // SAFETY: the call writes one clock id.
    if unsafe { libc::clock_getcpuclockid(number, &raw mut clock) } != 0 {
        return Err(BenchError::Missing(format!("there is no process {pid}")));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one time.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed()(std::io::Error::last_os_error()));
    }
    Ok(Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

/// Time that process `pid` has spent in its guest, in ticks of some milliseconds.
pub(crate) fn guest_time(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(BenchError::system(format!("read {path}")))?;
    guest_ticks(&stat)
        .map(|ticks| {
            let second = rustix::param::clock_ticks_per_second().max(1);
            Duration::from_nanos(ticks * (1_000_000_000 / second))
        })
        .ok_or_else(|| BenchError::Missing(format!("{path} is none")))
}

/// Field 43 of proc(5). The name in parentheses may hold anything, so fields are counted after its end.
fn guest_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(40)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_guest_is_counted_after_the_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b 9) {}\n", fields.join(" "));
        assert_eq!(guest_ticks(&stat), Some(43));
        assert_eq!(guest_ticks("7 (short) S 1"), None);
    }

    #[test]
    fn who_works_has_used_time() {
        let before = processor_time(std::process::id()).unwrap();
        while processor_time(std::process::id()).unwrap() < before + Duration::from_millis(2) {}
        assert!(processor_time(u32::MAX).is_err());
    }
}
