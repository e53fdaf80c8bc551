//! The lab's own answering machines: a sink for all the world's addresses, a time server, a
//! greeting, a place to throw uploads into. One thread a node; a connection gets a short-lived
//! thread of its own.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    net::sockopt::ip_original_dst,
};

use crate::{
    LabError, Netns, address,
    topology::{Answer, SINK_PORT},
};

/// Connections that one node serves at a time; more are closed at once. A leak test makes a handful.
const MAX_CONNECTIONS: usize = 512;

/// How long a silent connection is kept.
const PATIENCE: Duration = Duration::from_secs(30);

/// Visits kept for tests.
const MAX_VISITS: usize = 10_000;

/// Somebody came to a place where perhaps nobody should.
#[derive(Debug, Clone)]
pub struct Visit {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Who asked, as seen there.
    pub from: SocketAddr,
    /// The address asked for, before any redirection (for UDP the redirection's own address).
    pub to: SocketAddrV4,
    /// What was said first, at most 512 bytes.
    pub said: Vec<u8>,
}

/// Visits to the answering machines of one node.
#[derive(Debug, Default)]
pub struct Guestbook {
    visits: Mutex<Vec<Visit>>,
    news: Condvar,
}

impl Guestbook {
    /// All visits so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for a visit that `wanted` accepts.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&Visit) -> bool) -> Option<Visit> {
        let deadline = Instant::now() + limit;
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(visit) = visits.iter().find(|visit| wanted(visit)) {
                return Some(visit.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            visits = self
                .news
                .wait_timeout(visits, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn note(&self, visit: Visit) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() < MAX_VISITS {
            visits.push(visit);
        }
        self.news.notify_all();
    }
}

/// The running answering machines of one node; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    stop: Arc<OwnedFd>,
    thread: Option<thread::JoinHandle<()>>,
    pub(crate) guestbook: Arc<Guestbook>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Listener {
    Tcp(TcpListener, Tcp),
    Udp(UdpSocket, Udp),
}

#[derive(Clone, Copy)]
enum Tcp {
    Sink,
    Greeting(&'static str),
    Discard,
}

#[derive(Clone, Copy)]
enum Udp {
    Sink,
    Ntp,
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }
}

/// Opens the listeners of one node inside its namespace and serves them.
pub(crate) fn answer(space: &Netns, answers: &[Answer]) -> Result<Machine, LabError> {
    let open = || -> io::Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        for answer in answers {
            match *answer {
                Answer::Sink => {
                    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SINK_PORT);
                    listeners.push(Listener::Tcp(TcpListener::bind(any)?, Tcp::Sink));
                    listeners.push(Listener::Udp(UdpSocket::bind(any)?, Udp::Sink));
                }
                Answer::Ntp(at) => listeners.push(Listener::Udp(UdpSocket::bind(at)?, Udp::Ntp)),
                Answer::Greeting(at, text) => {
                    listeners.push(Listener::Tcp(TcpListener::bind(at)?, Tcp::Greeting(text)));
                }
                Answer::Discard(at) => {
                    listeners.push(Listener::Tcp(TcpListener::bind(at)?, Tcp::Discard));
                }
            }
        }
        for listener in &listeners {
            match listener {
                Listener::Tcp(listener, _) => listener.set_nonblocking(true)?,
                Listener::Udp(socket, _) => socket.set_nonblocking(true)?,
            }
        }
        Ok(listeners)
    };
    let opening = || LabError::io("open an answering machine's sockets");
    let listeners = space.enter(open).map_err(opening())?.map_err(opening())?;
    let stop = Arc::new(
        eventfd(0, EventfdFlags::CLOEXEC).map_err(|source| LabError::Io {
            doing: "make an eventfd".into(),
            source: source.into(),
        })?,
    );
    let guestbook = Arc::new(Guestbook::default());
    let (stopped, book) = (Arc::clone(&stop), Arc::clone(&guestbook));
    let thread = thread::Builder::new()
        .name("lab-answers".into())
        .spawn(move || serve(&listeners, &stopped, &book))
        .map_err(opening())?;
    Ok(Machine {
        stop,
        thread: Some(thread),
        guestbook,
    })
}

fn serve(listeners: &[Listener], stop: &OwnedFd, book: &Arc<Guestbook>) {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let mut ready: Vec<PollFd<'_>> = listeners
            .iter()
            .map(|listener| PollFd::new(listener, PollFlags::IN))
            .collect();
        ready.push(PollFd::new(stop, PollFlags::IN));
        if poll(&mut ready, None).is_err() {
            continue;
        }
        if ready.last().is_some_and(|stop| !stop.revents().is_empty()) {
            return;
        }
        let woken: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (listener, _) in listeners.iter().zip(woken).filter(|(_, woken)| *woken) {
            match listener {
                Listener::Tcp(listener, kind) => accept(listener, *kind, book, &connections),
                Listener::Udp(socket, kind) => datagrams(socket, *kind, book),
            }
        }
    }
}

