//! Controller registers and doorbells (NVMe, section 3.1).

/// The BAR with all of it.
pub(super) const BAR: u8 = 0;
/// Registers, doorbells, MSI-X table and pending bits: a page each.
pub(super) const BAR_SIZE: u64 = 0x4000;
const DOORBELLS: u64 = 0x1000;
pub(super) const MSIX_TABLE: u32 = 0x2000;
pub(super) const MSIX_PENDING: u32 = 0x3000;

const CAP: usize = 0x00;
const VS: usize = 0x08;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const LENGTH: usize = 0x38;

/// Most entries of an I/O queue. Linux asks for 1024.
pub(super) const MAX_ENTRIES: u16 = 1024;
/// Most entries of an admin queue, which AQA has 12 bits for.
pub(super) const MAX_ADMIN_ENTRIES: u16 = 4096;
/// What the specification calls `CAP.TO`: how long enabling and disabling may take, in units of
/// 500 ms. Disabling waits for requests under way.
const TIMEOUT: u64 = 60;
/// Maximum Queue Entries Supported (from 0), Contiguous Queues Required, Timeout, and bit 37: the NVM
/// command set. Doorbells lie 4 bytes apart; pages have 4 KiB and nothing else.
const CAPABILITIES: u64 = (MAX_ENTRIES as u64 - 1) | 1 << 16 | TIMEOUT << 24 | 1 << 37;
/// 1.4.0.
pub(super) const VERSION: u32 = 0x0001_0400;

const CSTS_READY: u32 = 1 << 0;
const CSTS_FATAL: u32 = 1 << 1;
const CSTS_SHUTDOWN: u32 = 3 << 2;

/// Part of the BAR.
pub(super) enum Area {
    Registers,
    /// Offset in the MSI-X table.
    Table(u64),
    /// Offset in the pending bits.
    Pending(u64),
}

/// Which part of the BAR an offset is in.
pub(super) fn area(offset: u64) -> Area {
    let (table, pending) = (u64::from(MSIX_TABLE), u64::from(MSIX_PENDING));
    if offset >= pending {
        Area::Pending(offset - pending)
    } else if offset >= table {
        Area::Table(offset - table)
    } else {
        Area::Registers
    }
}

/// The register CC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Configuration(u32);

impl Configuration {
    /// `CC.EN`.
    pub(super) fn enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// `CC.SHN`: an orderly shutdown or an abrupt one.
    pub(super) fn shutdown(self) -> bool {
        self.0 >> 14 & 3 != 0
    }

    /// Whether the controller can work so: NVM command set, pages of 4 KiB, round robin.
    pub(super) fn supported(self) -> bool {
        (self.0 >> 4).trailing_zeros() >= 10
    }

    /// Whether entries of I/O queues have 64 and 16 bytes (`CC.IOSQES`, `CC.IOCQES`).
    pub(super) fn entry_sizes(self) -> bool {
        self.0 >> 16 & 0xff == 0x46
    }
}

/// `CSTS.SHST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    Not = 0,
    Occurring = 1,
    Complete = 2,
}

/// The admin queues as AQA, ASQ and ACQ say; sizes in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdminQueues {
    pub(super) submission: u64,
    pub(super) submission_size: u16,
    pub(super) completion: u64,
    pub(super) completion_size: u16,
}

/// What a write asks for.
pub(super) enum Write {
    Nothing,
    /// CC changed; this is what it was.
    Configuration(Configuration),
    /// A doorbell of a queue: the submission queue's tail or the completion queue's head.
    Doorbell {
        queue: u16,
        tail: bool,
        value: u16,
    },
}

/// The registers.
#[derive(Debug, Default)]
pub(super) struct Registers {
    configuration: Configuration,
    status: u32,
    admin_attributes: u32,
    admin_submission: u64,
    admin_completion: u64,
}

