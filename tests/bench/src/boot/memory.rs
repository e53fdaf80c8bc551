//! What a VMM keeps in memory beside its guest's memory.

use crate::BenchError;

/// Resident memory of a process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resident {
    /// In the mapping that is the guest's memory.
    pub(super) guest_kib: f64,
    /// Everywhere else.
    pub(super) beside_kib: f64,
}

impl Resident {
    /// Looks at a process whose guest has `memory` MiB.
    pub(super) fn of(pid: u32, memory: u64) -> Result<Self, BenchError> {
        let path = format!("/proc/{pid}/smaps");
        let smaps =
            std::fs::read_to_string(&path).map_err(BenchError::system(format!("read {path}")))?;
        let resident = Self::parse(&smaps, memory);
        if resident.guest_kib > 0.0 {
            Ok(resident)
        } else {
            Err(BenchError::Missing(format!(
                "no mapping of {path} is the guest's memory"
            )))
        }
    }

    /// The guest's memory is what is larger than half of it: nothing else in a VMM is.
    fn parse(smaps: &str, memory: u64) -> Self {
        let mut resident = Self {
            guest_kib: 0.0,
            beside_kib: 0.0,
        };
        let mut size = 0.0;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (name, value) = (words.next(), words.next());
            let value = value.and_then(|value| value.parse::<f64>().ok());
            match (name, value) {
                (Some("Size:"), Some(kib)) => size = kib,
                (Some("Rss:"), Some(kib)) if size > half_kib(memory) => resident.guest_kib += kib,
                (Some("Rss:"), Some(kib)) => resident.beside_kib += kib,
                _ => {}
            }
        }
        resident
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a guest's memory in KiB is far below 2^52"
)]
fn half_kib(memory: u64) -> f64 {
    (memory * 512) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mapping_is_the_guests() {
        let smaps = "00400000-00600000 r-xp 00000000 00:10 1 /bin/vmm\n\
                     Size:               2048 kB\nRss:                1500 kB\n\
                     7f0000000000-7f0010000000 rw-p 00000000 00:00 0\n\
                     Size:             262144 kB\nRss:               90000 kB\n\
                     7f0010000000-7f0010021000 rw-p 00000000 00:00 0 [heap]\n\
                     Size:                132 kB\nRss:                 100 kB\n";
        let resident = Resident::parse(smaps, 256);
        assert_eq!(resident.guest_kib.to_bits(), 90_000.0_f64.to_bits());
        assert_eq!(resident.beside_kib.to_bits(), 1600.0_f64.to_bits());
    }
}
