//! What ModemManager says of its modems and bearers, read once into values that cannot be otherwise
//! (ModemManager 1.20 reference, "D-Bus interface").
//!
//! A property that is missing counts as what opens nothing. One that has another type than its
//! documentation says makes the whole answer worthless.

use std::net::Ipv4Addr;

use super::dbus::{Malformed, Reader};

/// Modems that are looked at; a laptop has one, and somebody may plug in another.
const MAX_MODEMS: usize = 4;
/// Bearers of one modem. Modems know a dozen contexts at most and connect two or three.
const MAX_BEARERS: usize = 8;
/// Longest path of an object: `/org/freedesktop/ModemManager1/Modem/` and a number.
const MAX_PATH: usize = 96;
/// Longest text that is kept: an access point name (3GPP TS 23.003, section 9.1). Names of operators
/// are shorter.
const MAX_NAME: usize = 100;

pub(super) const MODEM: &str = "org.freedesktop.ModemManager1.Modem";
pub(super) const MODEM_3GPP: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp";
/// Types of the answers that are read here.
pub(super) const OBJECTS: &str = "a{oa{sa{sv}}}";
pub(super) const PROPERTIES: &str = "a{sv}";

/// An object of ModemManager's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectPath(String);

impl ObjectPath {
    /// Takes a path that is one (D-Bus specification, "Valid Object Paths") and not too long.
    pub(super) fn new(text: &str) -> Result<Self, Malformed> {
        let element = |element: &str| {
            !element.is_empty()
                && element
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match text.strip_prefix('/') {
            Some(rest) if text.len() <= MAX_PATH && rest.split('/').all(element) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Malformed("a path is none")),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A modem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modem {
    pub(super) path: ObjectPath,
    pub(super) state: ModemState,
    pub(super) registration: Registration,
    /// Country code and network code of the network that serves it, if they are digits.
    pub(super) operator: Option<String>,
    /// What that network calls itself; any text.
    pub(super) name: String,
    /// In percent.
    pub(super) signal: Option<u8>,
    pub(super) bearers: Vec<ObjectPath>,
}

/// `MMModemState`, in the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ModemState {
    /// It is broken.
    Failed,
    /// It is broken because there is no SIM that can be read.
    SimMissing,
    /// ModemManager is still finding out.
    Unknown,
    /// The SIM asks for a code.
    Locked,
    /// Switched off.
    Disabled,
    /// Between two states.
    Changing,
    /// Switched on, without a network.
    Searching,
    /// A network serves it.
    Registered,
    /// It is being connected.
    Connecting,
    /// It has a bearer.
    Connected,
}

/// `MMModem3gppRegistrationState`, as far as data may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registration {
    /// In its own network.
    Home,
    /// In another one.
    Roaming,
    /// In none, or for text messages and emergency calls alone.
    None,
}

/// A bearer: one connection of a modem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BearerState {
    pub(super) connected: bool,
    pub(super) interface: String,
    pub(super) apn: String,
    pub(super) config: Config,
}

/// `Ip4Config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(super) method: Method,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) mtu: Option<u16>,
}

/// `MMBearerIpMethod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// None, or unknown.
    Unknown,
    /// By PPP, for which there would have to be a program.
    Ppp,
    /// As the other fields say.
    Static,
    /// By DHCP.
    Dhcp,
}

/// Reads the answer of `GetManagedObjects`: the modems, in the order of their paths.
pub(super) fn modems(mut body: Reader<'_>) -> Result<Vec<Modem>, Malformed> {
    let mut modems = Vec::new();
    let mut objects = body.array("{oa{sa{sv}}}")?;
    while !objects.is_empty() {
        objects.align(8)?;
        let path = objects.text()?;
        let interfaces = objects.array("{sa{sv}}")?;
        if let Some(modem) = modem(path, interfaces)? {
            modems.push(modem);
        }
        if modems.len() > MAX_MODEMS {
            return Err(Malformed("there are more modems than a laptop has"));
        }
    }
    modems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(modems)
}

fn modem(path: &str, mut interfaces: Reader<'_>) -> Result<Option<Modem>, Malformed> {
    let mut modem = Modem {
        path: ObjectPath::new(path)?,
        state: ModemState::Unknown,
        registration: Registration::None,
        operator: None,
        name: String::new(),
        signal: None,
        bearers: Vec::new(),
    };
    let mut known = false;
    while !interfaces.is_empty() {
        interfaces.align(8)?;
        let name = interfaces.text()?;
        let properties = interfaces.array("{sv}")?;
        match name {
            MODEM => {
                known = true;
                modem.general(properties)?;
            }
            MODEM_3GPP => modem.network(properties)?,
            _ => {}
        }
    }
    Ok(known.then_some(modem))
}

