//! The sockets of the paths: what the uplink handed over, checked, and nothing else.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FileType, fstat, major, minor};
use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};
use sekisho_control::PathId;
use socket2::SockRef;
use thiserror::Error;

use super::path::{Outlet, enable_receive_offload};
use super::plan::EngineKind;
use super::situation::{GatewayId, MAX_PATHS};
use crate::moment::Moment;

/// A path that was lost is read for so long: what the gateway sent before it knew still arrives.
const DRAIN: Duration = Duration::from_secs(2);
/// Lost paths that are read at one time.
const MAX_DRAINING: usize = 8;
/// Sockets at one time, those that are read no longer than a turn not counted.
pub(super) const MAX_SOCKETS: usize = MAX_PATHS + MAX_DRAINING;
/// Bytes that may wait in the kernel for one turn of the gate, as far as the system allows.
const BUFFER: usize = 4 << 20;

/// Why a descriptor is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotAPath {
    /// Not a UDP socket.
    #[error("the descriptor is not a datagram socket")]
    Kind,
    /// Not connected to where the uplink says.
    #[error("the socket is not connected to the peer that was named")]
    Peer,
    /// Bound to another port than the uplink says, or to none.
    #[error("the socket is not bound to the port that was named")]
    Port,
    /// Not what this engine moves packets over.
    #[error("the descriptor of the engine is not of the kind that its packets come by")]
    NotAnEngine,
    /// The kernel refused something.
    #[error("the socket cannot be used: {0}")]
    Socket(rustix::io::Errno),
}

/// The socket of one path.
#[derive(Debug)]
pub struct PathSocket {
    /// The path.
    pub id: PathId,
    /// The gateway at its end.
    pub gateway: GatewayId,
    /// What is at its other end.
    pub far: Far,
    socket: OwnedFd,
    draining: Option<Moment>,
}

/// What is at the other end of a path's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// A gateway, over a UDP socket that is bound to the path's port.
    Gateway(SocketAddrV4),
    /// The engine of the tunnel, over a Unix socket.
    Engine,
    /// The engine of the tunnel, over a TUN device.
    Tun,
}

/// The number of `/dev/net/tun` (Linux `Documentation/admin-guide/devices.txt`: 10 char, 200).
const TUN_DEVICE: (u32, u32) = (10, 200);

impl PathSocket {
    /// What it takes.
    pub const fn outlet(&self) -> Outlet {
        match self.far {
            Far::Gateway(_) => Outlet::Gateway,
            Far::Engine => Outlet::Engine,
            Far::Tun => Outlet::Tun,
        }
    }
}

impl AsFd for PathSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Vec<PathSocket>,
}

impl Sockets {
    /// Takes a socket after having asked the kernel where it leads.
    pub fn add(
        &mut self,
        id: PathId,
        gateway: GatewayId,
        (port, peer): (&str, SocketAddrV4),
        socket: OwnedFd,
    ) -> Result<(), NotAPath> {
        let kind = sockopt::socket_type(&socket).map_err(NotAPath::Socket)?;
        if kind != SocketType::DGRAM {
            return Err(NotAPath::Kind);
        }
        let named = getpeername(&socket)
            .map_err(|_| NotAPath::Peer)?
            .and_then(|address| SocketAddrV4::try_from(address).ok());
        if named != Some(peer) {
            return Err(NotAPath::Peer);
        }
        if !is_bound_to(&socket, port) {
            return Err(NotAPath::Port);
        }
        set_nonblocking(&socket).map_err(NotAPath::Socket)?;
        // Both only make it faster.
        let _ = enable_receive_offload(&socket);
        let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
        let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        self.held.push(PathSocket {
            id,
            gateway,
            far: Far::Gateway(peer),
            socket,
            draining: None,
        });
        Ok(())
    }

    /// Takes the descriptor that an engine moves packets over.
    pub fn add_engine(
        &mut self,
        id: PathId,
        gateway: GatewayId,
        engine: EngineKind,
        socket: OwnedFd,
    ) -> Result<(), NotAPath> {
        let (far, right) = match engine {
            EngineKind::Tls => (Far::Engine, is_unix_datagram(&socket)?),
            EngineKind::Ike => (Far::Tun, is_tun(&socket)?),
        };
        if !right {
            return Err(NotAPath::NotAnEngine);
        }
        set_nonblocking(&socket).map_err(NotAPath::Socket)?;
        // Of a TUN device it is the device's own.
        let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        self.close(id);
        self.held.push(PathSocket {
            id,
            gateway,
            far,
            socket,
            draining: None,
        });
        Ok(())
    }