fn accept(listener: &TcpListener, kind: Tcp, book: &Arc<Guestbook>, open: &Arc<AtomicUsize>) {
    while let Ok((stream, from)) = listener.accept() {
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (book, open) = (Arc::clone(book), Arc::clone(open));
        thread::spawn(move || {
            let _ = converse(stream, from, kind, &book);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    kind: Tcp,
    book: &Guestbook,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let to = match (ip_original_dst(&stream), stream.local_addr()?) {
        (Ok(to), _) | (Err(_), SocketAddr::V4(to)) => to,
        (Err(error), SocketAddr::V6(_)) => return Err(error.into()),
    };
    let mut buffer = vec![0; 64 * 1024];
    if let Tcp::Greeting(text) = kind {
        book.note(Visit {
            protocol: "tcp",
            from,
            to,
            said: Vec::new(),
        });
        stream.write_all(text.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        // Read what the client says, so that closing does not reset the connection under it.
        while stream.read(&mut buffer)? > 0 {}
        return Ok(());
    }
    let first = stream.read(&mut buffer);
    let said = first
        .as_ref()
        .map_or(&[][..], |&n| &buffer[..n.min(512)])
        .to_vec();
    book.note(Visit {
        protocol: "tcp",
        from,
        to,
        said,
    });
    match kind {
        Tcp::Sink => stream.write_all(
            b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nthe sink: you should not be here\n",
        ),
        Tcp::Discard => {
            // Answered at once: the client says when it has sent all.
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\ntaken\n")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut last = first?;
            while last > 0 {
                last = stream.read(&mut buffer)?;
            }
            Ok(())
        }
        Tcp::Greeting(_) => Ok(()),
    }
}

fn datagrams(socket: &UdpSocket, kind: Udp, book: &Guestbook) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let asked = &buffer[..length];
        let reply = match kind {
            Udp::Ntp => ntp_reply(asked),
            Udp::Sink => {
                let said = asked[..length.min(512)].to_vec();
                let to = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SINK_PORT);
                book.note(Visit {
                    protocol: "udp",
                    from,
                    to,
                    said,
                });
                Some(dns_reply(asked).unwrap_or_else(|| asked.to_vec()))
            }
        };
        if let Some(reply) = reply {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// A server's answer to a client's NTP packet (RFC 5905 §7.3): mode 4, stratum 2, this machine's
/// clock.
fn ntp_reply(asked: &[u8]) -> Option<Vec<u8>> {
    const CLIENT: u8 = 3;
    const SERVER: u8 = 4;
    /// Seconds from 1900 to 1970.
    const ERA: u64 = 2_208_988_800;
    if asked.len() < 48 || asked[0] & 7 != CLIENT {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let seconds = u32::try_from((now.as_secs() + ERA) & 0xffff_ffff).ok()?;
    let fraction = u32::try_from((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000).ok()?;
    let stamp = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
    let mut reply = vec![0; 48];
    reply[0] = (asked[0] & 0x38) | SERVER;
    reply[1] = 2;
    reply[2] = asked[2];
    reply[3] = 0xec;
    reply[12..16].copy_from_slice(&[10, 12, 0, 1]);
    reply[16..24].copy_from_slice(&stamp);
    reply[24..32].copy_from_slice(&asked[40..48]);
    reply[32..40].copy_from_slice(&stamp);
    reply[40..48].copy_from_slice(&stamp);
    Some(reply)
}

/// If `asked` is a plain DNS query for one name, an answer that sends it to the decoy web server.
fn dns_reply(asked: &[u8]) -> Option<Vec<u8>> {
    if asked.len() < 17 || asked[2] & 0xf8 != 0 || asked[4..12] != [0, 1, 0, 0, 0, 0, 0, 0] {
        return None;
    }
    let mut reply = asked.to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80;
    reply[7] = 1;
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
    reply.extend_from_slice(&address::DECOY_WEB.octets());
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_server_echoes_the_clients_transmit_time() {
        let mut asked = [0; 48];
        asked[0] = 0x23;
        asked[40..48].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let reply = ntp_reply(&asked).unwrap();
        assert_eq!(reply[0], 0x24);
        assert_eq!(reply[24..32], asked[40..48]);
        assert!(ntp_reply(&asked[..47]).is_none());
    }

    #[test]
    fn the_sink_answers_dns_queries_with_the_decoy() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
        let reply = dns_reply(query).unwrap();
        assert_eq!(reply[..2], query[..2]);
        assert!(reply.ends_with(&[198, 51, 100, 80]));
        assert!(dns_reply(b"hello").is_none());
    }
}
