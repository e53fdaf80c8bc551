//! Commands of the NVM command set (NVMe, section 6).

use std::ops::Range;

use vm_memory::Bytes as _;

use super::command::{ALL_NAMESPACES, Command, NAMESPACE, Status};
use super::controller::{Controller, Outcome, Tag};
use crate::disk::{Operation, SECTOR};
use crate::virtio::GuestRam;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;

/// Force unit access: bit 30 of dword 12.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Deallocate, of Write Zeroes: bit 25 of dword 12.
const DEALLOCATE_ZEROES: u32 = 1 << 25;
/// Deallocate, of Dataset Management: bit 2 of dword 11.
const DEALLOCATE: u32 = 1 << 2;
/// Bytes of a dataset management range: attributes, blocks, first block.
const RANGE_LEN: usize = 16;
const MAX_RANGES: usize = 256;

impl Controller {
    /// Starts a command of an I/O queue. The disk has a place for it.
    pub(super) fn io(
        &mut self,
        ram: &GuestRam,
        queue: u16,
        command: &Command,
    ) -> Result<Outcome, Status> {
        let started = self.start_io(ram, queue, command);
        if started.is_err() {
            self.disk.count_refusal();
        }
        started
    }

    fn start_io(
        &mut self,
        ram: &GuestRam,
        queue: u16,
        command: &Command,
    ) -> Result<Outcome, Status> {
        command.check_flags()?;
        let tag = Tag::Command {
            queue,
            id: command.id,
        };
        let one = command.namespace == NAMESPACE;
        match command.opcode {
            FLUSH if one || command.namespace == ALL_NAMESPACES => {
                if self.disk.read_only() {
                    return Ok(Outcome::Done(0));
                }
                self.disk.flush(tag);
            }
            WRITE | READ | WRITE_ZEROES | DATASET_MANAGEMENT | FLUSH if !one => {
                return Err(Status::INVALID_NAMESPACE);
            }
            WRITE | WRITE_ZEROES | DATASET_MANAGEMENT if self.disk.read_only() => {
                return Err(Status::WRITE_PROTECTED);
            }
            WRITE => {
                let stable = self.stable(command);
                self.transfer(ram, tag, Operation::Write { stable }, command)?;
            }
            WRITE_ZEROES => {
                let unmap = command.dw12() & DEALLOCATE_ZEROES != 0;
                let range = self.blocks(command)?;
                if !self.disk.zero(tag, range, unmap, self.stable(command)) {
                    return Ok(Outcome::Done(0));
                }
            }
            READ => self.transfer(ram, tag, Operation::Read, command)?,
            DATASET_MANAGEMENT => return self.manage(ram, tag, command),
            _ => return Err(Status::INVALID_OPCODE),
        }
        Ok(Outcome::UnderWay)
    }

    /// Whether what a command writes is to be on the medium when it completes.
    fn stable(&self, command: &Command) -> bool {
        command.dw12() & FORCE_UNIT_ACCESS != 0 || !self.features.write_cache()
    }

    fn transfer(
        &mut self,
        ram: &GuestRam,
        tag: Tag,
        operation: Operation,
        command: &Command,
    ) -> Result<(), Status> {
        let place = self.blocks(command)?;
        let length = place.end - place.start;
        self.regions
            .read(ram, (command.prp1, command.prp2), length)?;
        let spans = self.regions.spans();
        self.disk
            .transfer(tag, operation, (place.start, length), ram, spans);
        Ok(())
    }

    /// The bytes of the image that a command names.
    fn blocks(&self, command: &Command) -> Result<Range<u64>, Status> {
        let blocks = u64::from(command.dw12() & 0xffff) + 1;
        self.range(command.block(), blocks)
    }

    /// The bytes of the image that these blocks are.
    fn range(&self, first: u64, blocks: u64) -> Result<Range<u64>, Status> {
        let end = first.checked_add(blocks);
        let end = end.filter(|end| *end <= self.disk.sectors());
        let end = end.ok_or(Status::LBA_OUT_OF_RANGE)?;
        Ok(first * SECTOR..end * SECTOR)
    }

    /// Gives up ranges; all of them are looked at before the first one is.
    fn manage(&mut self, ram: &GuestRam, tag: Tag, command: &Command) -> Result<Outcome, Status> {
        let count = usize::from(command.dw10_low() & 0xff) + 1;
        let mut bytes = [0; MAX_RANGES * RANGE_LEN];
        let bytes = bytes
            .get_mut(..count * RANGE_LEN)
            .ok_or(Status::INVALID_FIELD)?;
        self.copy_in(ram, command, bytes)?;
        let mut ranges = Vec::new();
        for entry in bytes.as_chunks::<RANGE_LEN>().0 {
            let [_, _, _, _, b0, b1, b2, b3, first @ ..] = *entry;
            let blocks = u32::from_le_bytes([b0, b1, b2, b3]);
            let range = self.range(u64::from_le_bytes(first), blocks.into())?;
            ranges.push(range);
        }
        // The other attributes are advice that there is no use for.
        let wanted = command.dw11() & DEALLOCATE != 0 && self.disk.discards();
        if wanted && self.disk.discard(tag, ranges.into_iter()) {
            Ok(Outcome::UnderWay)
        } else {
            Ok(Outcome::Done(0))
        }
    }

    /// Copies a command's data out of guest memory, once.
    fn copy_in(
        &mut self,
        ram: &GuestRam,
        command: &Command,
        mut data: &mut [u8],
    ) -> Result<(), Status> {
        let prps = (command.prp1, command.prp2);
        for (at, length) in self.regions.read(ram, prps, data.len() as u64)? {
            let (part, rest) = data
                .split_at_mut_checked(*length)
                .ok_or(Status::DATA_TRANSFER)?;
            ram.read_slice(part, *at)
                .map_err(|_| Status::DATA_TRANSFER)?;
            data = rest;
        }
        Ok(())
    }

    /// Copies a command's data into guest memory.
    pub(super) fn copy_out(
        &mut self,
        ram: &GuestRam,
        command: &Command,
        mut data: &[u8],
    ) -> Result<(), Status> {
        let prps = (command.prp1, command.prp2);
        for (at, length) in self.regions.read(ram, prps, data.len() as u64)? {
            let (part, rest) = data
                .split_at_checked(*length)
                .ok_or(Status::DATA_TRANSFER)?;
            ram.write_slice(part, *at)
                .map_err(|_| Status::DATA_TRANSFER)?;
            data = rest;
        }
        Ok(())
    }
}