    /// What was one path's is another's from now on.
    pub fn rename(&mut self, from: PathId, to: PathId) {
        let held = self.held.iter_mut();
        for held in held.filter(|held| held.id == from && held.draining.is_none()) {
            held.id = to;
        }
    }

    /// The socket to send on, for a path that lives.
    pub fn sender(&self, id: PathId) -> Option<&PathSocket> {
        self.held
            .iter()
            .find(|held| held.id == id && held.draining.is_none())
    }

    /// All sockets to read from, dying ones included.
    pub fn readers(&self) -> &[PathSocket] {
        &self.held
    }

    /// The socket at this place of [`readers`](Self::readers), if it is this path's.
    pub fn reader(&self, index: usize, id: PathId) -> Option<&PathSocket> {
        self.held.get(index).filter(|held| held.id == id)
    }

    /// Closes the socket at this place of [`readers`](Self::readers). Whether its path lived.
    pub fn close_at(&mut self, index: usize) -> bool {
        index < self.held.len() && self.held.remove(index).draining.is_none()
    }

    /// Closes the path at once.
    pub fn close(&mut self, id: PathId) {
        self.held.retain(|held| held.id != id);
    }

    /// Reads on for a while, and sends no more.
    pub fn drain(&mut self, id: PathId, now: Moment) {
        let draining = self
            .held
            .iter()
            .filter(|held| held.draining.is_some())
            .count();
        if draining >= MAX_DRAINING {
            return self.close(id);
        }
        // The next tunnel's packets come over the same device.
        self.held
            .retain(|held| held.id != id || held.far != Far::Tun);
        for held in self.held.iter_mut().filter(|held| held.id == id) {
            held.draining = Some(now + DRAIN);
        }
    }

    /// Closes what has been read for long enough.
    pub fn expire(&mut self, now: Moment) {
        self.held
            .retain(|held| held.draining.is_none_or(|until| now < until));
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.held.iter().filter_map(|held| held.draining).min()
    }
}

fn is_unix_datagram(socket: &OwnedFd) -> Result<bool, NotAPath> {
    let family = sockopt::socket_domain(socket).map_err(NotAPath::Socket)?;
    let kind = sockopt::socket_type(socket).map_err(NotAPath::Socket)?;
    Ok((family, kind) == (AddressFamily::UNIX, SocketType::DGRAM))
}

fn is_tun(device: &OwnedFd) -> Result<bool, NotAPath> {
    let stat = fstat(device).map_err(NotAPath::Socket)?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == TUN_DEVICE)
}

/// Whether the kernel says that the socket uses this port and no other. A lost carrier and a proof
/// of premises are told by port: on another one the socket would outlive them.
pub(super) fn is_bound_to(socket: &OwnedFd, port: &str) -> bool {
    // Answered from the socket's own network, which the gate is not in (socket(7),
    // SO_BINDTODEVICE).
    let device = SockRef::from(socket).device();
    device.is_ok_and(|device| device.is_some_and(|device| device == port.as_bytes()))
}

/// The uplink should have done so; the gate must never wait on a socket, whatever it was given.
pub(super) fn set_nonblocking(socket: &OwnedFd) -> Result<(), rustix::io::Errno> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    fcntl_setfl(socket, fcntl_getfl(socket)? | OFlags::NONBLOCK)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn each_engine_brings_its_own_kind_of_descriptor() {
        let add = |engine, descriptor: OwnedFd| {
            let mut sockets = Sockets::default();
            sockets
                .add_engine(PathId(1), GatewayId(0), engine, descriptor)
                .map(|()| sockets.readers()[0].outlet())
        };
        let datagrams = || OwnedFd::from(UnixDatagram::pair().unwrap().0);
        assert_eq!(add(EngineKind::Tls, datagrams()), Ok(Outlet::Engine));
        assert_eq!(
            add(EngineKind::Ike, datagrams()),
            Err(NotAPath::NotAnEngine)
        );

        let device = |path: &str| OwnedFd::from(File::open(path).unwrap());
        let others: [OwnedFd; 5] = [
            device("/dev/null"),
            device("/proc/self/exe"),
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            TcpListener::bind("127.0.0.1:0").unwrap().into(),
            UnixStream::pair().unwrap().0.into(),
        ];
        for other in others {
            let right = add(EngineKind::Ike, other);
            assert_eq!(right, Err(NotAPath::NotAnEngine));
        }
        let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") else {
            let _ = sekisho_skip::skip_unless(false, "there is no /dev/net/tun to open");
            return;
        };
        let copy = tun.try_clone().unwrap();
        assert_eq!(add(EngineKind::Ike, tun.into()), Ok(Outlet::Tun));
        assert!(add(EngineKind::Tls, copy.into()).is_err());
    }
}
