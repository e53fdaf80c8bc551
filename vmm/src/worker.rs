//! The I/O thread: one event loop over the doorbells and back ends of all devices.
//!
//! Each turn of a device is bounded by the device's budget; a device with more to do waits until
//! the others had theirs, so that one busy queue starves nobody.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Events taken from the kernel at once. More stay for the next turn.
const EVENTS: usize = 64;
/// Devices one worker serves: PCI bus 0 has 32 device numbers.
pub const MAX_DEVICES: usize = 32;

/// What a device waits for on a descriptor of its back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Wake when it is readable.
    pub read: bool,
    /// Wake when it is writable.
    pub write: bool,
    /// Wake only on a change: for descriptors that stay in a state of error or hang-up.
    pub edge: bool,
}

/// A descriptor of a back end that the worker waits on.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Tells the device's sources apart; less than [`Source::MAX_TOKEN`].
    pub token: u32,
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Another number for another open file, which may come under the same descriptor number.
    pub generation: u32,
    /// What to wait for.
    pub interest: Interest,
}

impl Source<'_> {
    /// Bound of [`Source::token`].
    pub const MAX_TOKEN: u32 = 1 << 16;
}

/// Whether a device has more to do than the budget of one turn allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do until a notification or a back end wakes it.
    Idle,
    /// More work is there now.
    More,
}

/// What the worker needs of a device; [`crate::virtio::VirtioPci`] has it.
pub trait Serve: Send {
    /// One event a queue, by index.
    fn doorbells(&self) -> Vec<BorrowedFd<'_>>;
    /// Event that asks for a turn without a notification.
    fn wake(&self) -> BorrowedFd<'_>;
    /// Takes in a notification of queue `index`.
    fn notified(&mut self, index: usize);
    /// Takes in the wake-up.
    fn woken(&mut self);
    /// Takes in that a back end's source is ready.
    fn ready(&mut self, token: u32);
    /// One turn.
    fn serve(&mut self) -> Turn;
    /// What to wait for until the next turn.
    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>);
}

/// A device as board, worker and control share it.
pub type Shared = Arc<Mutex<dyn Serve>>;

/// What an event belongs to, packed into 64 bits of the kernel's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Stop,
    Wake { device: u32 },
    Doorbell { device: u32, queue: u32 },
    Source { device: u32, token: u32 },
}

impl Key {
    fn pack(self) -> u64 {
        let (kind, device, index) = match self {
            Self::Stop => (0, 0, 0),
            Self::Wake { device } => (1, device, 0),
            Self::Doorbell { device, queue } => (2, device, queue),
            Self::Source { device, token } => (3, device, token),
        };
        kind << 48 | u64::from(device) << 32 | u64::from(index)
    }

    fn unpack(value: u64) -> Self {
        let [b0, b1, b2, b3, d0, d1, kind, _] = value.to_le_bytes();
        let index = u32::from_le_bytes([b0, b1, b2, b3]);
        let device = u32::from(u16::from_le_bytes([d0, d1]));
        match kind {
            1 => Self::Wake { device },
            2 => Self::Doorbell {
                device,
                queue: index,
            },
            3 => Self::Source {
                device,
                token: index,
            },
            _ => Self::Stop,
        }
    }
}

/// What the kernel was told of a source. The descriptor is a duplicate of the device's: so its
/// number stays ours until we let it go, however soon the device closes its own.
struct Registered {
    fd: OwnedFd,
    /// The device's own descriptor, only to be compared.
    number: RawFd,
    generation: u32,
    interest: Interest,
}

impl Registered {
    fn is_for(&self, token: u32, source: &Source<'_>) -> bool {
        (token, self.number, self.generation)
            == (source.token, source.fd.as_raw_fd(), source.generation)
    }
}

struct Served {
    device: Shared,
    registered: HashMap<u32, Registered>,
    due: bool,
}

/// The event loop, before it has a thread: tests turn it by hand.
pub struct Worker {
    epoll: OwnedFd,
    served: Vec<Served>,
    stop: EventFd,
}

