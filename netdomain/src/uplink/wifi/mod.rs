//! Wi-Fi: `wpa_supplicant` in the uplink's namespace, kept alive by a process of its own.
//!
//! The uplink writes the supplicant's configuration once, before its sandbox closes, into a sealed
//! memory file, and starts the keeper with it. From then on the two do not speak: whether a radio may be
//! used is told by the kernel alone, which calls a link operational (RFC 2863) when the supplicant
//! has authorised it, at the end of the four-way handshake.
//!
//! | module | what |
//! |---|---|
//! | `networks` | the person's file |
//! | `config` | the supplicant's configuration, a pure function |
//! | `keeper` | starts the supplicant, and starts it again |

mod config;
mod keeper;
mod networks;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    process::{Pid, PidfdFlags, getpid, pidfd_open},
};

use self::networks::{MAX_FILE, Networks};
use super::Endpoints;

pub(crate) use config::fuzz;
pub(super) use config::hex;
pub use keeper::{KeeperArgs, KeeperError, run as keep};
pub(super) use networks::Word;

/// Why there is no Wi-Fi.
#[derive(Debug, thiserror::Error)]
pub enum WifiError {
    /// The file of networks cannot be read.
    #[error("the Wi-Fi networks in {path} cannot be read: {why}")]
    Networks {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The keeper cannot be started.
    #[error("the keeper of wpa_supplicant cannot be started: {0}")]
    Keeper(#[source] io::Error),
}

/// Starts the keeper with all networks that the policy lets be joined. Gives the descriptor that is
/// readable when the keeper has ended; `None` where the policy knows no Wi-Fi.
pub(super) fn start(endpoints: &Endpoints, file: &Path) -> Result<Option<OwnedFd>, WifiError> {
    let Some(wifi) = &endpoints.wifi else {
        return Ok(None);
    };
    let networks = read(file).map_err(|why| WifiError::Networks {
        path: file.to_owned(),
        why,
    })?;
    let text = config::configuration(&networks.networks, &wifi.security, &wifi.denied);
    sealed(&text)
        .and_then(|file| spawn(file, &wifi.interfaces))
        .map(Some)
        .map_err(WifiError::Keeper)
}

fn read(path: &Path) -> Result<Networks, String> {
    let mut text = String::new();
    let limit = MAX_FILE as u64;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() > MAX_FILE {
        return Err(format!("longer than {MAX_FILE} bytes"));
    }
    toml::from_str(&text).map_err(|error| error.message().to_owned())
}

/// A file in memory that nobody changes any more: secrets are never written to a disk.
pub(super) fn sealed(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(
        "wpa_supplicant.conf",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

fn spawn(config: File, interfaces: &[String]) -> io::Result<OwnedFd> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sekisho-netdomain")
        .args([
            "supplicant",
            "--parent",
            &getpid().as_raw_nonzero().to_string(),
        ])
        .stdin(Stdio::from(config));
    if !interfaces.is_empty() {
        command.args(["--interfaces", &interfaces.join(",")]);
    }
    let keeper = command.spawn()?;
    let pid = Pid::from_raw(keeper.id().cast_signed()).ok_or(rustix::io::Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
