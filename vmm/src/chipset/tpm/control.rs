//! swtpm's control channel, and all that is done by it before the guest starts.
//!
//! Source: `swtpm_ioctls`(3): a command code and its data, big-endian; the answer starts with a
//! `TPM_RESULT`, which is 0 where the command was obeyed, and ends with it where not.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use thiserror::Error;

use super::command::BadResponse;
use super::crb::BUFFER_LEN;

const GET_CAPABILITY: u32 = 0x01;
const INIT: u32 = 0x02;
const SHUTDOWN: u32 = 0x03;
const GET_ESTABLISHED: u32 = 0x04;
const SET_LOCALITY: u32 = 0x05;
const CANCEL: u32 = 0x09;
const STOP: u32 = 0x0e;
const SET_DATAFD: u32 = 0x10;
const SET_BUFFERSIZE: u32 = 0x11;

/// Bits of what [`GET_CAPABILITY`] answers, for what is used here.
const CAPABILITIES: [(u64, &str); 8] = [
    (1, "CMD_INIT"),
    (1 << 1, "CMD_SHUTDOWN"),
    (1 << 2, "CMD_GET_TPMESTABLISHED"),
    (1 << 3, "CMD_SET_LOCALITY"),
    (1 << 5, "CMD_CANCEL_TPM_CMD"),
    (1 << 10, "CMD_STOP"),
    (1 << 12, "CMD_SET_DATAFD"),
    (1 << 13, "CMD_SET_BUFFERSIZE"),
];
/// The longest answer used here: a result and three numbers.
const ANSWER_MAX: usize = 16;
/// Length of a `TPM_RESULT`.
const RESULT_LEN: usize = 4;

/// How long swtpm may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For an answer on the control channel: a matter of milliseconds, on a busy machine of some more;
    /// an INIT reads the state from the disk.
    pub control: Duration,
    /// For a command: Linux gives the slowest ones, which make keys, five minutes; after that nobody
    /// waits any more.
    pub command: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            control: Duration::from_secs(10),
            command: Duration::from_mins(5),
        }
    }
}

/// What is wrong with swtpm.
#[derive(Debug, Error)]
pub enum TpmError {
    /// A socket fails.
    #[error("swtpm cannot be spoken to ({what}): {source}")]
    Socket {
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// It is gone.
    #[error("swtpm has closed its {0}: it ended, or somebody ended it")]
    Gone(&'static str),
    /// It does not answer.
    #[error(
        "swtpm has not answered {what} within {limit:?}: it hangs, or serves another machine already"
    )]
    Silent {
        /// What was asked.
        what: &'static str,
        /// How long it was waited.
        limit: Duration,
    },
    /// It says no.
    #[error("swtpm refuses {what} with error {code:#x}: its own log tells why")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// `TPM_RESULT`.
        code: u32,
    },
    /// It is too old, or not a TPM 2.0's.
    #[error("this swtpm has no {0}: use version 0.7 or later")]
    Lacks(&'static str),
    /// It cannot have the size of buffer that the interface has.
    #[error(
        "swtpm has buffers of {0} bytes where it was told {BUFFER_LEN}: is it one for TPM 2.0?"
    )]
    Buffer(u32),
    /// It spoke without being asked.
    #[error("swtpm sent on its {0} what nobody asked for")]
    Unasked(&'static str),
    /// Its answer is none.
    #[error("swtpm is not to be believed: {0}")]
    Answer(#[from] BadResponse),
}

fn socket_error(what: &'static str) -> impl Fn(Errno) -> TpmError {
    move |error| TpmError::Socket {
        what,
        source: error.into(),
    }
}

/// An swtpm that is ready for the guest: reset, and at locality 0.
#[derive(Debug)]
pub struct Swtpm {
    pub(super) control: Control,
    /// Where commands and responses go.
    pub(super) data: OwnedFd,
    /// Whether a dynamic launch has happened.
    pub(super) established: bool,
    pub(super) patience: Patience,
}

impl Swtpm {
    /// Takes swtpm over by its control channel, whatever state the last machine left it in, and resets
    /// the TPM, as the power does.
    pub fn open(control: OwnedFd, patience: Patience) -> Result<Self, TpmError> {
        rustix::io::ioctl_fionbio(&control, true).map_err(socket_error("control channel"))?;
        let control = Control {
            socket: control,
            limit: patience.control,
        };
        let capabilities = control.capabilities()?;
        for (bit, name) in CAPABILITIES {
            if capabilities & bit == 0 {
                return Err(TpmError::Lacks(name));
            }
        }
        // A machine that was killed left it running; then its buffers would not change.
        control.tell("CMD_STOP", STOP, &[])?;
        control.set_buffer_size()?;
        let data = control.data_channel()?;
        control.tell("CMD_INIT", INIT, &0u32.to_be_bytes())?;
        // The locality outlives a reset.
        control.tell("CMD_SET_LOCALITY", SET_LOCALITY, &[0])?;
        let established = control.ask::<8>("CMD_GET_TPMESTABLISHED", GET_ESTABLISHED, &[])?;
        Ok(Self {
            control,
            data,
            established: established[RESULT_LEN] != 0,
            patience,
        })
    }

    /// Whether a dynamic launch has happened.
    pub fn established(&self) -> bool {
        self.established
    }
}

/// The control channel.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) socket: OwnedFd,
    limit: Duration,
}

