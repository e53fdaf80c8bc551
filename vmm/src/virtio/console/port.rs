//! One port: two queues on the guest's side, one descriptor on the host's.

use std::os::fd::AsFd as _;

use rustix::io::{Errno, read, write};

use super::control::Owed;
use super::{Backend, PortChange};
use crate::virtio::{Chain, DriverFault, GuestRam, Io, VirtQueue};
use crate::worker::{Interest, Source, Turn};

/// Bytes copied at once between queue and descriptor.
const PART: usize = 16 * 1024;
/// Parts moved in one turn and direction: 128 KiB, well under a millisecond.
const BUDGET: usize = 8;

pub(super) struct Port {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) guest_open: bool,
    pub(super) owed: Owed,
    backend: Option<Backend>,
    generation: u32,
    to_host: ToHost,
    to_guest: ToGuest,
    part: Box<[u8]>,
}

/// Bytes of the guest on their way.
#[derive(Default)]
struct ToHost {
    chain: Chain,
    /// How much of `chain` was written, while it is under way.
    offset: Option<u64>,
    pending: bool,
    blocked: bool,
}

/// Bytes for the guest.
#[derive(Default)]
struct ToGuest {
    chain: Chain,
    /// A buffer is at hand.
    posted: bool,
    /// The back end may have bytes.
    pending: bool,
    /// The guest has posted no buffer.
    starved: bool,
}

/// How a transfer ended.
enum End {
    /// Budget used up.
    More,
    /// Nothing to do until somebody wakes us.
    Idle,
    /// The back end is at its end.
    Closed,
}

impl Port {
    pub(super) fn new(id: u32, name: String) -> Self {
        Self {
            id,
            name,
            guest_open: false,
            owed: Owed::default(),
            backend: None,
            generation: 0,
            to_host: ToHost::default(),
            to_guest: ToGuest::default(),
            part: vec![0; PART].into_boxed_slice(),
        }
    }

    pub(super) fn attach(&mut self, backend: Backend) {
        self.backend = Some(backend);
        self.generation = self.generation.wrapping_add(1);
        self.owed.open = true;
        // The rest of a half-sent buffer belongs to the peer that went.
        self.to_host.offset = self.to_host.offset.map(|_| u64::MAX);
        self.ready();
    }

    pub(super) fn host_open(&self) -> bool {
        self.backend.is_some()
    }

    pub(super) fn change(&self) -> PortChange {
        PortChange {
            id: self.id,
            name: self.name.clone(),
            open: self.guest_open,
        }
    }

    /// Sets whether the guest's end is open; whether that changed.
    pub(super) fn set_guest_open(&mut self, open: bool) -> bool {
        let changed = self.guest_open != open;
        self.guest_open = open;
        self.to_guest.pending |= open;
        changed
    }

    /// Forgets the driver; whether the guest's end was open.
    pub(super) fn reset(&mut self) -> bool {
        self.to_host = ToHost::default();
        self.to_guest = ToGuest::default();
        self.owed = Owed::default();
        std::mem::take(&mut self.guest_open)
    }

    pub(super) fn notified(&mut self, index: usize) {
        let (receive, transmit) = self.queues();
        if index == receive {
            self.to_guest.starved = false;
            self.to_guest.pending = true;
        } else if index == transmit {
            self.to_host.pending = true;
        }
    }

    pub(super) fn ready(&mut self) {
        self.to_guest.pending = true;
        self.to_host.pending |= std::mem::take(&mut self.to_host.blocked);
    }

    /// Receive and transmit queue. Port 0 has the first two, the control queues the next.
    fn queues(&self) -> (usize, usize) {
        let id = usize::try_from(self.id).unwrap_or(0);
        let receive = if id == 0 { 0 } else { 2 + 2 * id };
        (receive, receive + 1)
    }

