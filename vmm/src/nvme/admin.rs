//! Admin commands (NVMe, section 5).

use super::command::{ALL_NAMESPACES, Command, NAMESPACE, Status, low};
use super::controller::{ADMIN, Controller, Outcome, VECTORS};
use super::event::Held;
use super::features::id;
use super::identify;
use super::prp::MAX_TRANSFER;
use super::queue::{CompletionQueue, Submission};
use super::regs::MAX_ENTRIES;
use crate::virtio::GuestRam;

const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_COMPLETION_QUEUE: u8 = 0x04;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0a;
const ASYNC_EVENT_REQUEST: u8 = 0x0c;

/// Physically contiguous: bit 0 of dword 11.
const CONTIGUOUS: u32 = 1 << 0;
/// Interrupts enabled: bit 1 of dword 11.
const INTERRUPTS: u32 = 1 << 1;
/// Save: bit 31 of Set Features' dword 10.
const SAVE: u32 = 1 << 31;
/// Retain asynchronous event: bit 15 of Get Log Page's dword 10.
const RETAIN: u32 = 1 << 15;

impl Controller {
    /// Does an admin command.
    pub(super) fn admin(
        &mut self,
        ram: &GuestRam,
        command: &Command,
        entry_sizes: bool,
    ) -> Result<Outcome, Status> {
        command.check_flags()?;
        match command.opcode {
            DELETE_SUBMISSION_QUEUE => return self.delete_submission_queue(command),
            CREATE_SUBMISSION_QUEUE => self.create_submission_queue(ram, command, entry_sizes)?,
            GET_LOG_PAGE => self.log_page(ram, command)?,
            DELETE_COMPLETION_QUEUE => self.delete_completion_queue(command)?,
            CREATE_COMPLETION_QUEUE => self.create_completion_queue(ram, command, entry_sizes)?,
            IDENTIFY => self.identify(ram, command)?,
            // Bit 0 of the result: the command was not aborted. It is answered when it is done.
            ABORT => return Ok(Outcome::Done(1)),
            SET_FEATURES => return self.set_feature(command),
            GET_FEATURES => {
                self.check_cache(command)?;
                return self.features.get(command).map(Outcome::Done);
            }
            ASYNC_EVENT_REQUEST => return self.hold(command),
            _ => return Err(Status::INVALID_OPCODE),
        }
        Ok(Outcome::Done(0))
    }

    /// The place of an I/O queue with this number, if it may be one.
    fn place(&self, number: u16) -> Result<usize, Status> {
        if (1..=self.features.queues()).contains(&number) {
            Ok(number.into())
        } else {
            Err(Status::INVALID_QUEUE_ID)
        }
    }

    fn create_completion_queue(
        &mut self,
        ram: &GuestRam,
        command: &Command,
        entry_sizes: bool,
    ) -> Result<(), Status> {
        let place = self.place(command.dw10_low())?;
        if self.completions[place].is_some() {
            return Err(Status::INVALID_QUEUE_ID);
        }
        let size = queue_size(command, entry_sizes)?;
        let vector = low(command.dw11() >> 16);
        if vector >= VECTORS {
            return Err(Status::INVALID_VECTOR);
        }
        let vector = (command.dw11() & INTERRUPTS != 0).then_some(vector);
        let queue = CompletionQueue::new(ram, command.prp1, size, vector)?;
        self.completions[place] = Some(queue);
        Ok(())
    }

    fn create_submission_queue(
        &mut self,
        ram: &GuestRam,
        command: &Command,
        entry_sizes: bool,
    ) -> Result<(), Status> {
        let place = self.place(command.dw10_low())?;
        if self.submissions[place].is_some() {
            return Err(Status::INVALID_QUEUE_ID);
        }
        let completion = low(command.dw11() >> 16);
        let answers = self.place(completion)?;
        let size = queue_size(command, entry_sizes)?;
        let answers = self.completions[answers].as_mut();
        let answers = answers.ok_or(Status::COMPLETION_QUEUE_INVALID)?;
        let queue = Submission::new(ram, command.prp1, size, completion)?;
        answers.users += 1;
        self.submissions[place] = Some(queue);
        Ok(())
    }

    fn delete_submission_queue(&mut self, command: &Command) -> Result<Outcome, Status> {
        let place = self.place(command.dw10_low())?;
        let slot = &mut self.submissions[place];
        let queue = slot.as_mut();
        let queue = queue.filter(|queue| queue.deleted_by.is_none());
        let queue = queue.ok_or(Status::INVALID_QUEUE_ID)?;
        if queue.under_way > 0 {
            queue.deleted_by = Some(command.id);
            return Ok(Outcome::UnderWay);
        }
        let completion = usize::from(queue.completion);
        *slot = None;
        if let Some(answers) = &mut self.completions[completion] {
            answers.users -= 1;
        }
        Ok(Outcome::Done(0))
    }

