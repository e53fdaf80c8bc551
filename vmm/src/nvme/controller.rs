//! The controller behind the registers: takes commands from the submission queues, posts their
//! completions.

use super::command::{Command, NAMESPACE, Status};
use super::event::{Event, Events};
use super::features::Features;
use super::identify::Names;
use super::prp::Regions;
use super::queue::{Completion, CompletionQueue, Submission};
use super::regs::AdminQueues;
use crate::disk::{Counters, Disk, Failure, Landed, Operation};
use crate::virtio::GuestRam;
use crate::worker::{Source, Turn};

/// Queue pairs for I/O; drivers take one a processor.
pub(super) const IO_QUEUES: u16 = 16;
/// One for the admin queue, one for each I/O queue.
pub(super) const VECTORS: u16 = IO_QUEUES + 1;
/// Commands taken in one turn.
const BUDGET: usize = 128;
/// The admin queues.
pub(super) const ADMIN: u16 = 0;

/// The queues cannot be used any more: only a reset of the controller helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fatal;

/// Which request of ours the disk has answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tag {
    Command { queue: u16, id: u16 },
    Shutdown,
}

/// What becomes of a command that is not refused.
pub(super) enum Outcome {
    /// It has succeeded, with this dword 0 of its completion.
    Done(u32),
    /// It is answered later.
    UnderWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Not,
    Asked,
    Flushing,
    Done,
}

/// The last command that failed, for the error log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastError {
    pub(super) count: u64,
    pub(super) queue: u16,
    pub(super) command: u16,
    pub(super) status: u16,
    pub(super) namespace: u32,
}

/// The controller.
pub(super) struct Controller {
    pub(super) disk: Disk<Tag>,
    pub(super) names: Names,
    /// By number; the first is the admin queue.
    pub(super) submissions: Vec<Option<Submission>>,
    /// By number; the first is the admin queue.
    pub(super) completions: Vec<Option<CompletionQueue>>,
    pub(super) features: Features,
    pub(super) events: Events,
    pub(super) last_error: LastError,
    pub(super) regions: Regions,
    /// The queue that is looked at first.
    next: u16,
    /// Commands wait for a place in flight.
    full: bool,
    shutdown: Shutdown,
    /// The command that switches the write cache off, until what was cached is being flushed.
    cache_off: Option<u16>,
}

impl Controller {
    pub(super) fn new(disk: Disk<Tag>, names: Names) -> Self {
        Self {
            disk,
            names,
            submissions: (0..=IO_QUEUES).map(|_| None).collect(),
            completions: (0..=IO_QUEUES).map(|_| None).collect(),
            features: Features::default(),
            events: Events::default(),
            last_error: LastError::default(),
            regions: Regions::default(),
            next: 0,
            full: false,
            shutdown: Shutdown::Not,
            cache_off: None,
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.disk.counters()
    }

    pub(super) fn busy(&self) -> usize {
        self.disk.busy()
    }

    pub(super) fn source(&self) -> Source<'_> {
        self.disk.source()
    }

    /// Makes the admin queues.
    pub(super) fn start(&mut self, ram: &GuestRam, queues: &AdminQueues) -> Result<(), Status> {
        let AdminQueues {
            submission,
            submission_size,
            completion,
            completion_size,
        } = *queues;
        let completions = CompletionQueue::new(ram, completion, completion_size, Some(0))?;
        let submissions = Submission::new(ram, submission, submission_size, ADMIN)?;
        self.completions[0] = Some(completions);
        self.submissions[0] = Some(submissions);
        Ok(())
    }

    /// Forgets everything but what is under way on the disk.
    pub(super) fn stop(&mut self) {
        self.submissions.fill_with(|| None);
        self.completions.fill_with(|| None);
        self.features = Features::default();
        self.events = Events::default();
        self.next = 0;
        self.full = false;
        self.shutdown = Shutdown::Not;
        self.cache_off = None;
    }

    /// Drops the answers to what was under way; whether that was all.
    pub(super) fn abandon(&mut self) -> bool {
        self.disk.abandon()
    }

    pub(super) fn submit(&mut self) -> Turn {
        self.disk.submit()
    }

    /// Goes on with a shutdown while the controller may not touch guest memory: no command is taken,
    /// and the answers to those under way wait.
    pub(super) fn turn_shutdown(&mut self) -> Turn {
        self.begin_flush();
        if self.shutdown == Shutdown::Flushing
            && let Some(landed) = self.disk.reap()
        {
            self.finish_shutdown(landed.outcome.is_ok());
        }
        self.disk.submit()
    }

    fn finish_shutdown(&mut self, kept: bool) {
        if !kept {
            tracing::error!("the work OS shuts down, and the disk did not keep all");
        }
        self.shutdown = Shutdown::Done;
    }

