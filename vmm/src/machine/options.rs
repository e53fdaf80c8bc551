//! How values and options are written on a command line: single words, and `key=value` pairs separated
//! by commas.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sekisho_seatlink::Mode;
use thiserror::Error;

use super::{
    Console, DEFAULT_MTU, Disk, DiskChanges, DiskDevice, DiskFormat, Endpoint, Firmware, Laptop,
    Mac, Net, Screen, ScreenMode, Serial, Size, Sound, Tpm,
};
use crate::cpu::{MAX_CPUS, Paravirt};
use crate::display::{MAX_PREFERRED, MIN_PREFERRED, can_be_preferred};

/// A value that is not what its option wants.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ValueError {
    /// Not a size.
    #[error("`{0}` is no size: write a number of bytes with K, M or G behind it, as in 512M")]
    Size(String),
    /// Not an address.
    #[error("`{0}` is no MAC address of one station: write six bytes as in 02:53:4b:00:07:17")]
    Mac(String),
    /// Not a place for the serial port.
    #[error("`{0}` is no serial port: write stdio, none or file=PATH")]
    Serial(String),
    /// Not a mode.
    #[error(
        "`{0}` is no mode of this screen: write WIDTHxHEIGHT, from {least} to {most}, the width a \
         multiple of 8",
        least = Sides(MIN_PREFERRED),
        most = Sides(MAX_PREFERRED)
    )]
    Mode(String),
    /// Not an endpoint.
    #[error("an endpoint is empty: write fd:N or a path")]
    Endpoint,
    /// A list of `key=value` with an unknown key.
    #[error("`{key}` is unknown here: the keys are {known}")]
    Key {
        /// What was written.
        key: String,
        /// What could be.
        known: &'static str,
    },
    /// A key without its value.
    #[error("`{0}` has no value: write key=value, separated by commas")]
    Pair(String),
    /// A key that must be there.
    #[error("`{0}=` is missing")]
    Missing(&'static str),
    /// A key given twice.
    #[error("`{0}=` is given twice")]
    Twice(String),
    /// Neither on nor off.
    #[error("`{0}` is neither on nor off")]
    Switch(String),
    /// Not a device that a disk can be.
    #[error("`{0}` is no device for a disk: write virtio-blk or nvme")]
    DiskDevice(String),
    /// Not a hypervisor.
    #[error("`{0}` is no hypervisor to be found: write kvm, both or hyper-v")]
    Paravirt(String),
    /// Not a format.
    #[error("`{0}` is no format of a disk: write raw or qcow2")]
    DiskFormat(String),
    /// Neither.
    #[error("`{0}` can not become of changes: write kept or temporary")]
    DiskChanges(String),
    /// Two places for changes.
    #[error(
        "changes that are temporary are in no overlay: leave out overlay= or changes=temporary"
    )]
    TwoPlaces,
    /// Not a number in range.
    #[error("`{0}` is no MTU: write a number from 576 to 65535")]
    Mtu(String),
    /// A console with two ends.
    #[error("console `{0}` has a socket= and a device=: give one of them")]
    ConsoleEnd(String),
    /// A name that the guest could not show.
    #[error("`{0}` is no console name: use letters, digits, dots, dashes, at most 64")]
    Name(String),
    /// Nothing to start.
    #[error(
        "there is nothing to start: give a kernel, or firmware as code=FILE,vars=FILE, or both"
    )]
    Nothing,
    /// Too many or no processors.
    #[error("{0} processors are not possible: use 1 to {MAX_CPUS}")]
    Cpus(u8),
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Size(text.to_owned());
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // The first byte's lowest bit marks a group.
        let group = bytes[0] & 1 != 0;
        if parts.next().is_some() || group || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

/// Sides, as they are written.
struct Sides((u32, u32));

impl fmt::Display for Sides {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((width, height)) = self;
        write!(out, "{width}x{height}")
    }
}

impl FromStr for ScreenMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Mode(text.to_owned());
        let (width, height) = text.split_once('x').ok_or_else(bad)?;
        let side = |digits: &str| digits.parse().map_err(|_| bad());
        let mode = Mode::new(side(width)?, side(height)?);
        mode.filter(|mode| can_be_preferred(*mode))
            .map(Self)
            .ok_or_else(bad)
    }
}

impl FromStr for Serial {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "none" => Ok(Self::None),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(ValueError::Serial(text.to_owned())),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "" => Err(ValueError::Endpoint),
            inherited if inherited.starts_with("fd:") => Ok(Self::Inherited(text.to_owned())),
            path => Ok(Self::Path(path.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherited(text) => out.write_str(text),
            Self::Path(path) => write!(out, "{}", path.display()),
        }
    }
}

macro_rules! from_string {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = ValueError;

            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }
    )*};
}

from_string!(Size, Mac, Serial, Endpoint, ScreenMode, Sound);

/// The `key=value` pairs of one option, each key at most once.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    fn parse(text: &'a str, keys: &[&str], known: &'static str) -> Result<Self, ValueError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| ValueError::Pair(part.to_owned()))?;
            if !keys.contains(&key) {
                let key = key.to_owned();
                return Err(ValueError::Key { key, known });
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(ValueError::Twice(key.to_owned()));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found
            .map(|(_, value)| *value)
            .filter(|value| !value.is_empty())
    }

    /// On or, unless something else is said, off.
    fn switch(&self, key: &str) -> Result<bool, ValueError> {
        match self.get(key) {
            None | Some("off") => Ok(false),
            Some("on") => Ok(true),
            Some(other) => Err(ValueError::Switch(other.to_owned())),
        }
    }

    fn need(&self, key: &'static str) -> Result<&'a str, ValueError> {
        self.get(key).ok_or(ValueError::Missing(key))
    }
}

