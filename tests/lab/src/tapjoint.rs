//! The tap joint: joins a tap device with a frame link, so that a namespace can play the guest where
//! there is no hardware virtualisation, and the kernel's own TCP can load the gate. It stands where
//! the VMM stands and speaks to the supervisor as the VMM does.
//!
//! One thread. Super-frames pass whole both ways; while the link is full, the tap is not read, and
//! the kernel's own queue pushes back on the sender.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::epoll,
    io::{Errno, read, writev},
};
use sekisho_control::{Channel, ChannelError, Command, Port, Report};
use sekisho_framelink::{
    BATCH, FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Offloads,
    Rules, Segment, SeqPacket,
};

use crate::{
    Netns,
    tap::{grant_offloads, open_tap, set_carrier},
};

/// Apart by an odd number of cache lines, so that the starts of the slots do not share a few sets.
const STRIDE: usize = (MAX_MESSAGE + 64).next_multiple_of(64);

/// What the gate may leave to the guest's kernel.
const OFFLOADS: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    uso: false,
};

/// What the tap joint is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the tap.
    #[arg(long)]
    pub tap: String,
    /// The namespace it is made in; the joint's own where not given.
    #[arg(long)]
    pub netns: Option<PathBuf>,
    /// The frame link; it may also come later by `Attach`.
    #[arg(long, value_name = "fd:N")]
    pub link: Option<String>,
    /// Channel to the supervisor. Without it the joint ends with its link.
    #[arg(long, value_name = "fd:N")]
    pub control: Option<String>,
    /// MTU of the guest's network.
    #[arg(long, default_value_t = crate::address::INNER_MTU)]
    pub mtu: u16,
}

/// Why the tap joint ended.
#[derive(Debug, thiserror::Error)]
pub enum JointError {
    /// A descriptor on the command line is not one.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// The namespace, the tap or the event loop failed.
    #[error("Could not {doing}: {source}.")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The link is no frame link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The supervisor's channel is broken.
    #[error(transparent)]
    Control(#[from] ChannelError),
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> JointError {
    move |source| JointError::Io { doing, source }
}

fn errno(doing: &'static str) -> impl FnOnce(Errno) -> JointError {
    move |source| JointError::Io {
        doing,
        source: source.into(),
    }
}

/// Runs until the supervisor says so or is gone; without one, until the link is gone.
///
/// # Errors
/// [`JointError`] when something cannot be opened.
pub fn run(args: &Args) -> Result<(), JointError> {
    let link = args
        .link
        .as_deref()
        .map(sekisho_control::inherited)
        .transpose()?;
    let control = args
        .control
        .as_deref()
        .map(sekisho_control::inherited)
        .transpose()?;
    if let Some(netns) = &args.netns {
        // The only thread moves, and what it opens from now on is inside.
        Netns::join_path(netns).map_err(io("enter the guest's namespace"))?;
    }
    let tap = open_tap(&args.tap, true).map_err(io("open the tap"))?;
    grant_offloads(&tap).map_err(io("set the tap's offloads"))?;
    set_carrier(&tap, false).map_err(io("pull the tap's cable"))?;
    let mut joint = Joint {
        poll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno("make an epoll"))?,
        tap,
        link: None,
        control: control.map(Channel::from_fd).transpose()?,
        mtu: args.mtu,
        arena: FrameArena::new(BATCH),
        outgoing: Outgoing::new(),
    };
    joint.watch(Source::Tap, epoll::EventFlags::empty())?;
    if let Some(control) = &joint.control {
        let (source, flags) = (
            epoll::EventData::new_u64(Source::Control as u64),
            epoll::EventFlags::IN,
        );
        epoll::add(&joint.poll, control.as_fd(), source, flags)
            .map_err(errno("watch the supervisor"))?;
        control.send(&Report::Ready, &[])?;
    }
    if let Some(link) = link {
        joint.attach(link)?;
    }
    joint.serve()
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Source {
    Tap,
    Link,
    Control,
}

/// Whether to go on.
enum Next {
    On,
    End,
}

struct Joint {
    poll: OwnedFd,
    tap: OwnedFd,
    link: Option<SeqPacket>,
    control: Option<Channel<Report, Command>>,
    mtu: u16,
    arena: FrameArena,
    outgoing: Outgoing,
}

impl Joint {
    fn serve(&mut self) -> Result<(), JointError> {
        let mut events = Vec::with_capacity(4);
        loop {
            events.clear();
            match epoll::wait(
                &self.poll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(errno("wait for events")(error)),
            }
            for event in &events {
                let source = event.data.u64();
                let next = if source == Source::Control as u64 {
                    self.obey()?
                } else if source == Source::Link as u64 {
                    self.on_link(event.flags)?
                } else {
                    self.on_tap()?
                };
                if matches!(next, Next::End) {
                    return Ok(());
                }
            }
        }
    }

    /// The supervisor spoke.
    fn obey(&mut self) -> Result<Next, JointError> {
        loop {
            let Some(control) = &self.control else {
                return Ok(Next::On);
            };
            let received = match control.recv() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Next::On),
                Err(ChannelError::Closed) => return Ok(Next::End),
                Err(error) => return Err(error.into()),
            };
            match received.message {
                Command::Attach { port: Port::Link } => {
                    if let Some(link) = received.fds.into_iter().next() {
                        self.attach(link)?;
                    }
                }
                Command::Shutdown | Command::PowerButton => {
                    let _ = control.send(
                        &Report::WorkEnded {
                            cause: "shutdown".into(),
                        },
                        &[],
                    );
                    return Ok(Next::End);
                }
                _ => {}
            }
        }
    }

