//! Bytes between one connection of openconnect and one of the uplink's, unread: all of it is TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::sockopt::set_tcp_user_timeout;

/// Bytes that wait in one direction; a full buffer stops reading, and TCP slows the other end down.
/// Four of the largest TLS records (RFC 8446, section 5.1).
const BUFFER: usize = 64 << 10;
/// Reads of one direction in one turn, so that one connection does not starve the channels.
const READS: usize = 8;

/// One direction.
#[derive(Debug)]
struct Pump {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The source said its last word.
    finished: bool,
    /// And the sink has been told.
    told: bool,
}

impl Pump {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            finished: false,
            told: false,
        }
    }

    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Moves what can be moved now.
    fn turn(&mut self, source: &TcpStream, sink: &TcpStream) -> io::Result<()> {
        for _ in 0..READS {
            while !self.is_empty() {
                match (&*sink).write(&self.buffer[self.start..self.end]) {
                    Ok(written) => self.start += written,
                    Err(error) if waits(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            (self.start, self.end) = (0, 0);
            if self.finished {
                break;
            }
            match (&*source).read(&mut self.buffer) {
                Ok(0) => self.finished = true,
                Ok(read) => self.end = read,
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.finished && self.is_empty() && !self.told {
            self.told = true;
            sink.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Two connections that are one.
#[derive(Debug)]
pub(super) struct Relay {
    inner: TcpStream,
    outer: TcpStream,
    gateway: SocketAddrV4,
    /// The uplink's connection is there, and leads where it should.
    connected: bool,
    out: Pump,
    back: Pump,
}

impl Relay {
    /// Joins openconnect's connection to the uplink's, which may still be connecting to `gateway`.
    /// Bytes that the gateway does not acknowledge for `silence` end it (RFC 5482).
    pub(super) fn new(
        inner: TcpStream,
        outer: OwnedFd,
        gateway: SocketAddrV4,
        silence: Duration,
    ) -> io::Result<Self> {
        let silence = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        set_tcp_user_timeout(&outer, silence)?;
        let outer = TcpStream::from(outer);
        for stream in [&inner, &outer] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        Ok(Self {
            inner,
            outer,
            gateway,
            connected: false,
            out: Pump::new(),
            back: Pump::new(),
        })
    }

    /// The two sockets, and what to wait for on each.
    pub(super) fn interests(&self) -> [(BorrowedFd<'_>, PollFlags); 2] {
        let interest = |reads: &Pump, writes: &Pump| {
            let mut interest = PollFlags::empty();
            interest.set(PollFlags::IN, reads.is_empty() && !reads.finished);
            interest.set(PollFlags::OUT, !writes.is_empty());
            interest
        };
        let (inner, outer) = if self.connected {
            (
                interest(&self.out, &self.back),
                interest(&self.back, &self.out),
            )
        } else {
            (PollFlags::empty(), PollFlags::OUT)
        };
        [(self.inner.as_fd(), inner), (self.outer.as_fd(), outer)]
    }

    /// Does what can be done now. False when it is over; the uplink's socket is shut then, whoever
    /// else holds a descriptor of it.
    pub(super) fn turn(&mut self) -> bool {
        let lives = self.advance().is_ok_and(|lives| lives);
        if !lives {
            let _ = self.outer.shutdown(Shutdown::Both);
            let _ = self.inner.shutdown(Shutdown::Both);
        }
        lives
    }

    fn advance(&mut self) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.outer.take_error()? {
                return Err(error);
            }
            match self.outer.peer_addr() {
                Ok(peer) if peer == SocketAddr::V4(self.gateway) => self.connected = true,
                Ok(peer) => {
                    tracing::warn!(%peer, "a connection to somebody else than the gateway");
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        self.out.turn(&self.inner, &self.outer)?;
        self.back.turn(&self.outer, &self.inner)?;
        Ok(!(self.out.told && self.back.told))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.outer.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn listen() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("an IPv4 listener");
        };
        (listener, address)
    }

    /// A relay, openconnect's far end and the gateway's.
    fn relay(claimed: Option<SocketAddrV4>) -> (Relay, TcpStream, TcpStream) {
        let (here, inside) = listen();
        let (there, outside) = listen();
        let client = TcpStream::connect(inside).unwrap();
        let outer = TcpStream::connect(outside).unwrap();
        let relay = Relay::new(
            here.accept().unwrap().0,
            outer.into(),
            claimed.unwrap_or(outside),
            Duration::from_secs(3),
        );
        (relay.unwrap(), client, there.accept().unwrap().0)
    }

    #[test]
    fn every_byte_comes_through_both_ways_and_then_the_end() {
        let (mut relay, mut client, mut gateway) = relay(None);
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
        let back = sent.clone();
        let mut writer = client.try_clone().unwrap();
        let answer = thread::spawn(move || {
            let mut received = vec![0; back.len()];
            gateway.read_exact(&mut received).unwrap();
            gateway.write_all(&received).unwrap();
            received
        });
        let bytes = sent.clone();
        let write = thread::spawn(move || writer.write_all(&bytes).unwrap());
        let read = thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        while relay.turn() {
            thread::yield_now();
            if answer.is_finished() && write.is_finished() {
                // The gateway hung up; openconnect does so when it reads that.
                if read.is_finished() {
                    break;
                }
            }
        }
        assert_eq!(answer.join().unwrap(), sent);
        assert_eq!(read.join().unwrap(), sent);
    }

    #[test]
    fn a_connection_to_somebody_else_carries_nothing() {
        let elsewhere = "127.0.0.1:9".parse().unwrap();
        let (mut relay, mut client, mut gateway) = relay(Some(elsewhere));
        client.write_all(b"a secret").unwrap();
        assert!(!relay.turn());
        let mut all = Vec::new();
        gateway.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");
    }
}
