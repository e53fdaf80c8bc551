//! Networks that want a page of their own first and do not say so (RFC 8910 is how they would): they
//! answer every connection as if it were one to a page.
//!
//! Where no gateway answers, a connection is made to where policy lets connections go, TLS is begun on
//! it, and the first bytes that come back are looked at: they are TLS, or whoever answers is no peer of
//! ours. More is neither said nor read; nothing is proven by it and nothing decided, it is told to the
//! person. The first words of TLS say no name (RFC 6066, section 3: none is said of an address).

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::moment::Moment;

/// TCP and the first bytes of an answer together; as long as the beacon has for all of its answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are looked at.
const LOOKED_AT: usize = 2;

/// What the first bytes of an answer say: whether it is a record of TLS (RFC 8446, section 5.1).
/// None: more must come.
fn is_tls(beginning: &[u8]) -> Option<bool> {
    /// `change_cipher_spec`, `alert`, `handshake`, `application_data`.
    const TYPES: std::ops::RangeInclusive<u8> = 20..=23;
    match beginning {
        [] => None,
        [kind] if TYPES.contains(kind) => None,
        [kind, 3, ..] => Some(TYPES.contains(kind)),
        _ => Some(false),
    }
}

/// Makes the first words of TLS.
#[derive(Debug)]
pub struct Knocker {
    config: Arc<ClientConfig>,
}

impl Knocker {
    /// With what the library needs from outside opened: later the process is closed in.
    ///
    /// # Errors
    /// The library cannot speak TLS 1.3, or found no source of random numbers.
    pub fn new() -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            // No conversation gets so far that a certificate is looked at.
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let knocker = Self {
            config: Arc::new(config),
        };
        drop(knocker.hello()?);
        Ok(knocker)
    }

    fn hello(&self) -> Result<Vec<u8>, rustls::Error> {
        let name = Ipv4Addr::UNSPECIFIED.into();
        let name = rustls::pki_types::ServerName::IpAddress(name);
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut hello = Vec::new();
        tls.write_tls(&mut hello)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(hello)
    }

    /// Begins on a socket that is connecting or connected over `port`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn begin(
        &self,
        port: String,
        socket: OwnedFd,
        now: Moment,
    ) -> Result<Knock, rustls::Error> {
        Ok(Knock {
            port,
            socket,
            hello: self.hello()?,
            heard: [0; LOOKED_AT],
            length: 0,
            deadline: now + PATIENCE,
        })
    }
}

/// What came of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    Waiting,
    /// Somebody answered who does not speak TLS at all.
    Stranger,
    /// Nothing that says anything: no answer, none in time, or TLS, whoever's.
    Nothing,
}

/// A connection over which nothing but the first words of TLS is said.
#[derive(Debug)]
pub struct Knock {
    port: String,
    socket: OwnedFd,
    /// What is still to be said.
    hello: Vec<u8>,
    heard: [u8; LOOKED_AT],
    length: usize,
    deadline: Moment,
}

impl Knock {
    /// The port that it goes over.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// When it is over if nothing happens before.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// What to wait for on [`as_fd`](AsFd::as_fd).
    pub fn interest(&self) -> PollFlags {
        if self.hello.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    /// Goes on as far as the socket allows.
    pub fn advance(&mut self, now: Moment) -> Heard {
        match self.step() {
            Ok(Some(false)) => Heard::Stranger,
            Ok(None) if now < self.deadline => Heard::Waiting,
            Ok(Some(true) | None) | Err(_) => Heard::Nothing,
        }
    }

    fn step(&mut self) -> Result<Option<bool>, Errno> {
        // No call waits on the socket, whatever its flags say: the uplink may have kept a descriptor.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Some(sent) = not_yet(send(&self.socket, &self.hello, flags))? {
            self.hello.drain(..sent);
        }
        // Two bytes are wanted, so at most two calls bring something.
        while is_tls(&self.heard[..self.length]).is_none() {
            let room = &mut self.heard[self.length..];
            match not_yet(recv(&self.socket, room, RecvFlags::DONTWAIT))? {
                Some((0, _)) => return Err(Errno::CONNRESET),
                Some((length, _)) => self.length += length,
                None => break,
            }
        }
        Ok(is_tls(&self.heard[..self.length]))
    }
}

impl AsFd for Knock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// None: not connected yet, or nothing to read or no room to write for now.
fn not_yet<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn now() -> Moment {
        Moment::from_boot(Duration::from_secs(100))
    }

    /// Who says `answer` to whatever it hears, and what came of it.
    fn asked(answer: &'static [u8]) -> Heard {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let knocker = Knocker::new().unwrap();
        let mut knock = knocker.begin("wlan0".into(), socket.into(), now()).unwrap();
        assert_eq!(knock.advance(now()), Heard::Waiting);
        assert!(knock.hello.is_empty(), "all is said");
        let (mut far, _) = listener.accept().unwrap();
        let mut hello = [0; 2048];
        let length = far.read(&mut hello).unwrap();
        assert_eq!(hello[0], 22, "a handshake");
        assert_eq!(is_tls(&hello[..length]), Some(true));
        far.write_all(answer).unwrap();
        drop(far);
        for _ in 0..200 {
            let heard = knock.advance(now());
            if heard != Heard::Waiting {
                return heard;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        knock.advance(now() + PATIENCE)
    }

    #[test]
    fn who_answers_no_tls_is_a_stranger() {
        assert_eq!(asked(b"HTTP/1.1 302 Found\r\n\r\n"), Heard::Stranger);
        assert_eq!(asked(b"\0"), Heard::Stranger);
        // The controls: TLS of whomever, an end, half a record's beginning.
        for other in [&b"\x15\x03\x03\x00\x02\x02\x28"[..], b"", b"\x16"] {
            assert_eq!(asked(other), Heard::Nothing, "{other:?}");
        }
    }

    #[test]
    fn who_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let knocker = Knocker::new().unwrap();
        let mut knock = knocker.begin("wlan0".into(), socket.into(), now()).unwrap();
        assert_eq!(knock.advance(now()), Heard::Waiting);
        assert_eq!(knock.advance(knock.deadline()), Heard::Nothing);
    }

    #[test]
    fn the_first_two_bytes_tell() {
        for kind in 0..=u8::MAX {
            let tls = (20..=23).contains(&kind);
            assert_eq!(is_tls(&[kind]), if tls { None } else { Some(false) });
            assert_eq!(is_tls(&[kind, 3]), Some(tls));
            assert_eq!(is_tls(&[kind, 2]), Some(false));
        }
    }
}