impl Control {
    fn capabilities(&self) -> Result<u64, TpmError> {
        const WHAT: &str = "CMD_GET_CAPABILITY";
        self.send(WHAT, GET_CAPABILITY, &[], None)?;
        let mut answer = [0; 8];
        self.receive(WHAT, &mut answer)?;
        Ok(u64::from_be_bytes(answer))
    }

    /// The TPM is to have buffers of the size that the guest's interface has.
    fn set_buffer_size(&self) -> Result<(), TpmError> {
        let size = u32::try_from(BUFFER_LEN).unwrap_or(0);
        let wanted = size.to_be_bytes();
        let answer: [u8; 16] = self.ask("CMD_SET_BUFFERSIZE", SET_BUFFERSIZE, &wanted)?;
        let [_, _, _, _, b0, b1, b2, b3, ..] = answer;
        match u32::from_be_bytes([b0, b1, b2, b3]) {
            got if got == size => Ok(()),
            other => Err(TpmError::Buffer(other)),
        }
    }

    /// Makes a channel for commands and hands swtpm its end.
    fn data_channel(&self) -> Result<OwnedFd, TpmError> {
        const WHAT: &str = "CMD_SET_DATAFD";
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(socket_error("data channel"))?;
        // Only our end: swtpm's blocks.
        rustix::io::ioctl_fionbio(&ours, true).map_err(socket_error("data channel"))?;
        self.send(WHAT, SET_DATAFD, &[], Some(theirs.as_fd()))?;
        self.outcome::<RESULT_LEN>(WHAT)?;
        Ok(ours)
    }

    /// Asks for what is answered by a result alone.
    fn tell(&self, what: &'static str, code: u32, data: &[u8]) -> Result<(), TpmError> {
        self.ask::<RESULT_LEN>(what, code, data).map(drop)
    }

    fn ask<const N: usize>(
        &self,
        what: &'static str,
        code: u32,
        data: &[u8],
    ) -> Result<[u8; N], TpmError> {
        self.send(what, code, data, None)?;
        self.outcome(what)
    }

    /// Takes an answer of `N` bytes, or a shorter one that is an error.
    fn outcome<const N: usize>(&self, what: &'static str) -> Result<[u8; N], TpmError> {
        const { assert!(N >= RESULT_LEN && N <= ANSWER_MAX) };
        let mut answer = [0; N];
        let (result, rest) = answer.split_at_mut(RESULT_LEN);
        self.receive(what, result)?;
        let code = result
            .iter()
            .fold(0, |code, byte| code << 8 | u32::from(*byte));
        if code != 0 {
            return Err(TpmError::Refused { what, code });
        }
        self.receive(what, rest)?;
        Ok(answer)
    }

    /// Asks for a cancel, whose answer [`Control::take_result`] finds later: swtpm may be busy with the
    /// command itself.
    pub(super) fn request_cancel(&self) -> Result<(), TpmError> {
        self.send("CMD_CANCEL_TPM_CMD", CANCEL, &[], None)
    }

    /// Takes the result of a cancel into `result`; whether it is whole. What it says does not matter: the
    /// command has its own outcome.
    pub(super) fn take_result(&self, result: &mut Vec<u8>) -> Result<bool, TpmError> {
        let mut piece = [0; RESULT_LEN];
        let room = RESULT_LEN.saturating_sub(result.len());
        let count = receive(&self.socket, "control channel", &mut piece[..room])?;
        result.extend(&piece[..count]);
        Ok(result.len() == RESULT_LEN)
    }

    /// Waits this long for answers from now on.
    pub(super) fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Takes the power from the TPM; with `end` swtpm itself ends.
    pub(super) fn power_off(&self, end: bool) -> Result<(), TpmError> {
        if end {
            self.tell("CMD_SHUTDOWN", SHUTDOWN, &[])
        } else {
            self.tell("CMD_STOP", STOP, &[])
        }
    }

    fn send(
        &self,
        what: &'static str,
        code: u32,
        data: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), TpmError> {
        let message = [&code.to_be_bytes(), data].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let iov = [IoSlice::new(&message)];
        let sent = rustix::net::sendmsg(&self.socket, &iov, &mut ancillary, SendFlags::NOSIGNAL);
        match sent {
            Ok(count) if count == message.len() => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(TpmError::Gone("control channel")),
            Err(error) if error != Errno::AGAIN => Err(socket_error(what)(error)),
            // Messages of some bytes fill its socket when it has not read for a thousand of them.
            _ => Err(TpmError::Silent {
                what,
                limit: Duration::ZERO,
            }),
        }
    }

    fn receive(&self, what: &'static str, answer: &mut [u8]) -> Result<(), TpmError> {
        let end = Instant::now() + self.limit;
        let mut filled = 0;
        while filled < answer.len() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let limit = self.limit;
                return Err(TpmError::Silent { what, limit });
            }
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(socket_error(what)(error)),
            }
            filled += receive(&self.socket, "control channel", &mut answer[filled..])?;
        }
        Ok(())
    }
}

/// Reads what is there now, which may be nothing.
pub(super) fn receive(
    socket: &OwnedFd,
    name: &'static str,
    room: &mut [u8],
) -> Result<usize, TpmError> {
    match rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT) {
        Ok((_, 0)) if !room.is_empty() => Err(TpmError::Gone(name)),
        Ok((_, count)) => Ok(count),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(Errno::CONNRESET) => Err(TpmError::Gone(name)),
        Err(error) => Err(socket_error(name)(error)),
    }
}
