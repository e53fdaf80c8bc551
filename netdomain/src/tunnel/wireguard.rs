//! `WireGuard` by gotatun's `noise` module, driven by our clock.
//!
//! gotatun reads time through `mock_instant` in our build: a thread-local clock that stands still
//! until it is set. Each call here sets it first, which makes the protocol a function of its
//! arguments, lets tests jump through hours, and lets [`Identity::stamp_floor`] lift the TAI64N
//! timestamps above those of an earlier life of this laptop.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgData, WgKind};
use gotatun::x25519::{PublicKey, StaticSecret};
use mock_instant::thread_local::MockClock;

use super::{Datagram, Form, Opened, Roaming, SealError, SegBatch, Tunnel};
use crate::gate::family::Family;
use crate::gate::path::Segment;
use crate::moment::Moment;

/// Handshake messages a second from one address before cookies are asked for (the kernel's and
/// gotatun's own default for a device).
const HANDSHAKES_PER_SECOND: u64 = 100;
/// The protocol keeps the mapping of a NAT alive with one empty packet in this time.
const KEEPALIVE_SECONDS: u16 = 25;
/// gotatun wants to be asked four times a second, as its own device layer does.
const TIMER_PERIOD: Duration = Duration::from_millis(250);
/// `WireGuard` pads inner packets to a multiple of this (whitepaper, section 5.4.6).
const PADDING: usize = 16;
const ZEROS: [u8; PADDING] = [0; PADDING];
/// Room for a full super-datagram's worth of plaintext before the buffer is made anew.
const SCRATCH: usize = 65_536;

/// The keys of a tunnel and the time below which its handshakes may not be stamped.
pub struct Identity {
    /// This laptop's private key.
    pub private: [u8; 32],
    /// The gateway's public key, from policy.
    pub gateway: [u8; 32],
    /// No handshake is stamped at or below this time since 1970, whatever the wall clock says.
    pub stamp_floor: Duration,
    /// Inner MTU: padding never makes a packet longer than this.
    pub mtu: u16,
}

/// A `WireGuard` tunnel to one gateway.
pub struct WireGuard {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    /// gotatun's clock is this much ahead of [`Moment`].
    ahead: Duration,
    /// Stamp of a handshake that starts at [`Moment`] zero.
    stamp_base: Duration,
    last_stamp: Duration,
    next_timer: Moment,
    scratch: BytesMut,
    mtu: usize,
}

impl WireGuard {
    /// A tunnel without a session. The wall clock is read here, by gotatun too, and never again.
    pub fn new(identity: &Identity, indices: &IndexTable, now: Moment) -> Self {
        MockClock::set_time(now.since_boot());
        let private = StaticSecret::from(identity.private);
        let limiter = Arc::new(RateLimiter::new(
            &PublicKey::from(&private),
            HANDSHAKES_PER_SECOND,
        ));
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let tunn = Tunn::new(
            private,
            PublicKey::from(identity.gateway),
            None,
            Some(KEEPALIVE_SECONDS),
            indices.clone(),
            Arc::clone(&limiter),
        );
        // A stamp is the wall clock at creation plus the time that passed since then on gotatun's
        // clock. Where the wall clock went back, the missing time is made up on that clock.
        let ahead = (identity.stamp_floor + Duration::from_secs(1)).saturating_sub(wall);
        let ahead = if identity.stamp_floor < wall {
            Duration::ZERO
        } else {
            ahead
        };
        Self {
            tunn,
            limiter,
            ahead,
            stamp_base: (wall + ahead).saturating_sub(now.since_boot()),
            last_stamp: Duration::ZERO,
            next_timer: now,
            scratch: BytesMut::with_capacity(SCRATCH),
            mtu: usize::from(identity.mtu),
        }
    }

    /// Stamp of the newest handshake that this tunnel started, as time since 1970.
    pub const fn last_stamp(&self) -> Duration {
        self.last_stamp
    }

    fn at(&self, now: Moment) {
        MockClock::set_time(now.since_boot() + self.ahead);
    }

    fn padded(&self, len: usize) -> usize {
        len.next_multiple_of(PADDING).min(self.mtu).max(len)
    }

    fn stamped(&mut self, now: Moment) {
        // Rounded up: gotatun reads the wall clock a moment after us.
        self.last_stamp = self.stamp_base + now.since_boot() + Duration::from_secs(1);
    }

    fn encapsulate(&mut self, plain: BytesMut) -> Option<Packet<WgData>> {
        self.tunn
            .encapsulate_with_session(Packet::from_bytes(plain))
            .ok()
    }
}

impl Tunnel for WireGuard {
    const FORM: Form = Form::Sealed;
    const OVERHEAD: usize = WgData::OVERHEAD;

    fn sealed_len<A: Family>(&self, segment: &Segment<'_, A>) -> usize {
        self.padded(segment.len()) + Self::OVERHEAD
    }

    fn seal<A: Family>(
        &mut self,
        segment: &Segment<'_, A>,
        out: &mut SegBatch,
        now: Moment,
    ) -> Result<(), SealError> {
        self.at(now);
        let (headers, payload) = segment.parts();
        let len = segment.len();
        let padded = self.padded(len);
        // Takes back the memory of earlier packets, all dropped by now, instead of new memory.
        self.scratch.reserve(padded);
        self.scratch.extend_from_slice(headers);
        self.scratch.extend_from_slice(payload);
        self.scratch.extend_from_slice(&ZEROS[..padded - len]);
        let plain = self.scratch.split();
        let sealed = self.encapsulate(plain).ok_or(SealError::NoSession)?;
        out.push(sealed.into_bytes().as_ref());
        Ok(())
    }
}

