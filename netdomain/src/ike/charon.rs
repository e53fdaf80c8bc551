//! charon as a child: its configuration and its command line.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sekisho_policy::IkeAuth;

use super::Esp;
use super::dialogue::TOKEN;
use super::place::{RUN, configuration, socket};
use crate::program::Program;

const PROGRAM: &str = "/usr/lib/ipsec/charon";

/// What charon is made of, and nothing else is: IKE's arithmetic by `OpenSSL`, certificates and lists of
/// revoked ones, the kernel, sockets, VICI. No other authentication, no script, no resolver, no file
/// of the host's, and nobody who would fetch a list that is not there.
const PLUGINS: &str = "kdf hmac nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints revocation";
/// Where a gateway wants TLS in EAP.
const EAP_TLS: &str = "eap-tls";
/// Where the private key is in a token.
const PKCS11: &str = "pkcs11";
/// Those that follow; with ESP in charon itself its plugin comes before the kernel's.
const KERNEL: &str = "kernel-netlink socket-default vici";
const USER: &str = "kernel-libipsec kernel-netlink socket-default vici";
/// Threads: seven wait for something for ever, with ESP in charon itself three more.
const THREADS: u8 = 16;
/// Times that a message is sent again before its peer is called dead.
const RETRIES: u32 = 3;

/// Seconds without a packet after which the gateway is asked for a sign of life, so that with all
/// tries it is dead after `silence`.
pub(super) fn ask_after(silence: Duration) -> u64 {
    (silence.as_secs() / 3).max(1)
}

/// What one charon is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// Where it seals.
    pub(super) esp: Esp,
    /// A gateway that is silent for so long is dead.
    pub(super) silence: Duration,
    /// How the laptop proves itself.
    pub(super) auth: IkeAuth,
    /// The module of the token that holds the private key (PKCS #11), if one does.
    pub(super) token: Option<&'w Path>,
}

/// `strongswan.conf`.
fn settings(wanted: Wanted<'_>) -> String {
    let Wanted {
        esp,
        silence,
        auth,
        token,
    } = wanted;
    let left = silence.saturating_sub(Duration::from_secs(ask_after(silence)));
    let retry = (left / (RETRIES + 1)).max(Duration::from_millis(100));
    let engine = match esp {
        Esp::Kernel => KERNEL,
        Esp::User => USER,
    };
    let eap = match auth {
        IkeAuth::Certificate => "",
        IkeAuth::EapTls => EAP_TLS,
    };
    // The token is asked for its key only: what it holds of certificates is believed by nobody.
    let (pkcs11, module) = token.map_or(("", String::new()), |module| {
        let path = module.display();
        let module = format!("modules {{ {TOKEN} {{ path = {path}\n load_certs = no }} }}");
        (PKCS11, format!("pkcs11 {{ {module} }}\n"))
    });
    format!(
        "charon {{\n\
         load = {PLUGINS} {pkcs11} {eap} {engine}\n\
         threads = {THREADS}\n\
         # Port 500 is not spoken, and what is never bound needs no capability.\n\
         port = 0\n\
         # Addresses and routes are the keeper's, and so is the inner address.\n\
         install_routes = no\n\
         install_virtual_ip = no\n\
         retransmit_tries = {RETRIES}\n\
         retransmit_base = 1.0\n\
         retransmit_timeout = {:.3}\n\
         # A path is left for the one that the route to the gateway names (RFC 4555).\n\
         prefer_best_path = yes\n\
         # A gateway that sends elsewhere sends nowhere.\n\
         follow_redirects = no\n\
         plugins {{\n\
         vici {{ socket = unix://{} }}\n\
         socket-default {{ use_ipv6 = no }}\n\
         {module}\
         }}\n\
         filelog {{ stderr {{ default = 0\n ike = 1\n cfg = 1\n flush_line = yes }} }}\n\
         }}\n",
        retry.as_secs_f64(),
        socket().display(),
    )
}

/// Starts it. What an earlier one left behind is removed: sockets and a lock that name nobody.
pub(super) fn start(wanted: Wanted<'_>) -> io::Result<Program> {
    for entry in fs::read_dir(format!("/{RUN}"))? {
        let _ = fs::remove_file(entry?.path());
    }
    fs::write(configuration(), settings(wanted))?;
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("STRONGSWAN_CONF", configuration())
        .env("PATH", "/usr/sbin:/usr/bin");
    Program::start("charon", &mut command, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_is_dead_in_time() {
        for seconds in [1, 3, 10, 60] {
            let silence = Duration::from_secs(seconds);
            let text = settings(Wanted {
                esp: Esp::Kernel,
                silence,
                auth: IkeAuth::Certificate,
                token: None,
            });
            assert!(!text.contains("eap") && !text.contains("pkcs11"), "{text}");
            let retry: f64 = text
                .lines()
                .find_map(|line| line.strip_prefix("retransmit_timeout = "))
                .unwrap()
                .parse()
                .unwrap();
            let dead = Duration::from_secs(ask_after(silence))
                + Duration::from_secs_f64(retry) * (RETRIES + 1);
            // A second is the least that charon waits.
            let slack = Duration::from_millis(if seconds == 1 { 500 } else { 10 });
            assert!(dead <= silence + slack, "{seconds} s: {dead:?}");
        }
    }
}
