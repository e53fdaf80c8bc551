//! The viewers' sockets.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use sekisho_seatlink::Rect;
use thiserror::Error;

use crate::frame::Frame;
use crate::rfb::keysym::Layout;
use crate::rfb::{Event, Session};

/// Viewers at the same time: who supports, who is supported, and two in reserve.
const MAX_VIEWERS: usize = 4;
const BACKLOG: i32 = 4;

/// Where viewers are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket that only its owner may open.
    Unix(PathBuf),
    /// A TCP port, without authentication and encryption.
    Tcp(SocketAddr),
}

/// What is no address.
#[derive(Debug, Error)]
#[error("`{0}` is neither unix:PATH nor tcp:ADDRESS:PORT")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.split_once(':').ok_or_else(wrong)? {
            ("unix", "") => Err(wrong()),
            ("unix", path) => Ok(Self::Unix(path.into())),
            ("tcp", address) => address.parse().map(Self::Tcp).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

/// A socket that could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Whoever reaches the port would see the screen and type.
    #[error("{0} is not this machine alone: say so with --vnc-any if everybody may look and type")]
    Everybody(SocketAddr),
    /// The host refuses.
    #[error("{place} cannot be listened at: {errno}")]
    Host {
        /// Where.
        place: String,
        /// What the kernel answered.
        errno: Errno,
    },
}

impl Address {
    /// Listens there. Only this machine is let in by TCP, unless `everybody` is.
    pub fn listen(&self, everybody: bool) -> Result<OwnedFd, OpenError> {
        let host = |errno| OpenError::Host {
            place: match self {
                Self::Unix(path) => path.display().to_string(),
                Self::Tcp(address) => address.to_string(),
            },
            errno,
        };
        match self {
            Self::Unix(path) => listen_at(path, SocketType::STREAM).map_err(host),
            Self::Tcp(address) if !everybody && !address.ip().is_loopback() => {
                Err(OpenError::Everybody(*address))
            }
            Self::Tcp(address) => listen_tcp(address).map_err(host),
        }
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn listen_tcp(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Listens at a path that only its owner may open; a socket that an earlier process left there goes.
pub fn listen_at(path: &std::path::Path, kind: SocketType) -> Result<OwnedFd, Errno> {
    let address = rustix::net::SocketAddrUnix::new(path)?;
    match rustix::fs::lstat(path) {
        Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_socket() => {
            rustix::fs::unlink(path)?;
        }
        _ => {}
    }
    let socket = socket_with(AddressFamily::UNIX, kind, FLAGS, None)?;
    let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777) - owner);
    let bound = bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Takes who is waiting at a socket that listens.
pub fn accept(listening: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    match accept_with(listening, FLAGS) {
        Ok(socket) => Ok(Some(socket)),
        // The socket itself is broken.
        Err(errno @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK)) => Err(errno),
        // It has gone already, or there is no room for it now.
        Err(_) => Ok(None),
    }
}

#[derive(Debug)]
struct Viewer {
    socket: OwnedFd,
    session: Session,
}

/// Everybody who looks on.
#[derive(Debug)]
pub struct Viewers {
    listening: OwnedFd,
    layout: Layout,
    looking: Vec<Viewer>,
}

impl Viewers {
    /// Nobody yet.
    pub fn new(listening: OwnedFd, layout: Layout) -> Self {
        Self {
            listening,
            layout,
            looking: Vec::new(),
        }
    }

