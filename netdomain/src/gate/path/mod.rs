//! The path: between admission and the sockets, in both directions.
//!
//! Out: one admitted super-packet is segmented, sealed into batches of equal datagrams, and each
//! batch leaves with one system call. In: datagrams are opened, and what is admitted is coalesced
//! into super-frames for the guest.

mod coalesce;
mod datagram;
mod mss;
mod segment;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_v6;
mod whole;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

pub use coalesce::{Coalescer, Deliver, Ethernet};
pub use datagram::{Inbox, enable_receive_offload, send as send_datagram};
pub use segment::{Segment, Segments};
pub use whole::{MAX_WHOLE, deliver_whole, send_whole, whole};

use super::admit::{Admitted, Scope};
use super::family::Family;
use super::packet::Packet;
use super::situation::{GatewayId, Situation};
use crate::moment::Moment;
use crate::tunnel::{Form, SealError, SegBatch, Tunnel};

/// Batches that may wait for a socket. The longest super-packet (123 segments of 536 bytes) takes
/// three; the rest is what a turn's small packets need.
const BATCHES: usize = 8;
/// Batches that must be free before another frame is read.
const RESERVE: usize = 3;

/// What takes the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// A gateway's UDP socket.
    Gateway,
    /// An engine's Unix socket, one packet a message.
    Engine,
    /// An engine's TUN device, one packet a write.
    Tun,
}

impl Outlet {
    /// The only datagrams that it may be given.
    pub const fn form(self) -> Form {
        match self {
            Self::Gateway => Form::Sealed,
            Self::Engine | Self::Tun => Form::Plain,
        }
    }
}

/// What became of the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// All are gone.
    All,
    /// The socket takes no more for now.
    Full,
}

/// For whom batches are sealed, and under what circumstances their packets were admitted. While it
/// stays the same it does not matter which socket they leave by: they are the gateway's to open
/// wherever they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// The gateway.
    pub gateway: GatewayId,
    /// The circumstances.
    pub scope: Scope,
}

impl Leave {
    /// What the situation gives; nothing while closed.
    pub const fn of(situation: &Situation) -> Option<Self> {
        match (situation, situation.scope()) {
            (Situation::Tunnelled { gateway, .. }, Some(scope)) => Some(Self {
                gateway: *gateway,
                scope,
            }),
            _ => None,
        }
    }
}

/// Sealed datagrams on their way out.
#[derive(Debug, Default)]
pub struct Path {
    leave: Option<Leave>,
    batches: [SegBatch; BATCHES],
    /// The oldest batch, and how many from there are in use.
    first: usize,
    used: usize,
    /// The device below cannot segment: batches go out datagram by datagram.
    single: bool,
    /// The kernel refused a datagram as longer than the way takes.
    too_long: bool,
    /// Datagrams that were dropped for want of room or by the kernel.
    pub dropped: u64,
}

impl Path {
    /// Whether there is room for the longest super-packet.
    pub const fn has_room(&self) -> bool {
        self.used + RESERVE <= BATCHES
    }

    /// Whether a batch waits that nothing more goes into: it should leave while it is still in the
    /// processor's cache.
    pub const fn is_ripe(&self) -> bool {
        self.used > 1 || (self.used == 1 && self.batches[self.first].is_closed())
    }

    /// Seals an admitted packet into the waiting batches.
    pub fn send<T: Tunnel, A: Family>(
        &mut self,
        admitted: &Admitted<Packet<'_, A>>,
        tunnel: &mut T,
        mtu: u16,
        now: Moment,
    ) -> Result<(), SealError> {
        for segment in Segments::new(admitted, mtu) {
            let len = tunnel.sealed_len(&segment);
            let Some(batch) = self.batch_for(len, T::FORM) else {
                self.dropped += 1;
                continue;
            };
            tunnel.seal(&segment, batch, now)?;
        }
        Ok(())
    }

