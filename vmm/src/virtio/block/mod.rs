//! Block device (virtio 1.2, section 5.2) over a disk image.
//!
//! A flush is an `fdatasync`; without `VIRTIO_BLK_F_FLUSH` each write is stable before it completes.

mod request;
mod segments;

pub mod fuzzing;

use vm_memory::GuestAddress;

use self::request::{Asked, HEADER_LEN, Request, Status};
use self::segments::{Limits, Segments};
use super::chain::spans;
use super::{Chain, Device, DriverFault, GuestRam, Io, Kind, Progress, VirtQueue};
use crate::disk::{Counters, Disk, DiskError, Operation, SECTOR, Store};
use crate::worker::{Source, Turn};

/// Requests taken off the queue in one turn.
const BUDGET: usize = 128;
/// Entries of the queue: a request of 1 MiB whose 256 pages lie apart is one chain, and not two requests
/// of which the second has what the first one left over.
const QUEUE_SIZE: u16 = 512;
/// Data buffers of a request: the queue's longest chain, less header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;

/// `VIRTIO_BLK_F_SEG_MAX`.
const F_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
const F_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
const F_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
const F_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_DISCARD`.
const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Length of the device's name, in bytes.
pub const ID_LEN: usize = 20;

/// Where the answer to a request goes.
#[derive(Debug, Clone, Copy)]
struct Reply {
    head: u16,
    status_at: GuestAddress,
    /// Bytes before the status that a request which succeeds has written.
    given: u32,
}

/// The device.
pub struct Block {
    disk: Disk<Reply>,
    id: [u8; ID_LEN],
    /// The features of the running driver.
    driver: Option<u64>,
    notified: bool,
    /// The queue may hold requests that wait for a place in flight.
    full: bool,
    chain: Chain,
}

impl Block {
    /// A disk over `store`, which is open for what `read_only` says. `id` is cut to 20 bytes.
    pub fn new(store: impl Into<Store>, read_only: bool, id: &str) -> Result<Self, DiskError> {
        let mut name = [0; ID_LEN];
        for (slot, byte) in name.iter_mut().zip(id.bytes()) {
            *slot = byte;
        }
        Ok(Self {
            disk: Disk::new(store, read_only)?,
            id: name,
            driver: None,
            notified: false,
            full: false,
            chain: Chain::default(),
        })
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.disk.counters()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.disk.busy()
    }

    /// Takes requests off the queue and starts them; whether the budget ended it.
    fn take(&mut self, ram: &GuestRam, queue: &mut VirtQueue) -> Result<Turn, DriverFault> {
        for _ in 0..BUDGET {
            if self.disk.full() {
                self.full = true;
                return Ok(Turn::Idle);
            }
            let mut chain = std::mem::take(&mut self.chain);
            let popped = queue.pop(ram, &mut chain);
            self.chain = chain;
            if !popped? {
                if !queue.listen(ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let request = Request::parse(ram, &self.chain)?;
            let answer = self.start(ram, &request);
            if let Some((status, given)) = answer {
                if status != Status::Ok {
                    self.disk.count_refusal();
                }
                request.answer(ram, queue, status, given)?;
            }
        }
        Ok(Turn::More)
    }

    /// Whether the running driver has taken this feature.
    fn has(&self, feature: u64) -> bool {
        self.driver.is_some_and(|features| features & feature != 0)
    }

    /// Whether what a request writes is on the medium when it completes: the driver knows no flush.
    fn stable(&self) -> bool {
        !self.has(F_FLUSH)
    }

    /// Starts a request; what to answer where that can be said at once, with the bytes given.
    fn start(&mut self, ram: &GuestRam, request: &Request) -> Option<(Status, u32)> {
        let reply = |given| Reply {
            head: request.head,
            status_at: request.status_at,
            given,
        };
        match request.asked {
            None => Some((Status::Unsupported, 0)),
            Some(Asked::Id) => {
                let id = &self.id[..request.id_len()];
                let given = self.chain.write_at(ram, 0, id);
                Some((Status::Ok, u32::try_from(given).unwrap_or(0)))
            }
            Some(Asked::Flush) if self.disk.read_only() => Some((Status::Ok, 0)),
            Some(Asked::Flush) => {
                self.disk.flush(reply(0));
                None
            }
            Some(Asked::Discard) if !self.has(F_DISCARD) => Some((Status::Unsupported, 0)),
            Some(Asked::WriteZeroes) if !self.has(F_WRITE_ZEROES) => Some((Status::Unsupported, 0)),
            Some(Asked::Write) if self.disk.read_only() => Some((Status::Error, 0)),
            Some(asked @ (Asked::Discard | Asked::WriteZeroes)) => {
                let limits = if asked == Asked::Discard {
                    Limits::Discard
                } else {
                    Limits::Zeroes
                };
                let capacity = self.disk.sectors();
                match Segments::read(ram, &self.chain, request, limits, capacity) {
                    Err(status) => Some((status, 0)),
                    Ok(segments) => {
                        let begun = self.clear(reply(0), asked, segments);
                        (!begun).then_some((Status::Ok, 0))
                    }
                }
            }
            Some(asked @ (Asked::Read | Asked::Write)) => {
                if let Err(status) = request.check_range(self.disk.sectors()) {
                    return Some((status, 0));
                }
                if request.data_len == 0 {
                    return Some((Status::Ok, 0));
                }
                let place = (request.offset(), request.data_len);
                let length = usize::try_from(request.data_len).unwrap_or(0);
                if asked == Asked::Read {
                    let given = u32::try_from(request.data_len).unwrap_or(0);
                    let to = spans(self.chain.writable(), 0, length);
                    self.disk
                        .transfer(reply(given), Operation::Read, place, ram, to);
                } else {
                    let stable = self.stable();
                    let operation = Operation::Write { stable };
                    let from = spans(self.chain.readable(), HEADER_LEN as u64, length);
                    self.disk.transfer(reply(0), operation, place, ram, from);
                }
                None
            }
        }
    }

    /// Starts to give up or to zero ranges; whether there is anything to do.
    fn clear(&mut self, reply: Reply, asked: Asked, segments: Segments) -> bool {
        let mut ranges = segments.ranges.into_iter();
        if asked == Asked::Discard {
            return self.disk.discard(reply, ranges);
        }
        let stable = self.stable();
        // There is one.
        ranges
            .next()
            .is_some_and(|range| self.disk.zero(reply, range, segments.unmap, stable))
    }

    /// Takes completions and answers their requests.
    fn reap(&mut self, io: &mut Io<'_>) -> Result<(), DriverFault> {
        while let Some(landed) = self.disk.reap() {
            let Reply {
                head,
                status_at,
                given,
            } = landed.tag;
            if let Some(queue) = io.queues.first_mut() {
                let (status, given) = match landed.outcome {
                    Ok(()) => (Status::Ok, given),
                    Err(_) => (Status::Error, 0),
                };
                request::answer_at(io.ram, queue, head, status_at, status, given + 1)?;
            }
            // There is a place in flight for what waited.
            self.notified |= std::mem::take(&mut self.full);
        }
        Ok(())
    }
}

impl Device for Block {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        let writing = match (self.disk.read_only(), self.disk.discards()) {
            (true, _) => F_RO,
            (false, true) => F_WRITE_ZEROES | F_DISCARD,
            (false, false) => F_WRITE_ZEROES,
        };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | writing
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 60];
        let alignment = u32::try_from(self.disk.granularity() / SECTOR).unwrap_or(1);
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        for (at, value) in [
            (12, SEGMENTS),
            (20, 512),
            (36, segments::MAX_DISCARD_SECTORS),
            (40, segments::MAX_DISCARDS),
            (44, alignment),
            (48, segments::MAX_ZEROES_SECTORS),
            (52, segments::MAX_ZEROES),
            // Whether zeroes may give up room.
            (56, u32::from(self.disk.discards())),
        ] {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (at, byte) in (offset..).zip(data) {
            *byte = config.get(at).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, features: u64) {
        self.driver = Some(features);
    }

    fn reset(&mut self) -> Progress {
        self.driver = None;
        self.notified = false;
        self.full = false;
        if self.disk.abandon() {
            Progress::Done
        } else {
            Progress::Waiting
        }
    }

    fn drain(&mut self) -> Turn {
        self.disk.submit()
    }

    fn notified(&mut self, _index: usize) {
        self.notified = true;
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        if self.driver.is_none() {
            return Ok(Turn::Idle);
        }
        self.reap(io)?;
        let mut taken = Ok(Turn::Idle);
        if std::mem::take(&mut self.notified)
            && let Some(queue) = io.queues.first_mut()
        {
            taken = self.take(io.ram, queue);
        }
        // Also before a fault is told: what was taken is under way.
        let mut turn = self.disk.submit();
        self.notified |= taken? == Turn::More;
        // What the page cache had is complete by now; some of it goes on with a next call.
        self.reap(io)?;
        if self.disk.submit() == Turn::More || self.notified {
            turn = Turn::More;
        }
        Ok(turn)
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        list.push(self.disk.source());
    }
}