    pub(super) fn source(&self) -> Option<Source<'_>> {
        let (fd, edge) = match self.backend.as_ref()? {
            Backend::Socket(fd) => (fd, false),
            // A device whose other end is closed stays hung up, which would wake without end.
            Backend::Device(fd) => (fd, true),
        };
        let read = self.guest_open && !self.to_guest.starved;
        let write = self.to_host.blocked;
        // What nobody wants to read stays in the socket, its end of file too.
        (read || write).then(|| Source {
            token: self.id,
            fd: fd.as_fd(),
            generation: self.generation,
            interest: Interest { read, write, edge },
        })
    }

    pub(super) fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let (receive, transmit) = self.queues();
        let mut turn = Turn::Idle;
        if let Some(queue) = io.queues.get_mut(transmit) {
            let end = self
                .to_host
                .run(io.ram, queue, self.backend.as_ref(), &mut self.part)?;
            self.settle(&end, &mut turn);
        }
        if let Some(queue) = io.queues.get_mut(receive)
            && self.guest_open
            && let Some(backend) = self.backend.as_ref()
        {
            let end = self.to_guest.run(io.ram, queue, backend, &mut self.part)?;
            self.settle(&end, &mut turn);
        }
        Ok(turn)
    }

    fn settle(&mut self, end: &End, turn: &mut Turn) {
        match end {
            End::Idle => {}
            End::More => *turn = Turn::More,
            End::Closed => {
                if let Some(Backend::Socket(_)) = self.backend {
                    self.backend = None;
                    self.owed.open = true;
                    // What the guest still sends is for nobody.
                    self.to_host.pending = true;
                    self.to_host.blocked = false;
                    *turn = Turn::More;
                }
            }
        }
    }
}

impl ToHost {
    fn run(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        backend: Option<&Backend>,
        part: &mut [u8],
    ) -> Result<End, DriverFault> {
        if self.blocked || !std::mem::take(&mut self.pending) {
            return Ok(End::Idle);
        }
        for _ in 0..BUDGET {
            let offset = if let Some(offset) = self.offset {
                offset
            } else if queue.pop(ram, &mut self.chain)? {
                0
            } else if queue.listen(ram)? {
                continue;
            } else {
                return Ok(End::Idle);
            };
            self.offset = Some(offset);
            let length = self.chain.read_at(ram, offset, part);
            let bytes = part.get(..length).unwrap_or(&[]);
            match send(backend, bytes) {
                Ok(taken) if taken < length => {
                    self.offset = Some(offset + u64::try_from(taken).unwrap_or(0));
                }
                Ok(_) => {
                    let done = offset + u64::try_from(length).unwrap_or(0);
                    self.offset = Some(done).filter(|done| *done < self.chain.readable_len());
                    if self.offset.is_none() {
                        queue.push(ram, self.chain.head(), 0)?;
                    }
                }
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    return Ok(End::Idle);
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.pending = true;
                    return Ok(End::Closed);
                }
            }
        }
        self.pending = true;
        Ok(End::More)
    }
}

/// Writes to the back end; without one the bytes are gone.
fn send(backend: Option<&Backend>, bytes: &[u8]) -> Result<usize, Errno> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match backend {
        None => Ok(bytes.len()),
        // Without a signal where the peer is gone.
        Some(Backend::Socket(fd)) => rustix::net::send(fd, bytes, rustix::net::SendFlags::NOSIGNAL),
        Some(Backend::Device(fd)) => write(fd, bytes),
    }
}

impl ToGuest {
    fn run(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        backend: &Backend,
        part: &mut [u8],
    ) -> Result<End, DriverFault> {
        if self.starved || !std::mem::take(&mut self.pending) {
            return Ok(End::Idle);
        }
        let (Backend::Socket(fd) | Backend::Device(fd)) = backend;
        for _ in 0..BUDGET {
            while !self.posted {
                if queue.pop(ram, &mut self.chain)? {
                    self.posted = true;
                } else if !queue.listen(ram)? {
                    self.starved = true;
                    return Ok(End::Idle);
                }
            }
            let room = usize::try_from(self.chain.writable_len()).unwrap_or(PART);
            if room == 0 {
                return Err(DriverFault::Direction);
            }
            let length = room.min(part.len());
            let Some(place) = part.get_mut(..length) else {
                return Ok(End::Idle);
            };
            match read(fd, &mut *place) {
                Ok(0) => return Ok(End::Closed),
                Ok(count) => {
                    let bytes = place.get(..count).unwrap_or(&[]);
                    let written = self.chain.write_at(ram, 0, bytes);
                    self.posted = false;
                    queue.push(ram, self.chain.head(), u32::try_from(written).unwrap_or(0))?;
                }
                Err(Errno::AGAIN) => return Ok(End::Idle),
                Err(Errno::INTR) => {}
                Err(_) => return Ok(End::Closed),
            }
        }
        self.pending = true;
        Ok(End::More)
    }
}
