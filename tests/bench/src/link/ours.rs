//! The frame link as VMM and gate use it.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use sekisho_framelink::{
    BATCH, FrameArena, FrameLink, HEADER_LEN, LinkError, Message, Offloads, Rules, Segment,
    SeqPacket,
};

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
    link: SeqPacket,
    arena: FrameArena,
    header: [u8; HEADER_LEN],
    frame: Vec<u8>,
    /// The last batch did not fill the arena: there is nothing more now.
    drained: bool,
}

impl Ours {
    pub(super) fn new(socket: OwnedFd, size: Size) -> Result<Self, BenchError> {
        Ok(Self {
            link: SeqPacket::from_fd(socket, RULES)?,
            arena: FrameArena::new(size.batch()),
            header: size.header(),
            frame: vec![0; size.bytes()],
            drained: false,
        })
    }

    fn wait(&self, events: PollFlags) -> Result<(), BenchError> {
        let mut fds = [PollFd::from_borrowed_fd(self.link.as_fd(), events)];
        poll(&mut fds, None)
            .map(drop)
            .map_err(BenchError::system("wait for the frame link"))
    }
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
                0 => self.wait(PollFlags::OUT)?,
                sent => return Ok(sent),
            }
        }
    }

    fn take(&mut self) -> Result<usize, BenchError> {
        loop {
            if self.drained {
                self.wait(PollFlags::IN)?;
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
