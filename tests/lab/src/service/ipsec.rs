//! A stock `IPsec` gateway: Debian's `strongSwan`.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    LabError, Netns,
    papers::Papers,
    process::{Launcher, Process, find_program},
};

use super::START_LIMIT;

/// Where packets are sealed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Esp {
    /// In the kernel.
    Kernel,
    /// In charon itself, because the kernel has no ESP.
    User,
}

impl Esp {
    /// As `supervisor.toml` calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user",
        }
    }
}

/// Whether the kernel has ESP with AES-GCM: by asking it for some, in a network of its own.
pub fn esp() -> Result<Esp, LabError> {
    let space = Netns::create().map_err(LabError::io("make a namespace"))?;
    let key = format!("0x{}", "2a".repeat(36));
    let status = space
        .command("ip")
        .args([
            "xfrm",
            "state",
            "add",
            "src",
            "192.0.2.1",
            "dst",
            "192.0.2.2",
        ])
        .args(["proto", "esp", "spi", "1", "mode", "tunnel"])
        .args(["aead", "rfc4106(gcm(aes))", &key, "128"])
        .stderr(std::process::Stdio::null())
        .status()
        .map_err(LabError::io("run ip"))?;
    Ok(if status.success() {
        Esp::Kernel
    } else {
        Esp::User
    })
}

const CHARON: &str = "/usr/lib/ipsec/charon";

/// Starts charon with a certificate of the city's, for laptops of the city's, of which each is given
/// `address`.
pub(crate) fn strongswan(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    papers: &Papers,
    address: Ipv4Addr,
) -> Result<Process, LabError> {
    if !Path::new(CHARON).exists() || find_program("swanctl").is_none() {
        return Err(LabError::Missing {
            programs: vec![CHARON.into(), "swanctl".into()],
        });
    }
    let own = dir.join("gateway-ike");
    let shown = own.display();
    for folder in ["private", "x509", "x509ca"] {
        std::fs::create_dir_all(own.join(folder)).map_err(LabError::io("make charon's folder"))?;
    }
    let write = |file: &str, text: &str| {
        std::fs::write(own.join(file), text).map_err(LabError::io("write charon's files"))
    };
    let engine = match esp()? {
        Esp::Kernel => "",
        Esp::User => "kernel-libipsec",
    };
    write("private/gateway.key", &papers.ike.key)?;
    write("x509/gateway.pem", &papers.ike.certificate)?;
    write("x509ca/devices.pem", &papers.tls.authority)?;
    write(
        "strongswan.conf",
        &format!(
            "charon {{\n\
             load = kdf hmac nonce openssl pem pkcs1 pkcs8 x509 pubkey eap-tls {engine} \
             kernel-netlink socket-default vici\n\
             plugins {{ vici {{ socket = unix://{shown}/vici }} }}\n\
             filelog {{ stderr {{ default = 1\n flush_line = yes }} }}\n}}\n"
        ),
    )?;
    let name = crate::address::GATEWAY_NAME;
    // The same laptops, whichever way they prove themselves.
    let connection = |connection: &str, auth: &str| {
        format!(
            "{connection} {{\n\
             version = 2\nencap = yes\npools = laptops\ndpd_delay = 10s\n\
             proposals = aes256gcm16-prfsha384-ecp384\n\
             local {{ auth = pubkey\n certs = gateway.pem\n id = {name} }}\n\
             remote {{ auth = {auth}\n cacerts = devices.pem }}\n\
             children {{ net {{ local_ts = 10.12.0.0/16\n esp_proposals = aes256gcm16-ecp384 }} }}\n\
             }}\n"
        )
    };
    write(
        "swanctl.conf",
        &format!(
            "connections {{ {} {} }}\npools {{ laptops {{ addrs = {address}/32 }} }}\n",
            connection("laptops", "pubkey"),
            connection("eap", "eap-tls"),
        ),
    )?;
    let mut command = space.command("unshare");
    command
        .env("STRONGSWAN_CONF", own.join("strongswan.conf"))
        .args(["--mount", "sh", "-c"])
        // Its lock has a fixed place.
        .arg(format!("mount -t tmpfs tmpfs /run && exec {CHARON}"));
    let process = launcher.spawn("gateway-charon", command)?;
    process.wait_line("spawning", START_LIMIT)?;
    let start = Instant::now();
    loop {
        let mut load = space.command("swanctl");
        load.args(["--load-all", "--file"])
            .arg(own.join("swanctl.conf"))
            .args(["--uri", &format!("unix://{shown}/vici")]);
        let loaded = launcher.run(load, START_LIMIT)?;
        if loaded.success() {
            return Ok(process);
        }
        if start.elapsed() > START_LIMIT {
            loaded.ok()?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