impl Worker {
    /// A loop over these devices, at most [`MAX_DEVICES`].
    pub fn new(devices: Vec<Shared>) -> io::Result<Self> {
        if devices.len() > MAX_DEVICES {
            return Err(io::Error::other(
                "more virtio devices than PCI bus 0 has room for",
            ));
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        add(&epoll, event_fd(&stop), Key::Stop)?;
        for (device, index) in devices.iter().zip(0..) {
            let device = lock(device);
            add(&epoll, device.wake(), Key::Wake { device: index })?;
            for (event, queue) in device.doorbells().into_iter().zip(0..) {
                let key = Key::Doorbell {
                    device: index,
                    queue,
                };
                add(&epoll, event, key)?;
            }
        }
        let serve = |device| Served {
            device,
            registered: HashMap::new(),
            due: true,
        };
        Ok(Self {
            epoll,
            served: devices.into_iter().map(serve).collect(),
            stop,
        })
    }

    /// Starts the thread. `first` runs on it before anything else: the board installs the thread's
    /// seccomp filter there.
    pub fn spawn(
        mut self,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Handle> {
        let stop = self.stop.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("virtio".into())
            .spawn(move || {
                let done = first().and_then(|()| {
                    while self.turn(None)? {}
                    Ok(())
                });
                if let Err(error) = &done {
                    tracing::error!(%error, "the I/O thread ends; no device is served any more");
                }
                done
            })?;
        Ok(Handle {
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for events (at most `timeout`; `None` is without end), then gives each device that
    /// has something to do one turn. Whether to go on: not after [`Handle::stop`].
    pub fn turn(&mut self, timeout: Option<std::time::Duration>) -> io::Result<bool> {
        let due = self.served.iter().any(|served| served.due);
        let timeout = if due {
            Some(std::time::Duration::ZERO)
        } else {
            timeout
        };
        let timeout = timeout.and_then(|limit| rustix::event::Timespec::try_from(limit).ok());
        let mut events = [epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; EVENTS];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            match Key::unpack(event.data.u64()) {
                Key::Stop => return Ok(false),
                Key::Wake { device } => self.take_in(device, |device| device.woken()),
                Key::Doorbell { device, queue } => {
                    let queue = usize::try_from(queue).unwrap_or(usize::MAX);
                    self.take_in(device, |device| device.notified(queue));
                }
                Key::Source { device, token } => self.take_in(device, |device| device.ready(token)),
            }
        }
        for (served, index) in self.served.iter_mut().zip(0..) {
            if std::mem::take(&mut served.due) {
                serve(&self.epoll, served, index)?;
            }
        }
        Ok(true)
    }

    fn take_in(&mut self, index: u32, event: impl FnOnce(&mut dyn Serve)) {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(served) = self.served.get_mut(place) {
            served.due = true;
            event(&mut *lock(&served.device));
        }
    }
}

/// The running thread. Dropping it stops the thread too.
pub struct Handle {
    stop: EventFd,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Handle {
    /// Ends the loop after its turn and waits for the thread; its error if it had failed.
    pub fn stop(mut self) -> io::Result<()> {
        self.join()
    }

    /// Whether the thread ended by itself, which it does only on an error.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.write(1)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the virtio thread panicked")))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever wanted the error called `stop`.
        let _ = self.join();
    }
}

/// One turn of one device, and the news about its sources to the kernel.
fn serve(epoll: &OwnedFd, served: &mut Served, index: u32) -> io::Result<()> {
    let mut device = lock(&served.device);
    served.due = device.serve() == Turn::More;
    let mut list = Vec::new();
    device.sources(&mut list);
    let registered = &mut served.registered;
    // Closing a duplicate does not take it out of the epoll set while the device still holds its
    // own descriptor.
    registered.retain(|token, old| {
        let keep = list.iter().any(|source| old.is_for(*token, source));
        if !keep {
            let _ = epoll::delete(epoll, &old.fd);
        }
        keep
    });
    for source in &list {
        match registered.get_mut(&source.token) {
            Some(old) if old.interest == source.interest => {}
            Some(old) => {
                old.interest = source.interest;
                let data = EventData::new_u64(source_key(index, source));
                epoll::modify(epoll, &old.fd, data, flags(source.interest))?;
            }
            None => {
                let new = register(epoll, index, source)?;
                registered.insert(source.token, new);
            }
        }
    }
    Ok(())
}

fn register(epoll: &OwnedFd, device: u32, source: &Source<'_>) -> io::Result<Registered> {
    let fd = source.fd.try_clone_to_owned()?;
    let data = EventData::new_u64(source_key(device, source));
    epoll::add(epoll, &fd, data, flags(source.interest))?;
    Ok(Registered {
        fd,
        number: source.fd.as_raw_fd(),
        generation: source.generation,
        interest: source.interest,
    })
}

fn source_key(device: u32, source: &Source<'_>) -> u64 {
    let token = source.token;
    Key::Source { device, token }.pack()
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.read);
    flags.set(EventFlags::OUT, interest.write);
    flags.set(EventFlags::ET, interest.edge);
    flags
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
    epoll::add(epoll, fd, EventData::new_u64(key.pack()), EventFlags::IN)?;
    Ok(())
}

/// The descriptor of an event.
pub(crate) fn event_fd(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns its descriptor and is borrowed for as long as the result.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// A device whose thread panicked is still registers and queues; its checks hold as before.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_packing() {
        for key in [
            Key::Stop,
            Key::Wake { device: 31 },
            Key::Doorbell {
                device: 3,
                queue: 17,
            },
            Key::Source {
                device: 2,
                token: 65_535,
            },
        ] {
            assert_eq!(Key::unpack(key.pack()), key);
        }
    }
}
