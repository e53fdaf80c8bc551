//! openconnect as a child: its words, its life, and its last words.

use std::io::{self, Read as _};
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use sekisho_control::{Channel, pair};

use super::handover::{Connected, Silence};
use super::place::{CERTIFICATE, HANDOVER, KEY};

const PROGRAM: &str = "/usr/sbin/openconnect";
/// TLS 1.3 and nothing else (`GnuTLS`, "Priority strings").
const PRIORITY: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3";
/// Bytes of its output that are logged in one life: a gateway may send banners without end.
const MAX_WORDS: usize = 4096;

/// A gateway as openconnect must know it.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) address: SocketAddrV4,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub(super) pin: [u8; 32],
}

/// A running openconnect. Its end is ours: dropping it kills it, and so does our own death.
#[derive(Debug)]
pub(super) struct Client {
    child: Child,
    pidfd: OwnedFd,
    words: io::PipeReader,
    said: usize,
    handover: Channel<Silence, Connected>,
}

impl Client {
    /// Starts it against this gateway. The gateway is asked for a sign of life every third of
    /// `silence`.
    pub(super) fn start(gateway: &Gateway, silence: Duration) -> io::Result<Self> {
        let (ours, theirs) = pair().map_err(io::Error::other)?;
        let (words, output) = io::pipe()?;
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments(gateway, theirs.as_raw_fd(), silence))
            .env_clear()
            // The distribution's own ideas of which ciphers are good are the host's, not ours.
            .env("GNUTLS_SYSTEM_PRIORITY_FILE", "/dev/null")
            .env("PATH", "/usr/sbin:/usr/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let parent = rustix::process::getpid();
        let passed = theirs.as_raw_fd();
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec the closure only makes system calls (prctl, getppid, fcntl);
        // it takes no lock and does not allocate. The descriptor is open until `spawn` returns.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                fcntl_setfd(BorrowedFd::borrow_raw(passed), FdFlags::empty())?;
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        drop(theirs);
        let opened = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(errno.into());
            }
        };
        Ok(Self {
            child,
            pidfd,
            words,
            said: 0,
            handover: Channel::from_fd(ours).map_err(io::Error::other)?,
        })
    }

    /// Readable when it has ended.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when it says something; none once it has said too much.
    pub(super) fn words(&self) -> Option<BorrowedFd<'_>> {
        (self.said < MAX_WORDS).then(|| self.words.as_fd())
    }

    /// The channel of its script.
    pub(super) const fn handover(&self) -> &Channel<Silence, Connected> {
        &self.handover
    }

    /// Passes some of what it said on to the log, with nothing in it that a terminal would obey.
    pub(super) fn log(&mut self) {
        let mut buffer = [0; 1024];
        let room = buffer.len().min(MAX_WORDS - self.said);
        match self.words.read(&mut buffer[..room]) {
            Ok(read @ 1..) => {
                self.said += read;
                for line in String::from_utf8_lossy(&buffer[..read]).lines() {
                    tracing::info!("openconnect: {}", line.escape_debug());
                }
            }
            // Closed: it will end, which its pidfd tells.
            _ => self.said = MAX_WORDS,
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("openconnect ended: {status}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(gateway: &Gateway, handover: i32, silence: Duration) -> Vec<String> {
    let pin = STANDARD.encode(gateway.pin);
    let ask = (silence.as_secs() / 3).max(1);
    let address = gateway.address;
    [
        "--protocol=anyconnect",
        "--quiet",
        "--non-inter",
        "--disable-ipv6",
        "--no-proxy",
        // UDP would not get out.
        "--no-dtls",
        // Compression before encryption tells lengths of secrets.
        "--no-deflate",
        // The pin and nothing else: no authority of the distribution is believed.
        "--no-system-trust",
        &format!("--servercert=pin-sha256:{pin}"),
        &format!("--gnutls-priority={PRIORITY}"),
        &format!("--certificate=/{CERTIFICATE}"),
        &format!("--sslkey=/{KEY}"),
        &format!("--force-dpd={ask}"),
        // It is begun anew instead, with a connection of its own.
        "--reconnect-timeout=1",
        "--script-tun",
        &format!("--script=exec /{HANDOVER} handover --to fd:{handover}"),
        &format!("https://{}:{}/", address.ip(), address.port()),
    ]
    .map(str::to_owned)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_to_believe_the_pin_alone() {
        let gateway = Gateway {
            name: "honcho-tls".into(),
            address: "203.0.113.10:443".parse().unwrap(),
            pin: [7; 32],
        };
        let words = arguments(&gateway, 9, Duration::from_secs(10));
        let pin = "--servercert=pin-sha256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        for word in [
            pin,
            "--no-system-trust",
            "--no-dtls",
            "--gnutls-priority=NORMAL:-VERS-ALL:+VERS-TLS1.3",
            "--force-dpd=3",
            "https://203.0.113.10:443/",
        ] {
            assert!(words.iter().any(|have| have == word), "{word}");
        }
    }
}
