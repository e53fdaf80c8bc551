//! The socket of a service.
//!
//! The thin shell around [`Server`], with an epoll instance of its own in which all its connections
//! live, so that the loop of the process sees one descriptor. Nothing here waits, and no error of a
//! connection, nor of the socket itself, is an error of the process.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fs::{Gid, Mode, chmod, chown},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
        bind, listen, recv, send, socket_with, sockopt::socket_peercred,
    },
    process::umask,
};
use zeroize::Zeroizing;

use crate::{
    server::{Interest, MAX_PEERS, PeerId, Server},
    service::Service,
};

/// Connections that wait in the kernel to be accepted; those beyond are refused there.
const BACKLOG: i32 = 16;
/// Connections taken up in one turn.
const ACCEPTS_PER_TURN: usize = 4;
/// Bytes read at once; a call is a fraction of it.
const CHUNK: usize = 1024;
/// Only the user of the process, until the group is set.
const PRIVATE: u32 = 0o177;
/// Read and write for the group: to connect is to write.
const GROUP: Mode = Mode::from_raw_mode(0o660);

/// The token of the listening socket; peers have their numbers.
const LISTENER: u64 = u64::MAX;

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    waits: Interest,
}

/// The socket and its connections.
#[derive(Debug)]
pub struct Listening {
    epoll: OwnedFd,
    listener: OwnedFd,
    listens: bool,
    /// What is removed in the end.
    path: Option<PathBuf>,
    server: Server,
    connections: BTreeMap<PeerId, Connection>,
}

impl Listening {
    /// Listens at `path`, for the members of `group` too where one is given. A socket that an earlier process
    /// left is replaced; nothing else is.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn open(path: &Path, group: Option<u32>, now: Duration) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = listen_at(path)?;
        if let Some(group) = group {
            chown(path, None, Some(Gid::from_raw(group)))?;
            chmod(path, GROUP)?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, token, epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            listens: true,
            path: Some(path.to_owned()),
            server: Server::new(now),
            connections: BTreeMap::new(),
        })
    }

    /// The socket's file stays when this ends: for a process that closes itself in and could not remove it.
    #[must_use]
    pub fn left_behind(mut self) -> Self {
        self.path = None;
        self
    }

    /// When [`Listening::turn`] is wanted though the descriptor is silent.
    pub fn due(&self, revision: u64, now: Duration) -> Option<Duration> {
        self.server.due(revision, now)
    }

    /// Does what is to be done now, and never waits.
    pub fn turn(&mut self, service: &mut impl Service, now: Duration) {
        let mut ready = Vec::with_capacity(MAX_PEERS + 1);
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // An interrupted look is repeated with the next turn.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&at_once));
        for event in &ready {
            match u8::try_from(event.data.u64()) {
                Ok(number) => self.on_peer(PeerId(number), event.flags, service, now),
                Err(_) => self.accept(now),
            }
        }
        for (id, why) in self.server.tick(service, now) {
            tracing::debug!(?id, ?why, "a connection is closed");
            self.close(id);
        }
        let ids: Vec<PeerId> = self.connections.keys().copied().collect();
        for id in ids {
            self.write(id, service, now);
            self.wait_for(id, now);
        }
        self.listen_while_it_may(now);
    }

    fn accept(&mut self, now: Duration) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.server.may_accept(now) {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                // No descriptor is left, or no memory: the connection waits in the queue.
                Err(_) => return self.server.missed(now),
            };
            let Ok(user) = socket_peercred(&socket).map(|peer| peer.uid.as_raw()) else {
                self.server.missed(now);
                continue;
            };
            // Too many: it sees the end of its connection.
            let Some(id) = self.server.accept(user, now) else {
                continue;
            };
            let waits = Interest {
                read: true,
                write: false,
            };
            let token = epoll::EventData::new_u64(id.0.into());
            if epoll::add(&self.epoll, &socket, token, flags_of(waits)).is_ok() {
                self.connections.insert(id, Connection { socket, waits });
            } else {
                self.server.close(id);
            }
        }
    }

    fn on_peer(
        &mut self,
        id: PeerId,
        flags: epoll::EventFlags,
        service: &mut impl Service,
        now: Duration,
    ) {
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return self.close(id);
        }
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let room = self.server.room(id, now).min(CHUNK);
        if !flags.contains(epoll::EventFlags::IN) || room == 0 {
            return;
        }
        // It may be a secret.
        let mut chunk = Zeroizing::new([0; CHUNK]);
        match recv(&connection.socket, &mut chunk[..room], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => self.close(id),
            Ok((length, _)) => {
                let said = &chunk[..length.min(room)];
                if let Err(why) = self.server.received(id, said, service, now) {
                    tracing::debug!(?id, ?why, "a connection is closed");
                    self.close(id);
                }
            }
        }
    }

    /// Writes as much as the connection takes. A written reply may let the next call be answered,
    /// of which there are a few at most.
    fn write(&mut self, id: PeerId, service: &mut impl Service, now: Duration) {
        while let Some(connection) = self.connections.get(&id) {
            let output = self.server.output(id);
            if output.is_empty() {
                return;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&connection.socket, output, flags) {
                Ok(length) => {
                    if self.server.wrote(id, length, service, now).is_err() {
                        self.close(id);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => self.close(id),
            }
        }
    }

    fn wait_for(&mut self, id: PeerId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let wanted = self.server.interest(id, now);
        if wanted != connection.waits {
            let token = epoll::EventData::new_u64(id.0.into());
            let flags = flags_of(wanted);
            match epoll::modify(&self.epoll, &connection.socket, token, flags) {
                Ok(()) => connection.waits = wanted,
                Err(_) => self.close(id),
            }
        }
    }

    fn listen_while_it_may(&mut self, now: Duration) {
        let may = self.server.may_accept(now);
        if may == self.listens {
            return;
        }
        let flags = if may {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::empty()
        };
        let token = epoll::EventData::new_u64(LISTENER);
        if epoll::modify(&self.epoll, &self.listener, token, flags).is_ok() {
            self.listens = may;
        }
    }

    /// Closing the descriptor takes it out of epoll.
    fn close(&mut self, id: PeerId) {
        self.connections.remove(&id);
        self.server.close(id);
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn flags_of(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.read);
    flags.set(epoll::EventFlags::OUT, interest.write);
    flags
}

/// Born private: a moment before its mode is set would be enough to connect.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    let before = umask(Mode::from_raw_mode(PRIVATE));
    let bound = bind(&socket, &address);
    umask(before);
    bound?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
