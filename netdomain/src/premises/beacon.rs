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
/// Questions of one conversation, each with a nonce of its own. The first answer within the bound is
/// the proof: distance adds to every answer, and a busy laptop or beacon only to some, so the bound
/// may be as short as the hall is, and a relay gains nothing by our patience.
pub const QUESTIONS: usize = 16;

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

    /// Begins on a socket that is connecting or connected over `port`. `nonces` are 32 bytes each
    /// that nobody could foresee.
    pub fn begin(
        &self,
        port: String,
        socket: OwnedFd,
        nonces: &[[u8; 32]; QUESTIONS],
        now: Moment,
    ) -> Result<Probe, rustls::Error> {
        Ok(Probe {
            port,
            tls: self.handshake()?,
            socket: Stream(socket),
            nonces: nonces.map(hex),
            question: 0,
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
    /// Somebody answered who does not speak TLS at all: a network that leads every connection to a page
    /// of its own does so.
    Stranger,
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

/// What is said of whoever answers in place of the beacon.
pub const NOT_ITS_KEY: &str = "the beacon did not prove its key";

/// A conversation with the beacon.
#[derive(Debug)]
pub struct Probe {
    port: String,
    tls: ClientConnection,
    socket: Stream,
    nonces: [[u8; NONCE]; QUESTIONS],
    question: usize,
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
        self.deadline
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
                let why = error
                    .get_ref()
                    .and_then(|why| why.downcast_ref::<rustls::Error>());
                // Who does not even speak TLS there is nobody's beacon, false or true.
                if matches!(why, Some(rustls::Error::InvalidMessage(_))) {
                    Progress::Stranger
                } else {
                    Progress::Failed(NOT_ITS_KEY)
                }
            }
            Err(_) => Progress::Failed("the connection to the beacon broke"),
        }
    }

    fn step(&mut self, now: Moment) -> io::Result<Progress> {
        self.write()?;
        let ended = self.read()?;
        let progress = self.judge(ended, now);
        let waits = progress == Progress::Waiting && !self.tls.is_handshaking();
        if waits && self.asked.is_none() && self.question < QUESTIONS {
            self.ask()?;
            self.asked = Some(now);
        }
        self.write()?;
        Ok(progress)
    }

    /// What the bytes so far amount to. An answer that was too late leaves nothing asked.
    fn judge(&mut self, ended: bool, now: Moment) -> Progress {
        const TOO_FAR: &str = "the beacon's answer took longer than one across the hall";
        if let Some(asked) = self.asked {
            let took = now.since(asked);
            match read(&self.answer, &self.nonces[self.question]) {
                Answer::Right if took <= self.round_trip => return Progress::Proven(took),
                Answer::Right => {
                    self.question += 1;
                    self.asked = None;
                    self.answer.clear();
                }
                Answer::Wrong => {
                    return Progress::Failed("the beacon's answer is not to our question");
                }
                Answer::Incomplete => {}
            }
        }
        let late = self.question > 0
            || self
                .asked
                .is_some_and(|asked| now.since(asked) > self.round_trip);
        let over = ended || now >= self.deadline || self.question == QUESTIONS;
        match (over, late) {
            (false, _) => Progress::Waiting,
            (true, true) => Progress::Failed(TOO_FAR),
            (true, false) if ended => Progress::Failed("the beacon hung up"),
            (true, false) => Progress::Failed("the beacon did not answer in time"),
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut out = self.tls.writer();
        out.write_all(b"GET /sekisho-beacon?nonce=")?;
        out.write_all(&self.nonces[self.question])?;
        out.write_all(b" HTTP/1.1\r\nHost: beacon\r\n\r\n")
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