    fn attach(&mut self, socket: OwnedFd) -> Result<(), JointError> {
        self.detach();
        self.link = Some(SeqPacket::from_fd(
            socket,
            Rules {
                offloads: OFFLOADS,
                mtu: self.mtu,
            },
        )?);
        if let Some(link) = &self.link {
            let source = epoll::EventData::new_u64(Source::Link as u64);
            epoll::add(&self.poll, link.as_fd(), source, epoll::EventFlags::IN)
                .map_err(errno("watch the link"))?;
        }
        self.carrier(true)
    }

    /// Forgets the link; what waited for it is lost, as on a pulled cable.
    fn detach(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = epoll::delete(&self.poll, link.as_fd());
        }
        self.outgoing.clear();
    }

    fn carrier(&mut self, up: bool) -> Result<(), JointError> {
        set_carrier(&self.tap, up).map_err(io("plug or pull the tap's cable"))?;
        self.watch_again(
            Source::Tap,
            if up {
                epoll::EventFlags::IN
            } else {
                epoll::EventFlags::empty()
            },
        )?;
        if let Some(control) = &self.control {
            // A supervisor that does not read hears nothing; frames matter more.
            let _ = control.send(&Report::Link { up }, &[]);
        }
        Ok(())
    }

    fn lost(&mut self) -> Result<Next, JointError> {
        self.detach();
        self.carrier(false)?;
        Ok(if self.control.is_some() {
            Next::On
        } else {
            Next::End
        })
    }

    /// Frames of the guest: read until there are none or the batch is full, then sent at once.
    fn on_tap(&mut self) -> Result<Next, JointError> {
        let Some(link) = &mut self.link else {
            return Ok(Next::On);
        };
        self.outgoing
            .fill(&self.tap)
            .map_err(errno("read the tap"))?;
        match self.outgoing.send(link) {
            Ok(()) if self.outgoing.is_empty() => Ok(Next::On),
            Ok(()) => {
                self.watch_again(Source::Tap, epoll::EventFlags::empty())?;
                self.watch_again(Source::Link, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
                Ok(Next::On)
            }
            Err(_) => self.lost(),
        }
    }

    /// Frames for the guest, or room for what waits.
    fn on_link(&mut self, flags: epoll::EventFlags) -> Result<Next, JointError> {
        let Some(link) = &mut self.link else {
            return Ok(Next::On);
        };
        if flags.contains(epoll::EventFlags::OUT) && !self.outgoing.is_empty() {
            if self.outgoing.send(link).is_err() {
                return self.lost();
            }
            if self.outgoing.is_empty() {
                self.watch_again(Source::Link, epoll::EventFlags::IN)?;
                self.watch_again(Source::Tap, epoll::EventFlags::IN)?;
            }
        }
        let Some(link) = &mut self.link else {
            return Ok(Next::On);
        };
        match link.recv_batch(&mut self.arena) {
            Ok(_) => {
                for frame in self.arena.frames() {
                    let header = frame.hdr.emit();
                    // A tap that is down or full loses the frame, as a cable would.
                    let _ = writev(
                        &self.tap,
                        &[IoSlice::new(&header), IoSlice::new(frame.frame)],
                    );
                }
                Ok(Next::On)
            }
            Err(_) => self.lost(),
        }
    }

    fn watch(&self, source: Source, flags: epoll::EventFlags) -> Result<(), JointError> {
        epoll::add(
            &self.poll,
            &self.tap,
            epoll::EventData::new_u64(source as u64),
            flags,
        )
        .map_err(errno("watch the tap"))
    }

    fn watch_again(&self, source: Source, flags: epoll::EventFlags) -> Result<(), JointError> {
        let data = epoll::EventData::new_u64(source as u64);
        match (source, &self.link) {
            (Source::Link, Some(link)) => epoll::modify(&self.poll, link.as_fd(), data, flags),
            (Source::Tap, _) => epoll::modify(&self.poll, &self.tap, data, flags),
            _ => Ok(()),
        }
        .map_err(errno("watch the tap and the link"))
    }
}

/// Messages read from the tap that the link has not taken yet.
struct Outgoing {
    storage: Box<[u8]>,
    lengths: [usize; BATCH],
    filled: usize,
    sent: usize,
}

impl Outgoing {
    fn new() -> Self {
        Self {
            storage: vec![0; BATCH * STRIDE].into_boxed_slice(),
            lengths: [0; BATCH],
            filled: 0,
            sent: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    fn clear(&mut self) {
        (self.filled, self.sent) = (0, 0);
    }

    /// Reads frames until the tap has none or the batch is full. Only called when all is sent.
    fn fill(&mut self, tap: impl AsFd) -> Result<(), Errno> {
        if !self.is_empty() {
            return Ok(());
        }
        self.clear();
        while self.filled < BATCH {
            let start = self.filled * STRIDE;
            let slot = &mut self.storage[start..start + MAX_MESSAGE];
            match read(&tap, slot) {
                Ok(length) if length >= HEADER_LEN + MIN_FRAME => {
                    self.lengths[self.filled] = length;
                    self.filled += 1;
                }
                Ok(_) | Err(Errno::INTR) => {}
                // EIO: the interface is down.
                Err(Errno::AGAIN | Errno::IO) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(&mut self, link: &mut SeqPacket) -> Result<(), LinkError> {
        let waiting = self.filled - self.sent;
        let pieces: [[Segment<'_>; 1]; BATCH] = std::array::from_fn(|index| {
            let slot = (self.sent + index).min(BATCH - 1);
            let length = if index < waiting {
                self.lengths[slot]
            } else {
                0
            };
            [Segment::from(
                &self.storage[slot * STRIDE..slot * STRIDE + length],
            )]
        });
        let messages: [Message<'_>; BATCH] = std::array::from_fn(|index| &pieces[index][..]);
        self.sent += link.send_batch(&messages[..waiting])?;
        Ok(())
    }
}
