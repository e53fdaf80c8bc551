//! The virtio devices that the machine file names: opened here, plugged into the board, served by
//! the I/O thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use crate::board::{Board, BoardError};
use crate::machine::{Endpoint, Machine};
use crate::pci::PciDevice;
use crate::virtio::net::{Net, Settings};
use crate::virtio::rng::Rng;
use crate::virtio::worker::{Serve, Shared};
use crate::virtio::{Device, VirtioPci};

/// Why a device is not there.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A descriptor on the command line is not usable.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// A socket cannot be reached.
    #[error("{what} {path} cannot be connected: {source}")]
    Connect {
        /// Which device.
        what: &'static str,
        /// The socket's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("{what} {path} cannot be opened: {source}")]
    Open {
        /// Which device.
        what: &'static str,
        /// The file's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// The device model refuses what was opened.
    #[error("{what} cannot be used: {reason}")]
    Refused {
        /// Which device.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The board has no room.
    #[error(transparent)]
    Board(#[from] BoardError),
}

/// A NIC, and the end of its link to watch for the report of its loss.
pub struct Nic {
    device: Arc<Mutex<VirtioPci<Net>>>,
}

impl Nic {
    /// Plugs a fresh link in; gives a duplicate that tells of its end.
    pub fn attach(&self, socket: OwnedFd) -> Result<OwnedFd, DeviceError> {
        let refused = |reason: String| DeviceError::Refused {
            what: "the frame link",
            reason,
        };
        let watch = socket
            .try_clone()
            .map_err(|error| refused(error.to_string()))?;
        lock(&self.device)
            .update(|net| net.attach(socket))
            .map_err(|error| refused(error.to_string()))?;
        Ok(watch)
    }
}

/// All devices of a machine.
#[derive(Default)]
pub struct Devices {
    /// What the I/O thread serves.
    pub served: Vec<Shared>,
    /// The NICs, in the machine file's order.
    pub nics: Vec<Nic>,
    /// Links that are up from the start, by NIC.
    pub links: Vec<(usize, OwnedFd)>,
}

impl Devices {
    /// Opens what `machine` names and plugs it into `board`.
    pub fn open(machine: &Machine, board: &mut Board) -> Result<Self, DeviceError> {
        let mut devices = Self::default();
        for net in &machine.net {
            let device = devices.plug(board, Net::new(Settings::new(net.mac.0, net.mtu)))?;
            let nic = Nic { device };
            if let Some(link) = &net.link {
                let socket = endpoint("the frame link", link, SocketType::SEQPACKET)?;
                let watch = nic.attach(socket)?;
                devices.links.push((devices.nics.len(), watch));
            }
            devices.nics.push(nic);
        }
        devices.plug(board, Rng::new())?;
        Ok(devices)
    }

    fn plug<D: Device + 'static>(
        &mut self,
        board: &mut Board,
        device: D,
    ) -> Result<Arc<Mutex<VirtioPci<D>>>, DeviceError> {
        let device = VirtioPci::new(device, board.ram().clone(), board.platform());
        let device = device.map_err(|error| DeviceError::Refused {
            what: "a virtio device",
            reason: error.to_string(),
        })?;
        let device = Arc::new(Mutex::new(device));
        let (pci, served): (Arc<Mutex<dyn PciDevice>>, Arc<Mutex<dyn Serve>>) =
            (device.clone(), device.clone());
        board.plug(pci)?;
        self.served.push(served);
        Ok(device)
    }
}

fn endpoint(
    what: &'static str,
    endpoint: &Endpoint,
    kind: SocketType,
) -> Result<OwnedFd, DeviceError> {
    match endpoint {
        Endpoint::Inherited(word) => Ok(sekisho_control::inherited(word)?),
        Endpoint::Path(path) => connect(path, kind).map_err(|source| DeviceError::Connect {
            what,
            path: path.display().to_string(),
            source,
        }),
    }
}

fn connect(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(socket.as_fd(), &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