impl Registers {
    /// Reads; bytes of no register, and doorbells, read zero.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let mut all = [0; LENGTH];
        let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
        put(CAP, &CAPABILITIES.to_le_bytes());
        put(VS, &VERSION.to_le_bytes());
        put(CC, &self.configuration.0.to_le_bytes());
        put(CSTS, &self.status.to_le_bytes());
        put(AQA, &self.admin_attributes.to_le_bytes());
        put(ASQ, &self.admin_submission.to_le_bytes());
        put(ACQ, &self.admin_completion.to_le_bytes());
        for (at, byte) in (offset..).zip(data) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            *byte = all.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes a dword or, as two, a quadword. Accesses of another size or not aligned are none
    /// (section 3.1: their result is undefined).
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Write {
        let mut result = Write::Nothing;
        if !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return result;
        }
        for (at, dword) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let value = dword
                .iter()
                .rfold(0, |value, byte| value << 8 | u32::from(*byte));
            if let write @ (Write::Configuration(_) | Write::Doorbell { .. }) =
                self.write_dword(at, value)
            {
                result = write;
            }
        }
        result
    }

    fn write_dword(&mut self, offset: u64, value: u32) -> Write {
        if let Some(doorbell) = offset.checked_sub(DOORBELLS) {
            let Ok(number) = u16::try_from(doorbell / 4) else {
                return Write::Nothing;
            };
            return Write::Doorbell {
                queue: number / 2,
                tail: number.is_multiple_of(2),
                // Bits 31 to 16 are reserved.
                value: u16::try_from(value & 0xffff).unwrap_or(0),
            };
        }
        let low = |register: &mut u64| {
            // A queue starts on a page: the bits below are reserved.
            *register = *register & !0xffff_ffff | u64::from(value & !0xfff);
        };
        let high = |register: &mut u64| {
            *register = *register & 0xffff_ffff | u64::from(value) << 32;
        };
        match usize::try_from(offset).unwrap_or(usize::MAX) {
            CC => {
                let before =
                    std::mem::replace(&mut self.configuration, Configuration(value & 0x00ff_fff1));
                return Write::Configuration(before);
            }
            AQA => self.admin_attributes = value & 0x0fff_0fff,
            ASQ => low(&mut self.admin_submission),
            0x2c => high(&mut self.admin_submission),
            ACQ => low(&mut self.admin_completion),
            0x34 => high(&mut self.admin_completion),
            // The interrupt mask is for interrupts other than MSI-X.
            _ => {}
        }
        Write::Nothing
    }

    pub(super) fn configuration(&self) -> Configuration {
        self.configuration
    }

    pub(super) fn admin_queues(&self) -> AdminQueues {
        // Sizes count from 0.
        let size = |value: u32| u16::try_from((value & 0xfff) + 1).unwrap_or(u16::MAX);
        AdminQueues {
            submission: self.admin_submission,
            submission_size: size(self.admin_attributes),
            completion: self.admin_completion,
            completion_size: size(self.admin_attributes >> 16),
        }
    }

    /// Whether `CSTS.RDY` is set and `CSTS.CFS` is not.
    pub(super) fn ready(&self) -> bool {
        self.status & (CSTS_READY | CSTS_FATAL) == CSTS_READY
    }

    pub(super) fn set_ready(&mut self, ready: bool) {
        self.status = self.status & !CSTS_READY | u32::from(ready);
    }

    /// Sets `CSTS.CFS`: only a reset helps.
    pub(super) fn fail(&mut self) {
        self.status |= CSTS_FATAL;
    }

    pub(super) fn clear_status(&mut self) {
        self.status = 0;
    }

    pub(super) fn set_shutdown(&mut self, shutdown: Shutdown) {
        self.status = self.status & !CSTS_SHUTDOWN | (shutdown as u32) << 2;
    }

    pub(super) fn shutting_down(&self) -> bool {
        self.status & CSTS_SHUTDOWN == (Shutdown::Occurring as u32) << 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_whole_and_in_parts() {
        let registers = Registers::default();
        let mut whole = [0; 8];
        registers.read(0, &mut whole);
        assert_eq!(u64::from_le_bytes(whole), 0x0000_0020_3c01_03ff);
        let mut half = [0; 4];
        registers.read(4, &mut half);
        assert_eq!(half, whole[4..]);
        registers.read(8, &mut half);
        assert_eq!(u32::from_le_bytes(half), VERSION);
        registers.read(0x1000, &mut half);
        assert_eq!(half, [0; 4]);
    }

    #[test]
    fn admin_queues_are_told_in_halves_or_whole() {
        let mut registers = Registers::default();
        registers.write(0x24, &0x001f_000f_u32.to_le_bytes());
        registers.write(0x28, &0x0000_0001_2345_6789_u64.to_le_bytes());
        registers.write(0x30, &0x8000_0000_u32.to_le_bytes());
        registers.write(0x34, &2_u32.to_le_bytes());
        let expected = AdminQueues {
            submission: 0x1_2345_6000,
            submission_size: 16,
            completion: 0x2_8000_0000,
            completion_size: 32,
        };
        assert_eq!(registers.admin_queues(), expected);
        registers.write(0x28, &[1, 2]);
        registers.write(0x2a, &[0xff; 4]);
        assert_eq!(registers.admin_queues(), expected);
    }

    #[test]
    fn doorbells_are_told_apart() {
        let mut registers = Registers::default();
        for (offset, queue, tail) in [(0x1000, 0, true), (0x1004, 0, false), (0x101c, 3, false)] {
            let write = registers.write(offset, &7_u32.to_le_bytes());
            let Write::Doorbell {
                queue: number,
                tail: is_tail,
                value,
            } = write
            else {
                panic!("no doorbell at {offset:#x}");
            };
            assert_eq!((number, is_tail, value), (queue, tail, 7));
        }
    }
}
