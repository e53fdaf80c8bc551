//! Entropy source (virtio 1.2, section 5.4): bytes of the host kernel's generator.

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Chain, Device, DriverFault, Io, Kind, Progress, QUEUE_SIZE};
use crate::worker::Turn;

/// Bytes a request gets at most. A driver takes what it gets and asks again (Linux asks for 64
/// bytes, Windows for 256), so more would only be memory and time that a guest could make us spend.
const MAX_BYTES: usize = 4096;
/// Requests served in one turn: at most 256 KiB from the generator, under a millisecond.
const BUDGET: usize = 64;

/// The device.
#[derive(Default)]
pub struct Rng {
    chain: Chain,
    active: bool,
    notified: bool,
}

impl Rng {
    /// An entropy source.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Rng {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, _features: u64) {
        self.active = true;
    }

    fn reset(&mut self) -> Progress {
        *self = Self::default();
        Progress::Done
    }

    fn notified(&mut self, _index: usize) {
        self.notified = true;
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        if !std::mem::take(&mut self.notified) || !self.active {
            return Ok(Turn::Idle);
        }
        let Some(queue) = io.queues.first_mut() else {
            return Ok(Turn::Idle);
        };
        for _ in 0..BUDGET {
            if !queue.pop(io.ram, &mut self.chain)? {
                if !queue.listen(io.ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let wanted = usize::try_from(self.chain.writable_len()).unwrap_or(MAX_BYTES);
            let mut bytes = [0; MAX_BYTES];
            let bytes = &mut bytes[..wanted.min(MAX_BYTES)];
            // A request without a buffer to write gets its zero bytes.
            let given = getrandom(&mut *bytes, GetRandomFlags::NONBLOCK).unwrap_or(0);
            let written = self.chain.write_at(io.ram, 0, &bytes[..given.min(wanted)]);
            queue.push(
                io.ram,
                self.chain.head(),
                u32::try_from(written).unwrap_or(0),
            )?;
        }
        self.notified = true;
        Ok(Turn::More)
    }
}
