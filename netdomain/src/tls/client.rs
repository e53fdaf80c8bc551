//! openconnect as a child: what it is told.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
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
    /// The name of its person there, where it demands a one-time password.
    pub(super) person: Option<String>,
}

/// How openconnect comes by the gateway's consent.
pub(super) enum Consent {
    /// By the laptop's certificate alone.
    Certificate,
    /// By the cookie that an earlier openconnect was given, to be read from here.
    Cookie(Stdio),
}

/// Starts it against this gateway; with it the channel of its script. The gateway is asked for a sign
/// of life every third of `silence`.
pub(super) fn start(
    gateway: &Gateway,
    silence: Duration,
    consent: Consent,
) -> io::Result<(Program, Channel<Silence, Connected>)> {
    let (ours, theirs) = pair().map_err(io::Error::other)?;
    let mut words = arguments(gateway);
    words.extend(tunnel_arguments(theirs.as_raw_fd(), silence));
    let input = match consent {
        Consent::Certificate => Stdio::null(),
        Consent::Cookie(input) => {
            words.push("--cookie-on-stdin".into());
            input
        }
    };
    let mut command = command(gateway, words);
    let passed = Some(theirs.as_fd());
    let program = Program::start_with("openconnect", &mut command, passed, input, None)?;
    let handover = Channel::from_fd(ours).map_err(io::Error::other)?;
    Ok((program, handover))
}

/// Starts it to sign a person in and no more: it asks for the password with a line that it does not
/// end, reads it from `input`, and gives what it got for it to `result`.
pub(super) fn sign_in(
    gateway: &Gateway,
    person: &str,
    input: Stdio,
    result: Stdio,
) -> io::Result<Program> {
    let mut words = arguments(gateway);
    words.extend(["--authenticate".into(), format!("--user={person}")]);
    let mut command = command(gateway, words);
    Program::start_with("openconnect", &mut command, None, input, Some(result))
}

fn command(gateway: &Gateway, words: Vec<String>) -> Command {
    let address = gateway.address;
    let mut command = Command::new(PROGRAM);
    command
        .args(words)
        .arg(format!("https://{}:{}/", address.ip(), address.port()))
        .env_clear()
        // The distribution's own ideas of which ciphers are good are the host's, not ours.
        .env("GNUTLS_SYSTEM_PRIORITY_FILE", "/dev/null")
        .env("PATH", "/usr/sbin:/usr/bin");
    command
}

/// What it is told whatever it is to do.
fn arguments(gateway: &Gateway) -> Vec<String> {
    let pin = STANDARD.encode(gateway.pin);
    [
        "--protocol=anyconnect",
        "--quiet",
        "--disable-ipv6",
        "--no-proxy",
        // The pin and nothing else: no authority of the distribution is believed.
        "--no-system-trust",
        &format!("--servercert=pin-sha256:{pin}"),
        &format!("--gnutls-priority={PRIORITY}"),
        &format!("--certificate=/{CERTIFICATE}"),
        &format!("--sslkey=/{KEY}"),
    ]
    .map(str::to_owned)
    .into()
}

/// What it is told where it is to carry packets.
fn tunnel_arguments(handover: i32, silence: Duration) -> [String; 7] {
    let ask = (silence.as_secs() / 3).max(1);
    [
        "--non-inter".into(),
        // UDP would not get out.
        "--no-dtls".into(),
        // Compression before encryption tells lengths of secrets.
        "--no-deflate".into(),
        format!("--force-dpd={ask}"),
        // It is begun anew instead, with a connection of its own.
        "--reconnect-timeout=1".into(),
        "--script-tun".into(),
        format!("--script=exec /{HANDOVER} handover --to fd:{handover}"),
    ]
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
            person: None,
        };
        let words = [
            arguments(&gateway),
            tunnel_arguments(9, Duration::from_secs(10)).into(),
        ]
        .concat();
        let pin = "--servercert=pin-sha256:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        for word in [
            pin,
            "--no-system-trust",
            "--no-dtls",
            "--gnutls-priority=NORMAL:-VERS-ALL:+VERS-TLS1.3",
            "--force-dpd=3",
        ] {
            assert!(words.iter().any(|have| have == word), "{word}");
        }
        let command = command(&gateway, words);
        let last = command.get_args().last();
        assert_eq!(last.unwrap(), "https://203.0.113.10:443/");
    }
}
