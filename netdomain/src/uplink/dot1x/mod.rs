//! 802.1X on cables: EAP-TLS by `wpa_supplicant` in the uplink's namespace, kept by a process of its
//! own.
//!
//! The kernel knows nothing of a cable's 802.1X, so the supplicant must be asked. The keeper asks it,
//! over its control interface in a folder that only the two have, and tells the uplink one word out
//! of five ([`Standing`]). So the uplink, which holds the paths, parses nothing that a network worded.
//!
//! Each carrier of each port has a supplicant of its own, which ends with it: what was agreed over
//! one cable cannot be taken for another's.
//!
//! | module | what |
//! |---|---|
//! | `papers` | the laptop's file, and the authority that the policy pins |
//! | `config` | the supplicant's configuration, a pure function |
//! | `message` | what uplink and keeper say to each other |
//! | `keeper` | the keeper's loop |
//! | `supplicant` | one running supplicant, asked |
//! | `status` | what its answers mean |
//! | `call` | the first call to the authenticator |

mod call;
mod config;
mod keeper;
mod message;
mod papers;
mod status;
mod supplicant;

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::getpid,
};
use sekisho_control::{Channel, ChannelError};
use sekisho_policy::Dot1x;

use self::{
    message::{Carrier, FromKeeper, ToKeeper},
    papers::Papers,
};
use super::wifi::sealed;

pub use keeper::{Dot1xArgs, Dot1xKeeperError, run as keep};
pub(crate) use status::Standing;

/// Reads `data` as what a supplicant answers, or as what uplink and keeper say to each other: see
/// [`crate::fuzzing`].
///
/// # Panics
/// When less than was agreed authenticates a port, or a message does not survive being said again.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => status::fuzz(rest),
        1 => crate::fuzzing::said_again::<ToKeeper>(rest),
        _ => crate::fuzzing::said_again::<FromKeeper>(rest),
    }
}

/// Why there is no 802.1X. A laptop without it is remote wherever it is.
#[derive(Debug, thiserror::Error)]
pub enum Dot1xError {
    /// A file cannot be used.
    #[error("no 802.1X: {path}: {why}")]
    Papers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The policy wants it, and the laptop was given nothing for it.
    #[error(
        "no 802.1X: the policy demands it, and the supervisor's configuration names no `dot1x` file"
    )]
    Missing,
    /// The keeper cannot be started.
    #[error("the keeper of the wired supplicants cannot be started: {0}")]
    Keeper(#[from] io::Error),
    /// The channel to it cannot be made.
    #[error("the keeper of the wired supplicants cannot be spoken to: {0}")]
    Channel(#[from] ChannelError),
}

/// The uplink's end of the channel to the keeper.
pub(super) struct Keeper {
    channel: Channel<ToKeeper, FromKeeper>,
    next: u64,
    carriers: BTreeMap<Carrier, u32>,
}

/// Starts the keeper with the laptop's papers in `file`.
pub(super) fn start(dot1x: &Dot1x, file: Option<&Path>) -> Result<Keeper, Dot1xError> {
    let file = file.ok_or(Dot1xError::Missing)?;
    let papers = Papers::read(file, &dot1x.radius.ca_sha256.0)?;
    let config = sealed(&config::configuration(&papers, dot1x.radius.name.as_str()))?;
    let (own, keepers) = sekisho_control::pair()?;
    spawn(Stdio::from(config), keepers)?;
    Ok(Keeper {
        channel: Channel::from_fd(own)?,
        next: 0,
        carriers: BTreeMap::new(),
    })
}

fn spawn(config: Stdio, channel: OwnedFd) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sekisho-netdomain")
        .args([
            "dot1x",
            "--parent",
            &getpid().as_raw_nonzero().to_string(),
            "--uplink",
            &format!("fd:{}", channel.as_raw_fd()),
        ])
        .stdin(config);
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec the closure only makes a system call (fcntl) on a descriptor
    // that it owns; it takes no lock and does not allocate.
    unsafe {
        command.pre_exec(move || Ok(fcntl_setfd(&channel, FdFlags::empty())?));
    }
    // Its end is seen on the channel; it ends with this process.
    command.spawn().map(drop)
}

impl Keeper {
    /// A port has a carrier.
    pub(super) fn begin(&mut self, index: u32, port: &str) -> Result<(), ChannelError> {
        let carrier = Carrier(self.next);
        self.next += 1;
        self.carriers.insert(carrier, index);
        let port = port.to_owned();
        self.channel.send(&ToKeeper::Begin { carrier, port }, &[])
    }

    /// It lost it.
    pub(super) fn end(&mut self, index: u32) -> Result<(), ChannelError> {
        let ended = self.carriers.extract_if(.., |_, of| *of == index);
        let ended: Vec<Carrier> = ended.map(|(carrier, _)| carrier).collect();
        for carrier in ended {
            self.channel.send(&ToKeeper::End { carrier }, &[])?;
        }
        Ok(())
    }

    /// What is new of a port that still has the carrier it is about.
    pub(super) fn read(&mut self) -> Result<Option<(u32, Standing)>, ChannelError> {
        while let Some(received) = self.channel.recv()? {
            let FromKeeper { carrier, standing } = received.message;
            if let Some(index) = self.carriers.get(&carrier) {
                return Ok(Some((*index, standing)));
            }
        }
        Ok(None)
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
