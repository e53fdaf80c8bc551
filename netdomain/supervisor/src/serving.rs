//! The status socket: whoever may connect is told how the laptop does (`jp.sekisho.Laptop`).
//!
//! The thin shell around [`Server`], with an epoll instance of its own in which all its connections
//! live, so that the supervisor's loop sees one descriptor. Nothing here waits, and no error of a
//! connection, nor of the socket itself, is an error of the supervisor.

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
use sekisho_status::{Interest, Ledger, MAX_PEERS, PeerId, Server, Wish};
use zeroize::Zeroizing;

use crate::config::StatusSocket;

/// Connections that wait in the kernel to be accepted; those beyond are refused there.
const BACKLOG: i32 = 16;
/// Connections taken up in one turn.
const ACCEPTS_PER_TURN: usize = 4;
/// Bytes read at once; a call is a fraction of it.
const CHUNK: usize = 1024;
/// Only the supervisor's user, until the group is set.
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
pub(crate) struct Serving {
    epoll: OwnedFd,
    listener: OwnedFd,
    listens: bool,
    path: PathBuf,
    server: Server,
    connections: BTreeMap<PeerId, Connection>,
}

impl Serving {
    /// Listens. A socket that an earlier supervisor left is replaced; nothing else is.
    pub(crate) fn open(
        config: &StatusSocket,
        version: &'static str,
        now: Duration,
    ) -> io::Result<Self> {
        if let Some(folder) = config.socket.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::symlink_metadata(&config.socket).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(&config.socket)?;
        }
        let listener = listen_at(&config.socket)?;
        if let Some(group) = config.group {
            chown(&config.socket, None, Some(Gid::from_raw(group)))?;
            chmod(&config.socket, GROUP)?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, token, epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            listens: true,
            path: config.socket.clone(),
            server: Server::new(version, now).with_answerers(config.answerers.clone()),
            connections: BTreeMap::new(),
        })
    }

    /// When [`Serving::turn`] is wanted though the descriptor is silent.
    pub(crate) fn due(&self, ledger: &Ledger, now: Duration) -> Option<Duration> {
        self.server.due(ledger, now)
    }

    /// Does what is to be done now, and never waits.
    pub(crate) fn turn(&mut self, ledger: &Ledger, now: Duration) {
        let mut ready = Vec::with_capacity(MAX_PEERS + 1);
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // An interrupted look is repeated with the next turn.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&at_once));
        for event in &ready {
            match u8::try_from(event.data.u64()) {
                Ok(number) => self.on_peer(PeerId(number), event.flags, ledger, now),
                Err(_) => self.accept(now),
            }
        }
        for (id, why) in self.server.tick(ledger, now) {
            tracing::debug!(?id, ?why, "a status connection is closed");
            self.close(id);
        }
        let ids: Vec<PeerId> = self.connections.keys().copied().collect();
        for id in ids {
            self.write(id, ledger, now);
            self.wait_for(id, now);
        }
        self.listen_while_it_may(now);
    }

    /// What somebody who may wants to be done, if anybody does; to be looked for after each turn.
    pub(crate) const fn take_wish(&mut self) -> Option<Wish> {
        self.server.take_wish()
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

    fn on_peer(&mut self, id: PeerId, flags: epoll::EventFlags, ledger: &Ledger, now: Duration) {
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
        // It may be an answer of the person's.
        let mut chunk = Zeroizing::new([0; CHUNK]);
        match recv(&connection.socket, &mut chunk[..room], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => self.close(id),
            Ok((length, _)) => {
                let said = &chunk[..length.min(room)];
                if let Err(why) = self.server.received(id, said, ledger, now) {
                    tracing::debug!(?id, ?why, "a status connection is closed");
                    self.close(id);
                }
            }
        }
    }

    /// Writes as much as the connection takes. A written reply may let the next call be answered,
    /// of which there are a few at most.
    fn write(&mut self, id: PeerId, ledger: &Ledger, now: Duration) {
        while let Some(connection) = self.connections.get(&id) {
            let output = self.server.output(id);
            if output.is_empty() {
                return;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&connection.socket, output, flags) {
                Ok(length) => {
                    if self.server.wrote(id, length, ledger, now).is_err() {
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

impl AsFd for Serving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::{fs::PermissionsExt as _, net::UnixStream},
        time::Instant,
    };

    use super::*;

    const STATUS: &[u8] = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\"}\0";

    struct Stage {
        serving: Serving,
        ledger: Ledger,
        start: Instant,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Stage {
        fn new(group: Option<u32>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run/laptop");
            let config = StatusSocket {
                socket: path.clone(),
                group,
                answerers: Vec::new(),
            };
            Self {
                serving: Serving::open(&config, "1.2.3", Duration::ZERO).unwrap(),
                ledger: Ledger::new("1.2.3", Duration::ZERO),
                start: Instant::now(),
                path,
                _folder: folder,
            }
        }

        fn turn(&mut self) {
            self.serving.turn(&self.ledger, self.start.elapsed());
        }

        fn connect(&mut self) -> UnixStream {
            let client = UnixStream::connect(&self.path).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            self.turn();
            client
        }
    }

    fn reply(client: &mut UnixStream) -> Vec<u8> {
        let mut text = Vec::new();
        let mut byte = [0];
        while client.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
            text.push(byte[0]);
        }
        text
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_unless_a_group_is_named() {
        assert_eq!(mode(&Stage::new(None).path), 0o600);
        let group = rustix::process::getgid().as_raw();
        assert_eq!(mode(&Stage::new(Some(group)).path), 0o660);
    }

    #[test]
    fn only_a_socket_is_replaced_and_it_goes_with_us() {
        let mut stage = Stage::new(None);
        let config = StatusSocket {
            socket: stage.path.clone(),
            group: None,
            answerers: Vec::new(),
        };
        // An earlier supervisor was killed: its socket is still there.
        stage.serving = Serving::open(&config, "1.2.3", Duration::ZERO).unwrap();
        drop(stage);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("laptop");
        fs::write(&file, "somebody's").unwrap();
        let config = StatusSocket {
            socket: file.clone(),
            group: None,
            answerers: Vec::new(),
        };
        assert!(Serving::open(&config, "1.2.3", Duration::ZERO).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"somebody's");
    }

    #[test]
    fn an_answer_comes_while_others_stall_and_flood() {
        let mut stage = Stage::new(None);
        // One watches and never reads, one floods, one is garbage.
        let mut deaf = stage.connect();
        deaf.write_all(b"{\"method\":\"jp.sekisho.Laptop.GetStatus\",\"more\":true}\0")
            .unwrap();
        let mut flood = stage.connect();
        flood.set_nonblocking(true).unwrap();
        let mut client = stage.connect();
        let mut longest = Duration::ZERO;
        for round in 0..200 {
            stage.ledger.moved(&format!("eth{round}"), Duration::ZERO);
            while flood.write(&STATUS.repeat(100)).is_ok() {}
            let start = Instant::now();
            stage.turn();
            longest = longest.max(start.elapsed());
        }
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        client.write_all(STATUS).unwrap();
        stage.turn();
        let text: serde_json::Value = serde_json::from_slice(&reply(&mut client)).unwrap();
        assert_eq!(text["parameters"]["status"]["product"], "1.2.3");
        let mut garbage = stage.connect();
        garbage.write_all(b"\xff\xff\0").unwrap();
        stage.turn();
        assert_eq!(garbage.read(&mut [0]).unwrap(), 0, "it sees its end");
    }

    #[test]
    fn one_user_has_a_few_connections_and_gets_them_back() {
        let mut stage = Stage::new(None);
        let kept: Vec<UnixStream> = (0..4).map(|_| stage.connect()).collect();
        let mut more = stage.connect();
        assert_eq!(more.read(&mut [0]).unwrap(), 0);
        drop(kept);
        stage.turn();
        let mut again = stage.connect();
        again.write_all(STATUS).unwrap();
        stage.turn();
        assert!(!reply(&mut again).is_empty());
    }
}