    /// Takes in a submission queue's tail; whether there is something to do.
    pub(super) fn submitted(&mut self, queue: u16, tail: u16) -> bool {
        let queue = self.submissions.get_mut(usize::from(queue));
        match queue.and_then(Option::as_mut).map(|it| it.set_tail(tail)) {
            None => self.events.raise(Event::UnknownDoorbell),
            Some(false) => self.events.raise(Event::DoorbellValue),
            Some(true) => {}
        }
        true
    }

    /// Takes in a completion queue's head; whether there is something to do.
    pub(super) fn consumed(&mut self, queue: u16, head: u16) -> bool {
        let Some(Some(queue)) = self.completions.get_mut(usize::from(queue)) else {
            self.events.raise(Event::UnknownDoorbell);
            return true;
        };
        if !queue.set_head(head) {
            self.events.raise(Event::DoorbellValue);
            return true;
        }
        std::mem::take(&mut queue.starved)
    }

    /// Wants everything on the medium before the machine goes off.
    pub(super) fn ask_shutdown(&mut self) {
        self.shutdown = Shutdown::Asked;
    }

    /// Whether the flush of a shutdown is all that is under way.
    pub(super) fn is_flushing(&self) -> bool {
        self.shutdown == Shutdown::Flushing
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.shutdown == Shutdown::Done
    }

    /// Takes commands, starts what they ask for and answers what is done. `entry_sizes` says whether
    /// `CC` has the sizes of I/O queue entries.
    pub(super) fn turn(&mut self, ram: &GuestRam, entry_sizes: bool) -> Result<Turn, Fatal> {
        self.reap(ram)?;
        let taken = self.take(ram, entry_sizes);
        // Also before a fault is told: what was taken is under way.
        let mut turn = self.disk.submit();
        let mut more = taken?;
        // What the page cache had is complete by now.
        self.reap(ram)?;
        self.report(ram)?;
        self.begin_flush();
        more |= self.full && !self.disk.full();
        self.full &= !more;
        if self.disk.submit() == Turn::More || more {
            turn = Turn::More;
        }
        Ok(turn)
    }

    /// The vectors to signal.
    pub(super) fn interrupts(&mut self) -> impl Iterator<Item = u16> {
        let queues = self.completions.iter_mut().flatten();
        queues.filter_map(CompletionQueue::interrupt)
    }

    /// Takes commands; whether the budget ended it.
    fn take(&mut self, ram: &GuestRam, entry_sizes: bool) -> Result<bool, Fatal> {
        for _ in 0..BUDGET {
            // A flush that nothing may pass waits. Behind the last one nothing is taken at all: who goes
            // on all the same is answered by a reset.
            if self.shutdown != Shutdown::Not || self.cache_off.is_some() {
                return Ok(false);
            }
            let Some((queue, command)) = self.next_command(ram)? else {
                return Ok(false);
            };
            let outcome = if queue == ADMIN {
                self.admin(ram, &command, entry_sizes)
            } else {
                self.io(ram, queue, &command)
            };
            match outcome {
                Ok(Outcome::UnderWay) => {}
                Ok(Outcome::Done(result)) => {
                    self.complete(ram, (queue, command.id), Status::SUCCESS, result)?;
                }
                Err(status) => {
                    self.note_error(queue, command.id, status, command.namespace);
                    self.complete(ram, (queue, command.id), status, 0)?;
                }
            }
        }
        Ok(true)
    }

    /// The next command, from each queue in turn. None is taken whose completion would have no room,
    /// or that might find the disk full.
    fn next_command(&mut self, ram: &GuestRam) -> Result<Option<(u16, Command)>, Fatal> {
        let count = IO_QUEUES + 1;
        for step in 0..count {
            let number = (self.next + step) % count;
            let Some(queue) = &mut self.submissions[usize::from(number)] else {
                continue;
            };
            if !queue.has_some() {
                continue;
            }
            // Admin commands may want to flush, too.
            if self.disk.full() {
                self.full = true;
                continue;
            }
            let answers = &mut self.completions[usize::from(queue.completion)];
            if !answers.as_mut().is_some_and(CompletionQueue::reserve) {
                continue;
            }
            self.next = number + 1;
            return Ok(queue.pop(ram)?.map(|command| (number, command)));
        }
        Ok(None)
    }