    /// What to wait for: who comes, and each viewer in order.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let viewers = self.looking.iter().map(|viewer| {
            let full = !viewer.session.unsent().is_empty();
            let out = if full {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            (viewer.socket.as_fd(), PollFlags::IN | out)
        });
        std::iter::once((self.listening.as_fd(), PollFlags::IN)).chain(viewers)
    }

    /// Somebody is at the door.
    pub fn come(&mut self, frame: &Frame) -> Result<(), Errno> {
        let Some(socket) = accept(&self.listening)? else {
            return Ok(());
        };
        if self.looking.len() == MAX_VIEWERS {
            // Who has not got through the greeting makes room.
            let Some(place) = self.looking.iter().position(|one| !one.session.is_open()) else {
                tracing::warn!("a viewer was turned away: {MAX_VIEWERS} look on already");
                return Ok(());
            };
            self.looking.remove(place);
        }
        let mut session = Session::new(self.layout, frame.screen());
        session.change(Rect::whole(frame.screen()));
        self.looking.push(Viewer { socket, session });
        Ok(())
    }

    /// Reads from those that have sent something; false in front of an event list: one of them has
    /// gone, and the keys it held are to go up.
    pub fn hear(&mut self, ready: &[PollFlags], events: &mut Vec<Event>) -> bool {
        let mut ready = ready.iter();
        let before = self.looking.len();
        self.looking.retain_mut(|viewer| {
            let flags = ready.next().copied().unwrap_or(PollFlags::empty());
            let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            !flags.intersects(readable) || viewer.read(events)
        });
        self.looking.len() == before
    }

    /// This part of the frame is new.
    pub fn change(&mut self, part: Rect) {
        for viewer in &mut self.looking {
            viewer.session.change(part);
        }
    }

    /// Sends what there is to those that take it; false: one of them has gone.
    pub fn send(&mut self, frame: &Frame) -> bool {
        let before = self.looking.len();
        self.looking.retain_mut(|viewer| viewer.write(frame));
        self.looking.len() == before
    }
}

impl Viewer {
    fn read(&mut self, events: &mut Vec<Event>) -> bool {
        let mut bytes = vec![0; self.session.room()];
        match rustix::io::read(&self.socket, &mut bytes[..]) {
            Ok(0) => false,
            Ok(count) => match self.session.receive(&bytes[..count], events) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!("a viewer is sent away: {error}");
                    false
                }
            },
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn write(&mut self, frame: &Frame) -> bool {
        self.session.update(frame);
        while !self.session.unsent().is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, self.session.unsent(), flags) {
                Ok(count) => self.session.sent(count),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    use sekisho_seatlink::Mode;

    use super::*;

    #[test]
    fn only_this_machine_is_let_in_unless_everybody_is() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert!(address("tcp:127.0.0.1:0").listen(false).is_ok());
        let everybody = address("tcp:0.0.0.0:0");
        assert!(matches!(
            everybody.listen(false),
            Err(OpenError::Everybody(_))
        ));
        assert!(everybody.listen(true).is_ok());
        for wrong in ["", "unix:", "tcp:5900", "tcp:localhost:5900", "/run/vnc"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_takes_the_place_of_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vnc");
        for _ in 0..2 {
            Address::Unix(path.clone()).listen(false).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(folder.path().join("file"), "kept").unwrap();
        let file = Address::Unix(folder.path().join("file"));
        assert!(file.listen(false).is_err());
        assert!(folder.path().join("file").exists());
    }

    fn ready(viewers: &Viewers) -> Vec<PollFlags> {
        vec![PollFlags::IN; viewers.looking.len()]
    }

    #[test]
    fn a_fifth_viewer_waits_for_nobody_and_takes_no_place_of_one_that_looks_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vnc");
        let listening = Address::Unix(path.clone()).listen(false).unwrap();
        let mut viewers = Viewers::new(listening, Layout::Us);
        let frame = Frame::new(Mode::new(8, 8).unwrap());
        let come = |viewers: &mut Viewers, greets: bool| {
            let mut viewer = UnixStream::connect(&path).unwrap();
            viewers.come(&frame).unwrap();
            if greets {
                viewer.write_all(b"RFB 003.008\n\x01\x01").unwrap();
                let flags = ready(viewers);
                assert!(viewers.hear(&flags, &mut Vec::new()));
            }
            viewer
        };
        let mut silent = come(&mut viewers, false);
        let four: Vec<_> = (0..4).map(|_| come(&mut viewers, true)).collect();
        // The one that said nothing has made room.
        assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
        let mut fifth = come(&mut viewers, false);
        assert_eq!(fifth.read(&mut [0; 16]).unwrap(), 0);
        assert_eq!(viewers.looking.len(), 4);
        drop(four);
        let flags = ready(&viewers);
        assert!(!viewers.hear(&flags, &mut Vec::new()));
        assert_eq!(viewers.looking.len(), 0);
    }
}