    fn delete_completion_queue(&mut self, command: &Command) -> Result<(), Status> {
        let place = self.place(command.dw10_low())?;
        let slot = &mut self.completions[place];
        let queue = slot.as_ref().ok_or(Status::INVALID_QUEUE_ID)?;
        if queue.users > 0 {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        *slot = None;
        Ok(())
    }

    fn identify(&mut self, ram: &GuestRam, command: &Command) -> Result<(), Status> {
        let data = match command.dw10() & 0xff {
            0x00 if command.namespace == NAMESPACE => {
                let disk = &self.disk;
                identify::namespace(disk.sectors(), disk.read_only(), disk.discards())
            }
            0x01 => identify::controller(&self.names, !self.disk.read_only()),
            // Active namespaces after the one named.
            0x02 if command.namespace < ALL_NAMESPACES - 1 => {
                identify::namespaces(command.namespace)
            }
            0x03 if command.namespace == NAMESPACE => identify::descriptors(&self.names),
            0x00 | 0x02 | 0x03 => return Err(Status::INVALID_NAMESPACE),
            _ => return Err(Status::INVALID_FIELD),
        };
        self.copy_out(ram, command, &data)
    }

    fn set_feature(&mut self, command: &Command) -> Result<Outcome, Status> {
        if command.dw10() & SAVE != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        self.check_cache(command)?;
        let io_queues = self.submissions[1..].iter().any(Option::is_some)
            || self.completions[1..].iter().any(Option::is_some);
        if command.dw10() & 0xff == id::QUEUES && io_queues {
            return Err(Status::COMMAND_SEQUENCE);
        }
        let cached = self.features.write_cache();
        let result = self.features.set(command)?;
        if cached && !self.features.write_cache() && !self.disk.read_only() {
            // From now on a flush does nothing: what was written before is brought to the medium here.
            self.flush_cache_for(command.id);
            return Ok(Outcome::UnderWay);
        }
        Ok(Outcome::Done(result))
    }

    /// A disk that takes no writes has no cache for them.
    fn check_cache(&self, command: &Command) -> Result<(), Status> {
        if command.dw10() & 0xff == id::WRITE_CACHE && self.disk.read_only() {
            return Err(Status::INVALID_FIELD);
        }
        Ok(())
    }

    fn hold(&mut self, command: &Command) -> Result<Outcome, Status> {
        match self.events.hold(command.id) {
            Held::Yes => {
                // It may be held for ever: its place is somebody else's until then.
                if let Some(answers) = &mut self.completions[usize::from(ADMIN)] {
                    answers.release();
                }
                Ok(Outcome::UnderWay)
            }
            Held::TooMany => Err(Status::EVENT_LIMIT),
        }
    }

    fn log_page(&mut self, ram: &GuestRam, command: &Command) -> Result<(), Status> {
        let dwords = u64::from(command.dw10_high()) | u64::from(command.dw11() & 0xffff) << 16;
        let length = (dwords + 1) * 4;
        let offset = command.dw12_13();
        if length > MAX_TRANSFER || !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD);
        }
        let page = match command.dw10() & 0xff {
            0x01 => {
                if command.dw10() & RETAIN == 0 {
                    self.events.error_log_read();
                }
                identify::error_log(&self.last_error)
            }
            0x02 if matches!(command.namespace, 0 | ALL_NAMESPACES) => {
                identify::health_log(&self.disk.counters(), self.last_error.count)
            }
            0x02 => return Err(Status::INVALID_FIELD),
            0x03 => identify::firmware_log(),
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        let offset = usize::try_from(offset).map_err(|_| Status::INVALID_FIELD)?;
        let page = page.get(offset..).ok_or(Status::INVALID_FIELD)?;
        // What comes behind the page is not defined: it stays as it is.
        let length = usize::try_from(length).unwrap_or(0).min(page.len());
        self.copy_out(ram, command, &page[..length])
    }
}

/// The size that a command gives a queue, which counts from 0.
fn queue_size(command: &Command, entry_sizes: bool) -> Result<u16, Status> {
    if command.dw11() & CONTIGUOUS == 0 {
        return Err(Status::INVALID_FIELD);
    }
    let size = command.dw10_high().checked_add(1);
    size.filter(|size| entry_sizes && *size <= MAX_ENTRIES)
        .ok_or(Status::INVALID_QUEUE_SIZE)
}