    /// Posts a command's completion, and that of its queue's deletion if it was the last one.
    pub(super) fn complete(
        &mut self,
        ram: &GuestRam,
        (number, command): (u16, u16),
        status: Status,
        result: u32,
    ) -> Result<(), Fatal> {
        let slot = &mut self.submissions[usize::from(number)];
        let queue = slot.as_mut().ok_or(Fatal)?;
        queue.under_way = queue.under_way.saturating_sub(1);
        let completion = Completion {
            queue: number,
            head: queue.head(),
            command,
            status,
            result,
        };
        let at = usize::from(queue.completion);
        let ended = queue.deleted_by.filter(|_| queue.under_way == 0);
        if ended.is_some() {
            *slot = None;
        }
        let answers = self.completions[at].as_mut().ok_or(Fatal)?;
        answers.post(ram, &completion)?;
        if let Some(deletion) = ended {
            answers.users -= 1;
            self.complete(ram, (ADMIN, deletion), Status::SUCCESS, 0)?;
        }
        Ok(())
    }

    /// Answers what the disk has done.
    fn reap(&mut self, ram: &GuestRam) -> Result<(), Fatal> {
        while let Some(landed) = self.disk.reap() {
            match landed.tag {
                Tag::Shutdown => self.finish_shutdown(landed.outcome.is_ok()),
                Tag::Command { queue, id } => {
                    let status = status(landed);
                    if status != Status::SUCCESS {
                        self.note_error(queue, id, status, NAMESPACE);
                    }
                    self.complete(ram, (queue, id), status, 0)?;
                }
            }
        }
        Ok(())
    }

    fn note_error(&mut self, queue: u16, command: u16, status: Status, namespace: u32) {
        self.last_error = LastError {
            count: self.last_error.count + 1,
            queue,
            command,
            status: status.0,
            namespace,
        };
    }

    /// Answers this command of the admin queue once all that was written before is on the medium.
    pub(super) fn flush_cache_for(&mut self, command: u16) {
        self.cache_off = Some(command);
    }

    /// Starts a flush that waits for what was under way, once nothing is.
    fn begin_flush(&mut self) {
        if self.disk.busy() > 0 {
            return;
        }
        if let Some(id) = self.cache_off.take() {
            self.disk.flush(Tag::Command { queue: ADMIN, id });
            return;
        }
        if self.shutdown != Shutdown::Asked {
            return;
        }
        if self.disk.read_only() {
            self.shutdown = Shutdown::Done;
        } else {
            self.disk.flush(Tag::Shutdown);
            self.shutdown = Shutdown::Flushing;
        }
    }

    /// Answers a held request for events with one that is there.
    fn report(&mut self, ram: &GuestRam) -> Result<(), Fatal> {
        while self.events.ready() {
            let answers = self.completions[0].as_mut().ok_or(Fatal)?;
            if !answers.reserve() {
                return Ok(());
            }
            let Some((command, result)) = self.events.take() else {
                answers.release();
                return Ok(());
            };
            self.complete(ram, (ADMIN, command), Status::SUCCESS, result)?;
        }
        Ok(())
    }
}

/// What the disk's answer means to the driver.
fn status(landed: Landed<Tag>) -> Status {
    match (landed.outcome, landed.operation) {
        (Ok(()), _) => Status::SUCCESS,
        (Err(Failure::Full), _) => Status::CAPACITY_EXCEEDED,
        (Err(Failure::Medium), Operation::Read) => Status::UNRECOVERED_READ,
        (Err(Failure::Medium), _) => Status::WRITE_FAULT,
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn the_hosts_errors_have_their_status() {
        let landed = |operation, outcome| Landed {
            tag: Tag::Shutdown,
            operation,
            outcome,
        };
        let write = Operation::Write { stable: false };
        let medium = Err(Failure::Medium);
        for (operation, outcome, expected) in [
            (write, Ok(()), Status::SUCCESS),
            (write, Err(Failure::Full), Status::CAPACITY_EXCEEDED),
            (write, medium, Status::WRITE_FAULT),
            (Operation::Flush, medium, Status::WRITE_FAULT),
            (Operation::Read, medium, Status::UNRECOVERED_READ),
        ] {
            assert_eq!(status(landed(operation, outcome)), expected);
        }
    }

    #[test]
    fn a_flush_that_nothing_may_pass_begins_when_nothing_is_under_way() {
        let image = tempfile::tempfile().unwrap();
        image.set_len(4096).unwrap();
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        for shutdown in [false, true] {
            let disk = Disk::new(image.try_clone().unwrap(), false).unwrap();
            let mut controller = Controller::new(disk, Names::new("test", 0));
            let write = Operation::Write { stable: false };
            let tag = Tag::Command { queue: 1, id: 7 };
            let span = std::iter::once((GuestAddress(0), 512));
            controller.disk.transfer(tag, write, (0, 512), &ram, span);
            if shutdown {
                controller.ask_shutdown();
            } else {
                controller.flush_cache_for(9);
            }
            controller.begin_flush();
            assert_eq!(controller.busy(), 1, "the flush has passed a write");
            controller.submit();
            while controller.disk.reap().is_none() {}
            controller.begin_flush();
            assert_eq!(controller.busy(), 1, "there is no flush");
        }
    }
}
