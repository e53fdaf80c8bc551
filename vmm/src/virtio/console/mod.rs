//! Console with named ports (virtio 1.2, section 5.3): byte streams between programs in the guest
//! and descriptors of the host.
//!
//! Nothing is queued: bytes of the guest stay in its queue until the back end takes them, bytes of
//! the back end stay there until the guest has opened the port and posted buffers.

mod control;
mod port;

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use thiserror::Error;

use self::control::Control;
use self::port::Port;
use super::{Device, DriverFault, Io, Kind, Progress};
use crate::worker::{Source, Turn};

/// Ports of one console. The product has two (agent, test); the bound keeps queues and vectors
/// within the transport's.
pub const MAX_PORTS: u32 = 16;
/// Entries of each queue. Linux posts a page for each: 256 KiB of its own memory a port.
const QUEUE_SIZE: u16 = 64;
/// Longest name of a port, in bytes: `jp.sekisho.agent.0` and its like, generously.
pub const MAX_NAME: usize = 64;
/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const F_MULTIPORT: u64 = 1 << 1;

/// The host's end of a port.
#[derive(Debug)]
pub enum Backend {
    /// A stream socket: end of file closes the host's end until another socket is attached.
    Socket(OwnedFd),
    /// A character device, such as the port of a console one level further out: it stays, whatever
    /// it reads.
    Device(OwnedFd),
}

/// One port as the board wants it.
#[derive(Debug)]
pub struct PortSettings {
    /// Its number, less than [`MAX_PORTS`]: `/dev/vport0pN` in a Linux guest. Port 0 is the only
    /// one that a driver without multiport sees.
    pub id: u32,
    /// Its name, as in `/dev/virtio-ports/`.
    pub name: String,
    /// The host's end, or none yet.
    pub backend: Option<Backend>,
}

/// What happened at the guest's end of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortChange {
    /// The port.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Whether a program in the guest has it open now.
    pub open: bool,
}

/// Takes in changes at the guest's ends, on the I/O thread; it must not block.
pub type Observer = Box<dyn FnMut(PortChange) + Send>;

/// Why a console cannot be had.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// A number past the bound.
    #[error("console port {0} is too high; use a number below {MAX_PORTS}")]
    Number(u32),
    /// A number or name twice.
    #[error("console port {0} ({1}) is there already; give each port its own number and name")]
    Twice(u32, String),
    /// A name that is no file name.
    #[error("the console port's name {0:?} is no plain file name of at most {MAX_NAME} bytes")]
    Name(String),
    /// There is no such port.
    #[error("there is no console port {0}")]
    Unknown(u32),
    /// The back end cannot be used.
    #[error("the console port's back end cannot be made non-blocking: {0}")]
    Backend(#[from] rustix::io::Errno),
}

/// The device.
pub struct Console {
    ports: Vec<Port>,
    control: Control,
    /// Whether the running driver knows more than port 0.
    multiport: Option<bool>,
    observer: Option<Observer>,
}

impl Console {
    /// A console with these ports.
    pub fn new(settings: Vec<PortSettings>) -> Result<Self, ConsoleError> {
        let mut ports: Vec<Port> = Vec::new();
        for PortSettings { id, name, backend } in settings {
            if id >= MAX_PORTS {
                return Err(ConsoleError::Number(id));
            }
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
                return Err(ConsoleError::Name(name));
            }
            if ports.iter().any(|port| port.id == id || port.name == name) {
                return Err(ConsoleError::Twice(id, name));
            }
            let mut port = Port::new(id, name);
            if let Some(backend) = backend {
                prepare(&backend)?;
                port.attach(backend);
            }
            ports.push(port);
        }
        Ok(Self {
            ports,
            control: Control::default(),
            multiport: None,
            observer: None,
        })
    }

    /// Who is told when a program in the guest opens or closes a port.
    pub fn set_observer(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Takes a back end in place of the port's present one; the guest is told that the host's end
    /// is open. Call it through [`super::VirtioPci::update`].
    pub fn attach(&mut self, id: u32, backend: Backend) -> Result<(), ConsoleError> {
        prepare(&backend)?;
        let port = self.ports.iter_mut().find(|port| port.id == id);
        port.ok_or(ConsoleError::Unknown(id))?.attach(backend);
        self.control.resume();
        Ok(())
    }

    /// Whether a program in the guest has the port open.
    pub fn guest_open(&self, id: u32) -> bool {
        self.ports
            .iter()
            .any(|port| port.id == id && port.guest_open)
    }

    /// Whether the port has a back end that is open.
    pub fn host_open(&self, id: u32) -> bool {
        self.ports
            .iter()
            .any(|port| port.id == id && port.host_open())
    }

    /// Port numbers run to this, exclusively.
    fn port_count(&self) -> u32 {
        self.ports.iter().map(|port| port.id + 1).max().unwrap_or(1)
    }
}

/// Reads and writes must never stop the I/O thread.
fn prepare(backend: &Backend) -> Result<(), rustix::io::Errno> {
    let (Backend::Socket(fd) | Backend::Device(fd)) = backend;
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}

impl Device for Console {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn features(&self) -> u64 {
        F_MULTIPORT
    }

    fn queue_sizes(&self) -> Vec<u16> {
        // Two queues a port, and two for control.
        let queues = 2 * (self.port_count() + 1);
        (0..queues).map(|_| QUEUE_SIZE).collect()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&self.port_count().to_le_bytes());
        for (at, byte) in (offset..).zip(data) {
            *byte = config.get(at).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, features: u64) {
        let multiport = features & F_MULTIPORT != 0;
        self.multiport = Some(multiport);
        for port in &mut self.ports {
            // Without multiport nobody says that port 0 is open: it always is.
            port.guest_open = !multiport && port.id == 0;
        }
    }

    fn reset(&mut self) -> Progress {
        self.multiport = None;
        self.control = Control::default();
        for port in &mut self.ports {
            let was_open = port.reset();
            if was_open && let Some(observer) = &mut self.observer {
                observer(port.change());
            }
        }
        Progress::Done
    }

    fn notified(&mut self, index: usize) {
        match index {
            control::RECEIVE_QUEUE => self.control.resume(),
            control::TRANSMIT_QUEUE => self.control.notified(),
            _ => {
                for port in &mut self.ports {
                    port.notified(index);
                }
            }
        }
    }

    fn ready(&mut self, token: u32) {
        if let Some(port) = self.ports.iter_mut().find(|port| port.id == token) {
            port.ready();
        }
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let Some(multiport) = self.multiport else {
            return Ok(Turn::Idle);
        };
        let mut turn = Turn::Idle;
        if multiport {
            turn = self.control.take(io, &mut self.ports, &mut self.observer)?;
        }
        for port in &mut self.ports {
            if port.turn(io)? == Turn::More {
                turn = Turn::More;
            }
        }
        if multiport {
            // Last, so that what the ports' back ends did is told at once.
            self.control.tell(io, &mut self.ports)?;
        }
        Ok(turn)
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        if self.multiport.is_some() {
            list.extend(self.ports.iter().filter_map(Port::source));
        }
    }
}
