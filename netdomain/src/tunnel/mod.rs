//! One tunnel, behind one trait: inner packets in, datagrams out, no socket and no clock.
//!
//! Two kinds: `WireGuard`, which seals here and proves its gateway by a handshake of ours ([`Roaming`]
//! is what that adds), and [`IpFd`], whose engine is a process of its own: it takes packets as they
//! are over a descriptor, and says itself when its tunnel is up.

mod batch;
mod ip_fd;
mod stamp;
mod wireguard;

use std::net::SocketAddrV4;

use bytes::BytesMut;
use thiserror::Error;

pub use batch::SegBatch;
pub use ip_fd::IpFd;
pub use stamp::{StampError, StampFile};
pub use wireguard::{Identity, WireGuard};

use crate::gate::family::Family;
use crate::gate::path::Segment;
use crate::moment::Moment;

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// There is no session with the gateway; the packet is lost, as on any link that is down.
    #[error("there is no session with the gateway")]
    NoSession,
}

/// What a datagram from the network turned out to be.
#[derive(Debug)]
pub enum Opened {
    /// An inner packet, authenticated. Not parsed, not admitted.
    Inner(BytesMut),
    /// Authenticated, without a packet inside: a keep-alive, or the end of a handshake.
    Alive,
    /// The gateway wants something back before it goes on (a handshake answer, a cookie); it is
    /// in the reply. `proven` when this message itself was authenticated by the gateway's key.
    Answer {
        /// Whether the gateway proved itself with this datagram.
        proven: bool,
    },
    /// Not from the gateway, a replay, or garbage.
    Refused,
}

/// A datagram that is not part of the data path: a handshake message, a cookie, a keep-alive.
/// `WireGuard`'s longest is 148 bytes.
#[derive(Debug, Default)]
pub struct Datagram {
    bytes: Vec<u8>,
}

impl Datagram {
    /// An empty one with room for every message of the protocol.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(256),
        }
    }

    /// Replaces the content.
    pub fn set(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// The content, and empties it when dropped by the next [`set`](Self::set).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a datagram of a tunnel is, and so where it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Sealed for the gateway: it may leave by any socket.
    Sealed,
    /// An inner packet as it is: it may go to the tunnel's engine and nowhere else.
    Plain,
}

/// The tunnel to a gateway: a closed set, so that no packet goes through a table of functions.
#[expect(
    clippy::large_enum_variant,
    reason = "there are at most eight, and nearly all are the large one"
)]
pub enum AnyTunnel {
    /// Sealed here.
    WireGuard(WireGuard),
    /// By an engine.
    IpFd(IpFd),
}

impl AnyTunnel {
    /// The tunnel that is sealed here, if it is.
    pub const fn roaming(&mut self) -> Option<&mut WireGuard> {
        match self {
            Self::WireGuard(tunnel) => Some(tunnel),
            Self::IpFd(_) => None,
        }
    }

    /// The tunnel of an engine, if it is.
    pub const fn ip_fd(&mut self) -> Option<&mut IpFd> {
        match self {
            Self::WireGuard(_) => None,
            Self::IpFd(tunnel) => Some(tunnel),
        }
    }
}

/// A tunnel to one gateway. Every call takes the time; nothing inside reads a clock.
pub trait Tunnel {
    /// What [`seal`](Self::seal) makes.
    const FORM: Form;
    /// Bytes that sealing adds to a packet, padding not counted.
    const OVERHEAD: usize;

    /// Length of the datagram that `segment` becomes.
    fn sealed_len<A: Family>(&self, segment: &Segment<'_, A>) -> usize;

    /// Seals one packet into `out`, which must have room for [`sealed_len`](Self::sealed_len).
    fn seal<A: Family>(
        &mut self,
        segment: &Segment<'_, A>,
        out: &mut SegBatch,
        now: Moment,
    ) -> Result<(), SealError>;
}

/// A tunnel whose session is ours: it opens what comes, and goes by any path to the gateway.
pub trait Roaming: Tunnel {
    /// Opens one datagram in place. What must be sent back goes into `answer`.
    fn open(
        &mut self,
        datagram: BytesMut,
        from: SocketAddrV4,
        answer: &mut Datagram,
        now: Moment,
    ) -> Opened;

    /// Starts a handshake, also when one is under way. The message goes into `out`.
    fn initiate(&mut self, out: &mut Datagram, now: Moment);

    /// An empty authenticated packet that tells the gateway where we are now. False if there is
    /// no session to authenticate it with.
    fn kick(&mut self, out: &mut Datagram, now: Moment) -> bool;

    /// Does what is due. True if `out` holds a message to send.
    fn on_timer(&mut self, out: &mut Datagram, now: Moment) -> bool;

    /// When [`on_timer`](Self::on_timer) wants to be called next.
    fn next_timer(&self) -> Moment;

    /// Forgets every session: nothing can be sealed until a new handshake is through.
    fn reset(&mut self, now: Moment);
}