impl Modem {
    fn general(&mut self, mut properties: Reader<'_>) -> Result<(), Malformed> {
        let (mut state, mut reason) = (0, 0);
        while !properties.is_empty() {
            properties.align(8)?;
            let key = properties.text()?;
            let value = properties.variant()?;
            match key {
                "State" => state = value.of("i")?.i32()?,
                "StateFailedReason" => reason = value.of("u")?.u32()?,
                "SignalQuality" => {
                    let mut pair = value.of("(ub)")?;
                    pair.align(8)?;
                    let percent = u8::try_from(pair.u32()?).ok();
                    self.signal = percent.filter(|percent| *percent <= 100);
                }
                "Bearers" => {
                    let mut paths = value.of("ao")?.array("o")?;
                    while !paths.is_empty() {
                        if self.bearers.len() >= MAX_BEARERS {
                            return Err(Malformed("a modem has more bearers than it can have"));
                        }
                        self.bearers.push(ObjectPath::new(paths.text()?)?);
                    }
                }
                _ => {}
            }
        }
        self.state = match state {
            // MM_MODEM_STATE_FAILED, and the reason that there is no SIM.
            -1 if reason == 2 => ModemState::SimMissing,
            -1 => ModemState::Failed,
            2 => ModemState::Locked,
            3 => ModemState::Disabled,
            4 | 5 => ModemState::Changing,
            6 | 7 => ModemState::Searching,
            8 => ModemState::Registered,
            9 | 10 => ModemState::Connecting,
            11 => ModemState::Connected,
            _ => ModemState::Unknown,
        };
        Ok(())
    }

    fn network(&mut self, mut properties: Reader<'_>) -> Result<(), Malformed> {
        while !properties.is_empty() {
            properties.align(8)?;
            let key = properties.text()?;
            let value = properties.variant()?;
            match key {
                "RegistrationState" => {
                    self.registration = match value.of("u")?.u32()? {
                        1 => Registration::Home,
                        5 => Registration::Roaming,
                        _ => Registration::None,
                    };
                }
                "OperatorCode" => {
                    let code = value.of("s")?.text()?;
                    let digits = code.bytes().all(|byte| byte.is_ascii_digit());
                    self.operator = (digits && (5..=6).contains(&code.len())).then(|| code.into());
                }
                "OperatorName" => self.name = plain(value.of("s")?.text()?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads the properties of a bearer.
pub(super) fn bearer(mut body: Reader<'_>) -> Result<BearerState, Malformed> {
    let mut bearer = BearerState {
        connected: false,
        interface: String::new(),
        apn: String::new(),
        config: Config {
            method: Method::Unknown,
            address: None,
            prefix: 32,
            gateway: None,
            mtu: None,
        },
    };
    let mut properties = body.array("{sv}")?;
    while !properties.is_empty() {
        properties.align(8)?;
        let key = properties.text()?;
        let value = properties.variant()?;
        match key {
            "Connected" => bearer.connected = value.of("b")?.bool()?,
            "Interface" => bearer.interface = interface(value.of("s")?.text()?),
            "Ip4Config" => bearer.config = config(value.of(PROPERTIES)?)?,
            "Properties" => bearer.apn = apn(value.of(PROPERTIES)?)?,
            _ => {}
        }
    }
    Ok(bearer)
}

/// The name of an interface: at most 15 bytes (`IFNAMSIZ`). Empty where there is none, or where it is
/// the name of a port that is none, as PPP has it.
fn interface(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.len() <= 15 && name.bytes().all(plain) {
        name.to_owned()
    } else {
        String::new()
    }
}

fn apn(mut value: Reader<'_>) -> Result<String, Malformed> {
    let mut apn = "";
    let mut properties = value.array("{sv}")?;
    while !properties.is_empty() {
        properties.align(8)?;
        let key = properties.text()?;
        let value = properties.variant()?;
        if key == "apn" {
            apn = value.of("s")?.text()?;
        }
    }
    Ok(plain(apn))
}

fn config(mut value: Reader<'_>) -> Result<Config, Malformed> {
    let mut config = Config {
        method: Method::Unknown,
        address: None,
        prefix: 32,
        gateway: None,
        mtu: None,
    };
    let mut properties = value.array("{sv}")?;
    while !properties.is_empty() {
        properties.align(8)?;
        let key = properties.text()?;
        let value = properties.variant()?;
        match key {
            "method" => {
                config.method = match value.of("u")?.u32()? {
                    1 => Method::Ppp,
                    2 => Method::Static,
                    3 => Method::Dhcp,
                    _ => Method::Unknown,
                }
            }
            "address" => config.address = value.of("s")?.text()?.parse().ok(),
            "prefix" => config.prefix = u8::try_from(value.of("u")?.u32()?).unwrap_or(32).min(32),
            "gateway" => config.gateway = value.of("s")?.text()?.parse().ok(),
            "mtu" => config.mtu = u16::try_from(value.of("u")?.u32()?).ok(),
            _ => {}
        }
    }
    Ok(config)
}

/// A short text with nothing in it that a terminal or a log would obey.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect()
}

#[cfg(test)]
mod tests;
