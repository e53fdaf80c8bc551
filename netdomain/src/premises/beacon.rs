//! One conversation with the beacon, step by step, without ever waiting.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection};

use super::answer::{Answer, MAX_ANSWER, NONCE, read};
use super::pin::PinnedKey;
use crate::moment::Moment;

/// TCP, TLS and the answer all together; the round trip has its own, shorter bound.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the beacon is known by.
#[derive(Debug, Clone)]
pub struct BeaconClient {
    config: Arc<ClientConfig>,
    address: std::net::SocketAddrV4,
    round_trip: Duration,
}

impl BeaconClient {
    /// A client for the beacon at `address` with this key, which must answer within `round_trip`.
    pub fn new(
        address: std::net::SocketAddrV4,
        spki_sha256: [u8; 32],
        round_trip: Duration,
    ) -> Result<Self, rustls::Error> {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(PinnedKey::new(spki_sha256)))
                .with_no_client_auth();
        // Each proof is a signature of its own; a ticket would stand for an old one.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        let client = Self {
            config: Arc::new(config),
            address,
            round_trip,
        };
        // The library opens what its random numbers come from at its first handshake. That has to
        // be now: later the process is closed in, and the file system is gone.
        drop(client.handshake()?);
        Ok(client)
    }

    fn handshake(&self) -> Result<ClientConnection, rustls::Error> {
        let name = ServerName::IpAddress(self.address.ip().to_owned().into());
        ClientConnection::new(Arc::clone(&self.config), name)
    }

    /// Begins on a socket that is connecting or connected over `port`. `nonce` is 32 bytes that
    /// nobody could foresee.
    pub fn begin(
        &self,
        port: String,
        socket: OwnedFd,
        nonce: [u8; 32],
        now: Moment,
    ) -> Result<Probe, rustls::Error> {
        Ok(Probe {
            port,
            tls: self.handshake()?,
            socket: Stream(socket),
            nonce: hex(nonce),
            asked: None,
            answer: Vec::with_capacity(MAX_ANSWER),
            round_trip: self.round_trip,
            deadline: now + PATIENCE,
        })
    }
}

/// How far a probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for the socket.
    Waiting,
    /// The beacon is there; the answer took so long.
    Proven(Duration),
    /// It is not, for this reason.
    Failed(&'static str),
}

/// The socket that the uplink handed over. No call waits on it, whatever its flags say: the uplink
/// may have kept a descriptor of it, and could set them at any time.
#[derive(Debug)]
struct Stream(OwnedFd);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, _) = recv(&self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(length)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(send(&self.0, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A conversation with the beacon.
#[derive(Debug)]
pub struct Probe {
    port: String,
    tls: ClientConnection,
    socket: Stream,
    nonce: [u8; NONCE],
    asked: Option<Moment>,
    answer: Vec<u8>,
    round_trip: Duration,
    deadline: Moment,
}

impl Probe {
    /// The port that it goes over.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// When it has failed if nothing happens before.
    pub fn deadline(&self) -> Moment {
        let answer = self.asked.map(|asked| asked + self.round_trip);
        answer.map_or(self.deadline, |due| due.min(self.deadline))
    }

    /// What to wait for on [`as_fd`](AsFd::as_fd).
    pub fn interest(&self) -> PollFlags {
        if self.tls.wants_write() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        }
    }

    /// Goes on as far as the socket allows.
    pub fn advance(&mut self, now: Moment) -> Progress {
        match self.step(now) {
            Ok(progress) => progress,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Progress::Failed("the beacon did not prove its key")
            }
            Err(_) => Progress::Failed("the connection to the beacon broke"),
        }
    }

    fn step(&mut self, now: Moment) -> io::Result<Progress> {
        self.write()?;
        let ended = self.read()?;
        if self.asked.is_none() && !self.tls.is_handshaking() {
            self.ask()?;
            self.asked = Some(now);
        }
        self.write()?;
        Ok(self.judge(ended, now))
    }

    fn judge(&self, ended: bool, now: Moment) -> Progress {
        let Some(asked) = self.asked else {
            return if now >= self.deadline {
                Progress::Failed("the beacon did not answer in time")
            } else if ended {
                Progress::Failed("the beacon hung up")
            } else {
                Progress::Waiting
            };
        };
        let took = now.since(asked);
        if took > self.round_trip {
            return Progress::Failed("the beacon's answer took longer than one across the hall");
        }
        match read(&self.answer, &self.nonce) {
            Answer::Right => Progress::Proven(took),
            Answer::Wrong => Progress::Failed("the beacon's answer is not to our question"),
            Answer::Incomplete if ended => Progress::Failed("the beacon hung up"),
            Answer::Incomplete => Progress::Waiting,
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut out = self.tls.writer();
        out.write_all(b"GET /sekisho-beacon?nonce=")?;
        out.write_all(&self.nonce)?;
        out.write_all(b" HTTP/1.1\r\nHost: beacon\r\nConnection: close\r\n\r\n")
    }

    fn write(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there. True: nothing will follow.
    fn read(&mut self) -> io::Result<bool> {
        let mut ended = false;
        // Each round reads at least a byte of at most `MAX_ANSWER` and some handshake; the bound
        // keeps a server that drips from keeping us.
        for _ in 0..64 {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(_) => {}
                Err(error) if not_yet(&error) => break,
                Err(error) => return Err(error),
            }
            self.tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.take_answer()?;
        }
        Ok(ended)
    }

    fn take_answer(&mut self) -> io::Result<()> {
        let mut piece = [0; 1024];
        while self.answer.len() <= MAX_ANSWER {
            match self.tls.reader().read(&mut piece) {
                Ok(0) => break,
                Ok(len) => self.answer.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.0.as_fd()
    }
}

/// Not yet connected, or nothing to read or no room to write for now.
fn not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}

fn hex(nonce: [u8; 32]) -> [u8; NONCE] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; NONCE];
    for (pair, byte) in text.chunks_exact_mut(2).zip(nonce) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}
