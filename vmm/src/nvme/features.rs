//! Features (NVMe, section 5.21.1).

use super::command::{Command, Status, low};
use super::controller::{IO_QUEUES, VECTORS};

/// Feature identifiers.
pub(super) mod id {
    pub(in super::super) const ARBITRATION: u32 = 0x01;
    pub(in super::super) const POWER: u32 = 0x02;
    pub(in super::super) const TEMPERATURE: u32 = 0x04;
    pub(in super::super) const ERROR_RECOVERY: u32 = 0x05;
    pub(in super::super) const WRITE_CACHE: u32 = 0x06;
    pub(in super::super) const QUEUES: u32 = 0x07;
    pub(in super::super) const COALESCING: u32 = 0x08;
    pub(in super::super) const VECTOR: u32 = 0x09;
    pub(in super::super) const ATOMICITY: u32 = 0x0a;
    pub(in super::super) const EVENTS: u32 = 0x0b;
}

/// Kelvin above which the health log would warn; the temperature there never changes.
pub(super) const WARM: u16 = 343;

/// What the driver set.
#[derive(Debug)]
pub(super) struct Features {
    arbitration: u32,
    over: u16,
    under: u16,
    error_recovery: u32,
    write_cache: bool,
    queues: u16,
    coalescing: u32,
    /// "Coalescing disabled", a bit a vector.
    uncoalesced: u32,
    atomicity: u32,
    events: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            arbitration: 0,
            over: WARM,
            under: 0,
            error_recovery: 0,
            write_cache: true,
            queues: IO_QUEUES,
            coalescing: 0,
            uncoalesced: 0,
            atomicity: 0,
            events: 0,
        }
    }
}

impl Features {
    /// Whether a write may complete before it is on the medium.
    pub(super) fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// I/O queues that may be created; their highest number.
    pub(super) fn queues(&self) -> u16 {
        self.queues
    }

    /// Get Features: the value, as dword 0 of the completion.
    pub(super) fn get(&self, command: &Command) -> Result<u32, Status> {
        Ok(match command.dw10() & 0xff {
            id::ARBITRATION => self.arbitration,
            // There is one power state.
            id::POWER => 0,
            id::TEMPERATURE => (*self.threshold(command)?).into(),
            id::ERROR_RECOVERY => self.error_recovery,
            id::WRITE_CACHE => self.write_cache.into(),
            id::QUEUES => self.granted(),
            id::COALESCING => self.coalescing,
            id::VECTOR => {
                let vector = vector(command)?;
                u32::from(vector) | (self.uncoalesced >> vector & 1) << 16
            }
            id::ATOMICITY => self.atomicity,
            id::EVENTS => self.events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Set Features: dword 0 of the completion.
    pub(super) fn set(&mut self, command: &Command) -> Result<u32, Status> {
        let value = command.dw11();
        match command.dw10() & 0xff {
            id::ARBITRATION => self.arbitration = value,
            id::POWER if value.trailing_zeros() >= 5 => {}
            id::TEMPERATURE => {
                self.threshold(command)?;
                let threshold = low(value);
                if value >> 20 & 1 == 0 {
                    self.over = threshold;
                } else {
                    self.under = threshold;
                }
            }
            // Only a time limit: no error for deallocated blocks is offered.
            id::ERROR_RECOVERY if value >> 16 == 0 => self.error_recovery = value,
            id::WRITE_CACHE => self.write_cache = value & 1 != 0,
            id::QUEUES => {
                // Both count from 0, and 65536 of them cannot be asked for.
                let (submission, completion) = (low(value), low(value >> 16));
                if submission == u16::MAX || completion == u16::MAX {
                    return Err(Status::INVALID_FIELD);
                }
                // A driver uses pairs: more of one kind than of the other is of no use.
                self.queues = (submission.min(completion) + 1).min(IO_QUEUES);
                return Ok(self.granted());
            }
            // A hint: completions that come together are told together anyway.
            id::COALESCING => self.coalescing = value & 0xffff,
            id::VECTOR => {
                let vector = vector(command)?;
                self.uncoalesced = self.uncoalesced & !(1 << vector) | (value >> 16 & 1) << vector;
            }
            id::ATOMICITY => self.atomicity = value & 1,
            // Health warnings, which do not come, and nothing else.
            id::EVENTS => self.events = value & 0xff,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }

    fn granted(&self) -> u32 {
        let last = u32::from(self.queues - 1);
        last | last << 16
    }

    /// The threshold of the only temperature there is, or, to set them, of all.
    fn threshold(&self, command: &Command) -> Result<&u16, Status> {
        let (sensor, kind) = (command.dw11() >> 16 & 0xf, command.dw11() >> 20 & 3);
        match (sensor, kind) {
            (0 | 0xf, 0) => Ok(&self.over),
            (0 | 0xf, 1) => Ok(&self.under),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

fn vector(command: &Command) -> Result<u16, Status> {
    let vector = low(command.dw11());
    if vector < VECTORS {
        Ok(vector)
    } else {
        Err(Status::INVALID_FIELD)
    }
}

const _: () = assert!(VECTORS <= 32, "a bit a vector");
