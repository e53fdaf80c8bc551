//! openconnect as a child: what it is told.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sekisho_control::{Channel, pair};

use super::handover::{Connected, Silence};
use super::place::{CERTIFICATE, HANDOVER, KEY};
use crate::program::Program;

const PROGRAM: &str = "/usr/sbin/openconnect";
/// TLS 1.3 and nothing else (`GnuTLS`, "Priority strings").
const PRIORITY: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3";
/// A gateway as openconnect must know it.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) address: SocketAddrV4,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub(super) pin: [u8; 32],
}

/// Starts it against this gateway; with it the channel of its script. The gateway is asked for a sign
/// of life every third of `silence`.
pub(super) fn start(
    gateway: &Gateway,
    silence: Duration,
) -> io::Result<(Program, Channel<Silence, Connected>)> {
    let (ours, theirs) = pair().map_err(io::Error::other)?;
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments(gateway, theirs.as_raw_fd(), silence))
        .env_clear()
        // The distribution's own ideas of which ciphers are good are the host's, not ours.
        .env("GNUTLS_SYSTEM_PRIORITY_FILE", "/dev/null")
        .env("PATH", "/usr/sbin:/usr/bin");
    let program = Program::start("openconnect", &mut command, Some(theirs.as_fd()))?;
    let handover = Channel::from_fd(ours).map_err(io::Error::other)?;
    Ok((program, handover))
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
