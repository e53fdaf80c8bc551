//! The device file: what this laptop is called and how its work OS sees the network.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;
use serde::Deserialize;
use smoltcp::wire::EthernetAddress;
use thiserror::Error;

/// The longest device or key file that is read: ten times what one needs.
const MAX_FILE: u64 = 8192;
/// The least that any path must carry: what IPv6 asks of every link (RFC 8200, section 5). Less is
/// a mistake, or somebody who wants many small packets.
pub const MIN_MTU: u16 = 1280;
/// A `WireGuard` packet over IPv4 adds 60 bytes to the inner one.
const MAX_MTU: u16 = 1440;

/// Why a device file is of no use.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check --device and the key it names")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or has other keys than it should.
    #[error("{path} is not a device file: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A value is impossible.
    #[error("{path}: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// `device.toml` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    device: String,
    private_key: PathBuf,
    probe_key: Option<PathBuf>,
    address: Ipv4Net,
    router: Ipv4Addr,
    address6: Option<Ipv6Addr>,
    mac: String,
    mtu: u16,
}

/// What the gate knows about its laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The inner address, which is the guest's on every uplink.
    pub address: Ipv4Addr,
    /// Length of the prefix that the guest believes to be on its wire.
    pub prefix: u8,
    /// Router, resolver and DHCP server in the guest's eyes: the gate.
    pub router: Ipv4Addr,
    /// The inner address of IPv6, if the laptop has one.
    pub v6: Option<Ipv6Addr>,
    /// The guest's MAC address.
    pub mac: EthernetAddress,
    /// Inner MTU.
    pub mtu: u16,
}

/// A device and its private key.
pub struct DeviceFile {
    /// The device's name.
    pub name: String,
    /// Addresses.
    pub device: Device,
    /// `WireGuard` private key.
    pub private_key: [u8; 32],
    /// The second one, by which paths are asked that are not in use.
    pub probe_key: Option<[u8; 32]>,
}

impl DeviceFile {
    /// Reads the device file and the key that it names.
    pub fn read(path: &Path) -> Result<Self, DeviceError> {
        let text = read(path)?;
        let written: Written = toml::from_str(&text).map_err(|source| DeviceError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |what| DeviceError::Value {
            path: path.to_owned(),
            what,
        };
        let device = check(&written).map_err(wrong)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let private_key = read_key(folder.join(&written.private_key))?;
        let probe_key = written
            .probe_key
            .as_ref()
            .map(|file| read_key(folder.join(file)))
            .transpose()?;
        if probe_key == Some(private_key) {
            return Err(wrong(
                "`probe_key` must be another key than `private_key`: whatever a gateway hears of that \
                 one moves the tunnel",
            ));
        }
        Ok(Self {
            name: written.device,
            device,
            private_key,
            probe_key,
        })
    }
}

fn read_key(path: PathBuf) -> Result<[u8; 32], DeviceError> {
    let key = STANDARD.decode(read(&path)?.trim()).ok();
    key.and_then(|bytes| bytes.try_into().ok())
        .ok_or(DeviceError::Value {
            path,
            what: "a WireGuard private key is 32 bytes in base64, as `wg genkey` prints it",
        })
}

fn check(written: &Written) -> Result<Device, &'static str> {
    let address = written.address.addr();
    if !written.address.contains(&written.router) || written.router == address {
        return Err("`router` must be another address inside the prefix of `address`");
    }
    if written.address6.is_some_and(|address| !is_unicast(address)) {
        return Err(
            "`address6` must be a global or unique local address of IPv6, and none of 6to4 or Teredo",
        );
    }
    if !(MIN_MTU..=MAX_MTU).contains(&written.mtu) {
        return Err("`mtu` must be between 1280 and 1440");
    }
    let mac = parse_mac(&written.mac)
        .filter(EthernetAddress::is_unicast)
        .ok_or("`mac` must be a unicast MAC address like 02:53:4b:00:07:17")?;
    Ok(Device {
        address,
        prefix: written.address.prefix_len(),
        router: written.router,
        v6: written.address6,
        mac,
        mtu: written.mtu,
    })
}

/// An address that one host of a network of the city's can have (RFC 4291, RFC 4193).
const fn is_unicast(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let (six_to_four, teredo) = (first == 0x2002, first == 0x2001 && second == 0);
    (first >> 13 == 1 && !six_to_four && !teredo) || address.is_unique_local()
}

/// A MAC as it is written in the device file.
pub(crate) fn parse_mac(text: &str) -> Option<EthernetAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(EthernetAddress(bytes))
}

fn read(path: &Path) -> Result<String, DeviceError> {
    let failed = |source| DeviceError::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(DeviceError::Value {
            path: path.to_owned(),
            what: "the file is far too long",
        });
    }
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        device = "mihon-0001"
        private_key = "wg.key"
        address = "10.250.7.23/24"
        router = "10.250.7.1"
        mac = "02:53:4b:00:07:17"
        mtu = 1420
    "#;

    fn read_with(text: &str, key: &str) -> Result<DeviceFile, DeviceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.toml");
        fs::write(&path, text).unwrap();
        fs::write(folder.path().join("wg.key"), key).unwrap();
        DeviceFile::read(&path)
    }

    #[test]
    fn reads_what_the_contract_says() {
        let file = read_with(GOOD, &format!("{}\n", STANDARD.encode([7; 32]))).unwrap();
        assert_eq!(file.private_key, [7; 32]);
        assert_eq!(file.device.address, Ipv4Addr::new(10, 250, 7, 23));
        assert_eq!(file.device.prefix, 24);
        assert_eq!(file.device.mac.0, [2, 0x53, 0x4b, 0, 7, 0x17]);
    }

    #[test]
    fn an_address_of_ipv6_is_one_of_a_host() {
        let key = STANDARD.encode([7; 32]);
        let with = |address: &str| {
            let line = format!("mtu = 1420\naddress6 = \"{address}\"");
            read_with(&GOOD.replace("mtu = 1420", &line), &key)
        };
        for good in ["2001:db8:250:7::23", "fd12:3456:789a::23"] {
            let file = with(good).unwrap();
            assert_eq!(file.device.v6, Some(good.parse().unwrap()));
        }
        for bad in [
            "::1",
            "::",
            "fe80::23",
            "ff02::1",
            "::ffff:10.250.7.23",
            "64:ff9b::10.250.7.23",
            "2002:afa:717::1",
            "2001:0:afa:717::1",
            "fec0::1",
            "2001:db8::/64",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_could_not_work() {
        let key = STANDARD.encode([7; 32]);
        for (from, to) in [
            ("10.250.7.1", "10.251.7.1"),
            ("1420", "20000"),
            ("02:53:4b:00:07:17", "03:53:4b:00:07:17"),
            ("02:53:4b:00:07:17", "02-53-4b-00-07-17"),
            ("device =", "dewice ="),
        ] {
            assert!(read_with(&GOOD.replace(from, to), &key).is_err(), "{to}");
        }
        assert!(read_with(GOOD, "c2hvcnQ=").is_err());
    }
}