    /// Gives the waiting batches to `socket`; what is not of the outlet's form is dropped, never sent.
    /// An error is the path's, not one datagram's: what waits stays for
    /// the next path, unless the circumstances change with it.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, outlet: Outlet) -> Result<Flushed, Errno> {
        while self.used > 0 {
            let batch = &mut self.batches[self.first];
            let sent = if batch.form() == outlet.form() {
                send_all(
                    socket,
                    outlet,
                    batch,
                    (&mut self.single, &mut self.too_long),
                )
            } else {
                Ok(batch.count() as u64)
            };
            match sent {
                Ok(lost) => self.dropped += lost,
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(Flushed::Full),
                Err(error) => return Err(error),
            }
            self.batches[self.first].clear();
            self.first = (self.first + 1) % BATCHES;
            self.used -= 1;
        }
        // The next batch takes the memory that the processor's cache knows.
        self.first = 0;
        Ok(Flushed::All)
    }

    /// Whether a datagram was refused as too long since this was last asked.
    pub const fn was_too_long(&mut self) -> bool {
        std::mem::replace(&mut self.too_long, false)
    }

    /// Packets have another length from now on: batches may leave whole again.
    pub const fn refit(&mut self) {
        self.single = false;
    }

    /// Whether something waits.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Drops what waits: there is no way for it any more.
    pub fn clear(&mut self) {
        for batch in &mut self.batches {
            self.dropped += batch.count() as u64;
            batch.clear();
        }
        self.used = 0;
    }

    /// The situation changed. What was admitted under other circumstances is dropped: an office's
    /// packet does not leave over a cafe's wire. The new path may be able to do what the old one
    /// could not.
    pub fn change(&mut self, leave: Option<Leave>) {
        if leave != self.leave {
            self.clear();
            self.leave = leave;
        }
        self.single = false;
    }

    fn batch_for(&mut self, len: usize, form: Form) -> Option<&mut SegBatch> {
        let last = (self.first + self.used.max(1) - 1) % BATCHES;
        let open = &self.batches[last];
        let at = if self.used > 0 && open.form() == form && open.fits(len) {
            last
        } else if self.used < BATCHES {
            self.used += 1;
            let next = (self.first + self.used - 1) % BATCHES;
            self.batches[next].begin(form);
            next
        } else {
            return None;
        };
        Some(&mut self.batches[at])
    }
}

/// Sends one batch, datagram by datagram where the kernel or the device does not segment, or where
/// they are an engine's. Returns how many datagrams were lost.
fn send_all(
    socket: BorrowedFd<'_>,
    outlet: Outlet,
    batch: &mut SegBatch,
    (single, too_long): (&mut bool, &mut bool),
) -> Result<u64, Errno> {
    if batch.is_empty() {
        return Ok(0);
    }
    match outlet {
        Outlet::Gateway => {}
        Outlet::Engine => return send_packets(socket, batch, send_datagram),
        Outlet::Tun => return send_packets(socket, batch, datagram::write_packet),
    }
    if !*single {
        match datagram::send_batch(socket, batch) {
            // A device without checksum offload (EIO before Linux 6.11), or a path MTU below the
            // segment (EINVAL, since Linux 6.14 EMSGSIZE). One by one the kernel cuts them.
            Err(error @ (Errno::IO | Errno::INVAL | Errno::MSGSIZE)) => {
                *too_long |= error != Errno::IO;
                *single = true;
            }
            Err(error) => return lost_or_failed(error),
            Ok(()) => return Ok(0),
        }
    }
    let mut lost = 0;
    for (index, datagram) in batch.bytes().chunks(batch.segment()).enumerate() {
        match send_datagram(socket, datagram) {
            Ok(()) => {}
            // Nothing of the batch is gone yet: it may wait.
            Err(Errno::AGAIN | Errno::NOBUFS) if index == 0 => return Err(Errno::AGAIN),
            Err(Errno::AGAIN | Errno::NOBUFS) => lost += 1,
            Err(error) => {
                *too_long |= error == Errno::MSGSIZE;
                lost += lost_or_failed(error)?;
            }
        }
    }
    Ok(lost)
}

/// Gives packets to an engine, one a message or a write. A Unix socket's queue is short (`net.unix.max_dgram_qlen`, ten by
/// default): what does not go in now waits, and nothing is lost.
fn send_packets(
    socket: BorrowedFd<'_>,
    batch: &mut SegBatch,
    send: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
) -> Result<u64, Errno> {
    while !batch.is_empty() {
        let next = batch.segment().min(batch.bytes().len());
        send(socket, &batch.bytes()[..next])?;
        batch.advance();
    }
    Ok(0)
}

/// An ICMP error that some earlier datagram drew is reported by the next call on the socket
/// (RFC 1122, section 4.1.3.3): one datagram's loss, forged by whoever likes, and no failure of the
/// path. A path that is truly gone shows by silence.
fn lost_or_failed(error: Errno) -> Result<u64, Errno> {
    match error {
        Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::MSGSIZE => Ok(1),
        error => Err(error),
    }
}
