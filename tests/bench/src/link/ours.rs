//! The frame link as VMM and gate use it, over a socket or through a ring.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use sekisho_framelink::{
    BATCH, FrameArena, FrameLink, HEADER_LEN, LinkError, Message, Offloads, Rules, Segment,
    SeqPacket,
};
use sekisho_ring::{Handshake, Offer};

use super::{End, Size};
use crate::BenchError;

const RULES: Rules = Rules {
    offloads: Offloads {
        csum: true,
        tso4: true,
        tso6: true,
        uso: true,
    },
    mtu: 1500,
};

/// One end.
pub(super) struct Ours {
    link: Box<dyn FrameLink>,
    /// What tells that there is room again.
    room: PollFlags,
    arena: FrameArena,
    header: [u8; HEADER_LEN],
    frame: Vec<u8>,
    /// The last batch did not fill the arena: there is nothing more now.
    drained: bool,
}

impl Ours {
    pub(super) fn over_socket(socket: OwnedFd, size: Size) -> Result<Self, BenchError> {
        let link = SeqPacket::from_fd(socket, RULES)?;
        Ok(Self::new(Box::new(link), PollFlags::OUT, size))
    }

    pub(super) fn over_ring(socket: OwnedFd, size: Size) -> Result<Self, BenchError> {
        let refused = |refused| BenchError::system("make a ring")(std::io::Error::other(refused));
        let mut offer = Offer::new(socket, RULES).map_err(refused)?;
        loop {
            wait(offer.as_fd(), PollFlags::IN)?;
            offer = match offer.finish().map_err(refused)? {
                Handshake::Ready(link) => return Ok(Self::new(link, PollFlags::IN, size)),
                Handshake::Waiting(offer) => offer,
            };
        }
    }

    fn new(link: Box<dyn FrameLink>, room: PollFlags, size: Size) -> Self {
        Self {
            link,
            room,
            arena: FrameArena::new(size.batch()),
            header: size.header(),
            frame: vec![0; size.bytes()],
            drained: false,
        }
    }
}

/// Waits until the link takes more.
fn make_room(
    link: &mut dyn FrameLink,
    room: PollFlags,
    arena: &mut FrameArena,
) -> Result<(), BenchError> {
    wait(link.as_fd(), room)?;
    if room == PollFlags::IN {
        // What woke this end is a bell, which receiving takes off. Nobody sends to a sender.
        link.recv_batch(arena)?;
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> Result<(), BenchError> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    poll(&mut fds, None)
        .map(drop)
        .map_err(BenchError::system("wait for the frame link"))
}
impl End for Ours {
    fn send(&mut self, frames: usize) -> Result<usize, BenchError> {
        let pieces = [
            Segment::from(&self.header[..]),
            Segment::from(&self.frame[..]),
        ];
        let batch: [Message<'_>; BATCH] = [&pieces; BATCH];
        let batch = batch.get(..frames).unwrap_or(&batch);
        loop {
            match self.link.send_batch(batch)? {
                0 => make_room(&mut *self.link, self.room, &mut self.arena)?,
                sent => return Ok(sent),
            }
        }
    }

    fn take(&mut self) -> Result<usize, BenchError> {
        loop {
            if self.drained {
                wait(self.link.as_fd(), PollFlags::IN)?;
            }
            let taken = match self.link.recv_batch(&mut self.arena) {
                Err(LinkError::Closed) => return Ok(0),
                other => other?,
            };
            self.drained = taken < self.arena.slots();
            if taken > 0 {
                return Ok(taken);
            }
        }
    }
}