impl FromStr for Disk {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let keys = ["path", "format", "overlay", "changes", "readonly", "device"];
        let known = "path, format, overlay, changes, readonly, device";
        let pairs = Pairs::parse(text, &keys, known)?;
        let format = match pairs.get("format") {
            None | Some("raw") => DiskFormat::Raw,
            Some("qcow2") => DiskFormat::Qcow2,
            Some(other) => return Err(ValueError::DiskFormat(other.to_owned())),
        };
        let changes = match pairs.get("changes") {
            None | Some("kept") => DiskChanges::Kept,
            Some("temporary") => DiskChanges::Temporary,
            Some(other) => return Err(ValueError::DiskChanges(other.to_owned())),
        };
        let readonly = pairs.switch("readonly")?;
        let device = match pairs.get("device") {
            None | Some("virtio-blk") => DiskDevice::VirtioBlk,
            Some("nvme") => DiskDevice::Nvme,
            Some(other) => return Err(ValueError::DiskDevice(other.to_owned())),
        };
        Ok(Self {
            path: pairs.need("path")?.into(),
            format,
            overlay: pairs.get("overlay").map(PathBuf::from),
            changes,
            readonly,
            device,
        })
    }
}

impl FromStr for Paravirt {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "both" => Ok(Self::Both),
            "hyper-v" => Ok(Self::HyperV),
            _ => Err(ValueError::Paravirt(text.to_owned())),
        }
    }
}

impl FromStr for Firmware {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let pairs = Pairs::parse(text, &["code", "vars"], "code, vars")?;
        Ok(Self {
            code: pairs.need("code")?.into(),
            vars: pairs.need("vars")?.into(),
        })
    }
}

impl FromStr for Net {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let pairs = Pairs::parse(text, &["link", "mac", "mtu"], "link, mac, mtu")?;
        let mtu = |text: &str| text.parse().map_err(|_| ValueError::Mtu(text.to_owned()));
        Ok(Self {
            link: pairs.get("link").map(str::parse).transpose()?,
            mac: pairs.need("mac")?.parse()?,
            mtu: pairs.get("mtu").map_or(Ok(DEFAULT_MTU), mtu)?,
        })
    }
}

impl FromStr for Screen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let keys = ["seat", "view", "mode", "gpu"];
        let pairs = Pairs::parse(text, &keys, "seat, view, mode, gpu")?;
        let endpoint = |key| pairs.get(key).map(str::parse).transpose();
        Ok(Self {
            seat: endpoint("seat")?,
            view: endpoint("view")?,
            gpu: pairs.switch("gpu")?,
            mode: pairs
                .get("mode")
                .map(str::parse)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl FromStr for Tpm {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let pairs = Pairs::parse(text, &["socket"], "socket")?;
        Ok(Self {
            socket: pairs.need("socket")?.parse()?,
        })
    }
}

impl FromStr for Laptop {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let pairs = Pairs::parse(text, &["supplies", "lid"], "supplies, lid")?;
        Ok(Self {
            supplies: pairs.need("supplies")?.into(),
            lid: pairs.get("lid").map(PathBuf::from),
        })
    }
}

impl FromStr for Sound {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "null" {
            return Ok(Self::Null);
        }
        let pairs = Pairs::parse(text, &["file", "input"], "file, input")?;
        Ok(Self::File {
            output: pairs.need("file")?.into(),
            input: pairs.get("input").map(PathBuf::from),
        })
    }
}

impl FromStr for Console {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let pairs = Pairs::parse(text, &["name", "socket", "device"], "name, socket, device")?;
        Ok(Self {
            name: pairs.need("name")?.to_owned(),
            socket: pairs.get("socket").map(str::parse).transpose()?,
            device: pairs.get("device").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn crooked_values_are_refused() {
        for mac in [
            "",
            "02:53:4b:00:07",
            "03:00:00:00:00:01",
            "02:53:4b:00:07:17:00",
        ] {
            assert!(mac.parse::<Mac>().is_err(), "{mac}");
        }
        for size in ["", "M", "1T", "-1M", "99999999999G"] {
            assert!(size.parse::<Size>().is_err(), "{size}");
        }
        for mode in [
            "",
            "1920",
            "1920x",
            "x1080",
            "632x480",
            "644x480",
            "1920x1080x60",
            "7680x4320",
        ] {
            let error = mode.parse::<ScreenMode>().unwrap_err();
            assert!(
                error.to_string().contains("from 640x480 to 3840x2400"),
                "{error}"
            );
        }
        assert!("code=OVMF_CODE.fd".parse::<Firmware>().is_err());
        assert_eq!(Machine::default().check(), Err(ValueError::Nothing));
        assert!("readonly=on".parse::<Disk>().is_err());
        assert!("path=a,path=b".parse::<Disk>().is_err());
        assert!("path=a,readonly=maybe".parse::<Disk>().is_err());
        assert!("path=a,format=vmdk".parse::<Disk>().is_err());
        assert!("path=a,changes=lost".parse::<Disk>().is_err());
        let both = Machine {
            kernel: Some("k".into()),
            disk: vec!["path=a,overlay=b,changes=temporary".parse().unwrap()],
            ..Machine::default()
        };
        assert_eq!(both.check(), Err(ValueError::TwoPlaces));
        assert!("mac=02:53:4b:00:07:17,mtu=x".parse::<Net>().is_err());
        assert!("pty".parse::<Serial>().is_err());
        for sound in ["", "alsa", "input=a.wav", "file="] {
            assert!(sound.parse::<Sound>().is_err(), "{sound}");
        }
    }
}
