//! charon as a child: its configuration and its command line.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use super::Esp;
use super::place::{RUN, configuration, socket};
use crate::program::Program;

const PROGRAM: &str = "/usr/lib/ipsec/charon";

/// What charon is made of, and nothing else is: IKE's arithmetic by `OpenSSL`, certificates, the
/// kernel, sockets, VICI. No other authentication, no script, no resolver, no file of the host's.
const PLUGINS: &str = "kdf hmac nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints";
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

/// `strongswan.conf`.
fn settings(esp: Esp, silence: Duration) -> String {
    let left = silence.saturating_sub(Duration::from_secs(ask_after(silence)));
    let retry = (left / (RETRIES + 1)).max(Duration::from_millis(100));
    let engine = match esp {
        Esp::Kernel => KERNEL,
        Esp::User => USER,
    };
    format!(
        "charon {{\n\
         load = {PLUGINS} {engine}\n\
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
         }}\n\
         filelog {{ stderr {{ default = 0\n ike = 1\n cfg = 1\n flush_line = yes }} }}\n\
         }}\n",
        retry.as_secs_f64(),
        socket().display(),
    )
}

/// Starts it. What an earlier one left behind is removed: sockets and a lock that name nobody.
pub(super) fn start(esp: Esp, silence: Duration) -> io::Result<Program> {
    for entry in fs::read_dir(format!("/{RUN}"))? {
        let _ = fs::remove_file(entry?.path());
    }
    fs::write(configuration(), settings(esp, silence))?;
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
            let text = settings(Esp::Kernel, silence);
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