impl Roaming for WireGuard {
    fn open(
        &mut self,
        datagram: BytesMut,
        from: SocketAddrV4,
        answer: &mut Datagram,
        now: Moment,
    ) -> Opened {
        self.at(now);
        let packet = match self
            .limiter
            .verify_packet(SocketAddr::V4(from), Packet::from_bytes(datagram))
        {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                answer.set(Packet::from(cookie).as_ref());
                return Opened::Answer { proven: false };
            }
            Err(_) => return Opened::Refused,
        };
        // A handshake answer is authenticated by the gateway's key and bound to our own fresh
        // ephemeral; an initiation could be a replay until data follows it.
        let proven = matches!(packet, WgKind::HandshakeResp(_));
        match self.tunn.handle_incoming_packet(packet) {
            TunnResult::WriteToTunnel(mut inner) => {
                if inner.as_ref().is_empty() {
                    Opened::Alive
                } else {
                    Opened::Inner(std::mem::take(inner.buf_mut()))
                }
            }
            TunnResult::WriteToNetwork(message) => {
                answer.set(Packet::from(message).as_ref());
                Opened::Answer { proven }
            }
            TunnResult::Done | TunnResult::Err(_) => Opened::Refused,
        }
    }

    fn initiate(&mut self, out: &mut Datagram, now: Moment) {
        self.at(now);
        // Brings gotatun's own idea of the present up to date before it stamps timers.
        let _ = self.tunn.update_timers();
        if let Some(message) = self.tunn.format_handshake_initiation(true) {
            self.stamped(now);
            out.set(message.into_bytes().as_ref());
        }
    }

    fn kick(&mut self, out: &mut Datagram, now: Moment) -> bool {
        self.at(now);
        let empty = self.scratch.split();
        debug_assert!(empty.is_empty(), "seal leaves the scratch buffer empty");
        match self.encapsulate(empty) {
            Some(sealed) => {
                out.set(sealed.into_bytes().as_ref());
                true
            }
            None => false,
        }
    }

    fn on_timer(&mut self, out: &mut Datagram, now: Moment) -> bool {
        self.at(now);
        self.next_timer = now + TIMER_PERIOD;
        match self.tunn.update_timers() {
            Ok(Some(message)) => {
                if matches!(message, WgKind::HandshakeInit(_)) {
                    self.stamped(now);
                }
                out.set(Packet::from(message).as_ref());
                true
            }
            // An error here says that the session expired; the situation machine sees silence
            // and starts over.
            Ok(None) | Err(_) => false,
        }
    }

    fn next_timer(&self) -> Moment {
        self.next_timer
    }

    fn reset(&mut self, now: Moment) {
        self.at(now);
        self.tunn.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAPTOP: [u8; 32] = [7; 32];
    const GATEWAY: [u8; 32] = [9; 32];
    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);
    const YEAR: Duration = Duration::from_hours(8766);

    fn tunnel(private: [u8; 32], peer: [u8; 32], stamp_floor: Duration) -> WireGuard {
        let identity = Identity {
            private,
            gateway: PublicKey::from(&StaticSecret::from(peer)).to_bytes(),
            stamp_floor,
            mtu: 1420,
        };
        WireGuard::new(&identity, &IndexTable::from_os_rng(), at(100))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    /// Whether the gateway answers the laptop's handshake, and the laptop takes the answer.
    fn handshake(laptop: &mut WireGuard, gateway: &mut WireGuard, seconds: u64) -> bool {
        let (mut one, mut other) = (Datagram::new(), Datagram::new());
        laptop.initiate(&mut one, at(seconds));
        let opened = gateway.open(one.bytes().into(), ADDRESS, &mut other, at(seconds));
        if !matches!(opened, Opened::Answer { .. }) {
            return false;
        }
        let answer = other.bytes().into();
        let opened = laptop.open(answer, ADDRESS, &mut one, at(seconds));
        matches!(opened, Opened::Answer { proven: true })
    }

    /// T32: the gateway has seen a handshake from next year; the laptop's clock has gone back.
    #[test]
    fn t32_a_clock_that_went_back_is_no_dead_end() {
        let next_year = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            + YEAR;
        let mut gateway = tunnel(GATEWAY, LAPTOP, Duration::ZERO);
        let mut before = tunnel(LAPTOP, GATEWAY, next_year);
        assert!(handshake(&mut before, &mut gateway, 101));
        assert!(before.last_stamp() > next_year);

        let mut forgetful = tunnel(LAPTOP, GATEWAY, Duration::ZERO);
        assert!(!handshake(&mut forgetful, &mut gateway, 102));
        let mut after = tunnel(LAPTOP, GATEWAY, before.last_stamp());
        assert!(handshake(&mut after, &mut gateway, 103));
    }

    #[test]
    fn a_kick_is_empty_authenticated_and_needs_a_session() {
        let mut gateway = tunnel(GATEWAY, LAPTOP, Duration::ZERO);
        let mut laptop = tunnel(LAPTOP, GATEWAY, Duration::ZERO);
        let (mut kick, mut answer) = (Datagram::new(), Datagram::new());
        assert!(!laptop.kick(&mut kick, at(101)));
        assert!(handshake(&mut laptop, &mut gateway, 102));
        assert!(laptop.kick(&mut kick, at(103)));
        assert_eq!(kick.bytes().len(), WireGuard::OVERHEAD);
        let opened = gateway.open(kick.bytes().into(), ADDRESS, &mut answer, at(103));
        assert!(matches!(opened, Opened::Alive));
        // A copy of it is a replay.
        let opened = gateway.open(kick.bytes().into(), ADDRESS, &mut answer, at(104));
        assert!(matches!(opened, Opened::Refused));
        laptop.reset(at(105));
        assert!(!laptop.kick(&mut kick, at(106)));
    }
}
