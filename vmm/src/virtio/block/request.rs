//! A request as the driver wrote it (virtio 1.2, section 5.2.6).

use vm_memory::{Bytes, GuestAddress};

use crate::disk::SECTOR;
use crate::virtio::{Chain, DriverFault, GuestRam, VirtQueue};

/// Type, reserved, sector.
pub(super) const HEADER_LEN: usize = 16;
/// Longest transfer of one request: what Linux (1280 KiB) and Windows (2 MiB) ask for, generously.
/// It bounds what one request can make the kernel do before a reset.
const MAX_TRANSFER: u64 = 16 << 20;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    Write,
    Flush,
    Id,
    Discard,
    WriteZeroes,
}

/// The status byte at the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    Error = 1,
    Unsupported = 2,
}

/// A request whose header was copied out of guest memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) head: u16,
    /// `None` for a type that is not offered.
    pub(super) asked: Option<Asked>,
    sector: u64,
    /// Bytes of data, in the direction of the operation.
    pub(super) data_len: u64,
    /// Where the status byte goes.
    pub(super) status_at: GuestAddress,
}

impl Request {
    /// Reads the header. A chain without room for header and status is the driver's fault.
    pub(super) fn parse(ram: &GuestRam, chain: &Chain) -> Result<Self, DriverFault> {
        let mut header = [0; HEADER_LEN];
        let last = chain.writable().last().ok_or(DriverFault::Direction)?;
        if chain.read_at(ram, 0, &mut header) < HEADER_LEN {
            return Err(DriverFault::Direction);
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let asked = match u32::from_le_bytes([t0, t1, t2, t3]) {
            TYPE_IN => Some(Asked::Read),
            TYPE_OUT => Some(Asked::Write),
            TYPE_FLUSH => Some(Asked::Flush),
            TYPE_GET_ID => Some(Asked::Id),
            TYPE_DISCARD => Some(Asked::Discard),
            TYPE_WRITE_ZEROES => Some(Asked::WriteZeroes),
            _ => None,
        };
        let data_len = match asked {
            Some(Asked::Write | Asked::Discard | Asked::WriteZeroes) => {
                chain.readable_len() - HEADER_LEN as u64
            }
            Some(Asked::Read | Asked::Id) => chain.writable_len() - 1,
            Some(Asked::Flush) | None => 0,
        };
        Ok(Self {
            head: chain.head(),
            asked,
            sector: u64::from_le_bytes(sector),
            data_len,
            status_at: GuestAddress(last.address.0 + u64::from(last.len) - 1),
        })
    }

    /// Position in the image, bytes. Meaningful after [`Request::check_range`].
    pub(super) fn offset(&self) -> u64 {
        self.sector.saturating_mul(SECTOR)
    }

    /// Whole sectors, inside the disk, not too many.
    pub(super) fn check_range(&self, capacity: u64) -> Result<(), Status> {
        let sectors = self.data_len / SECTOR;
        let end = self.sector.checked_add(sectors);
        let inside = end.is_some_and(|end| end <= capacity);
        if self.data_len.is_multiple_of(SECTOR) && self.data_len <= MAX_TRANSFER && inside {
            Ok(())
        } else {
            Err(Status::Error)
        }
    }

    /// How much of the device's name the request has room for.
    pub(super) fn id_len(&self) -> usize {
        usize::try_from(self.data_len)
            .unwrap_or(usize::MAX)
            .min(super::ID_LEN)
    }

    /// Gives the chain back with this status and `data` bytes before it.
    pub(super) fn answer(
        &self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        status: Status,
        data: u32,
    ) -> Result<(), DriverFault> {
        answer_at(ram, queue, self.head, self.status_at, status, data + 1)
    }
}

/// Writes the status byte and gives the chain back.
pub(super) fn answer_at(
    ram: &GuestRam,
    queue: &mut VirtQueue,
    head: u16,
    status_at: GuestAddress,
    status: Status,
    written: u32,
) -> Result<(), DriverFault> {
    ram.write_obj(status as u8, status_at)
        .map_err(|_| DriverFault::Outside)?;
    queue.push(ram, head, written)
}
