//! `supervisor.toml`: what to start, and with which files. Paths are relative to the file.
//!
//! ```toml
//! programs = "/usr/lib/sekisho"       # folder of sekisho-netdomain, sekisho-vmm, sekisho-guest-host
//! policy = "policy.toml"
//! signature = "policy.toml.sig"
//! trust = "trust.pem"
//! device = "device.toml"
//! state = "/var/lib/sekisho/gate"
//! usage = "/var/lib/sekisho/uplink"   # what the SIM moved this month
//! wifi = "wifi.toml"                  # the Wi-Fi networks of the person and of IT
//! dot1x = "dot1x.toml"                # the laptop's papers for 802.1X on cables
//! ports = ["eth0", "eth1", "wlan0"]   # moved into the uplink's own namespace
//! power_button = "auto"
//!
//! [status]                            # without it: nobody is told
//! socket = "/run/sekisho/laptop"
//! group = 1000                        # whose members may ask; only root without it
//! answerers = [1000]                  # users who may give one-time passwords, beside root
//!
//! [users]
//! gate = 64017
//! uplink = 64018
//! tls = 64020
//! modem = 64022
//! ike = 64023
//!
//! [tls]                               # only where policy has a gateway of kind `tls`
//! certificate = "laptop.pem"
//! key = "laptop.key"
//! user = "mihon-0001"                 # as the gateway knows its person, where it asks for a password
//!
//! [ike]                               # only where policy has a gateway of kind `ikev2`
//! authorities = "gateway-ca.pem"      # who may have issued the gateways' certificates
//! certificate = "laptop.pem"
//! key = "laptop.key"                  # or a table `[ike.token]`, see [`Token`]
//! revoked = "gateway-crl.pem"         # which of them are not to be believed; may be absent
//! esp = "kernel"
//!
//! [modem]                             # only where policy says `apn` or `plmn` of a SIM
//! bus = "/run/dbus/system_bus_socket" # of the bus that ModemManager is on; this is the default
//!
//! [work]
//! arguments = ["run", "--kernel", "vmlinuz", "--memory", "512M"]   # of sekisho-vmm
//! ```

mod recipe;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::plan::Pace;

pub(crate) use recipe::{CONTROL, GUEST, IKE, LINK, MODEM, NETNS, PATH, Recipe, TLS};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of our programs.
    pub programs: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// Its signature.
    pub signature: PathBuf,
    /// The public keys that may sign a policy.
    pub trust: PathBuf,
    /// The device file of the gate; the MAC and the MTU of the work OS are read from it too.
    pub device: PathBuf,
    /// The gate's own folder, made if it is not there; the uplink reads there at its start.
    pub state: PathBuf,
    /// The uplink's own folder, made if it is not there; without it, `uplink` beside `state`.
    pub usage: Option<PathBuf>,
    /// The Wi-Fi networks of the person and of IT.
    pub wifi: Option<PathBuf>,
    /// The laptop's papers for 802.1X on cables, where the policy demands it.
    pub dot1x: Option<PathBuf>,
    /// Interfaces to move into the uplink's namespace, once its packet filter is loaded. With
    /// `netns`: interfaces of it to use, none for all.
    #[serde(default)]
    pub ports: Vec<String>,
    /// A namespace under `/run/netns` that holds the interfaces already, in place of a new one.
    pub netns: Option<String>,
    /// Where presses of the power button come from.
    #[serde(default)]
    pub power_button: PowerButton,
    /// Users to run as; root where not named.
    #[serde(default)]
    pub users: Users,
    /// The engine of a TLS tunnel; without it such gateways are not reached.
    pub tls: Option<Tls>,
    /// Who asks ModemManager for the SIM; without it a SIM that policy describes is not used.
    pub modem: Option<Modem>,
    /// The engine of an `IPsec` tunnel; without it such gateways are not reached.
    pub ike: Option<Ike>,
    /// The work OS.
    pub work: Work,
    /// Times of restarts.
    #[serde(default)]
    pub restart: Restart,
    /// Where `sekisho status` asks.
    pub status: Option<StatusSocket>,
}

/// `[status]`: who may be told how the laptop does, and who may answer for the person. Nothing but
/// that can be done there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusSocket {
    /// The socket; one that is there already is replaced.
    #[serde(default = "usual_socket")]
    pub socket: PathBuf,
    /// The group whose members may ask.
    pub group: Option<u32>,
    /// The users who may give the answer that a gateway demands of the person, beside root. They must
    /// be able to connect.
    #[serde(default)]
    pub answerers: Vec<u32>,
}

fn usual_socket() -> PathBuf {
    PathBuf::from(sekisho_status::SOCKET)
}

/// `power_button`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerButton {
    /// Every input device that has a power key.
    Auto,
    /// Nowhere.
    #[default]
    None,
}

/// `[users]`: user ids.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// The gate's.
    pub gate: Option<u32>,
    /// The uplink's.
    pub uplink: Option<u32>,
    /// The VMM's.
    pub vmm: Option<u32>,
    /// The TLS engine's; it must be able to read the files of `[tls]`.
    pub tls: Option<u32>,
    /// The modem's; it must have an entry in passwd, and ModemManager's rules must let it control
    /// modems.
    pub modem: Option<u32>,
    /// The `IPsec` engine's; the files of `[ike]` are read before it becomes this user.
    pub ike: Option<u32>,
}

/// `[tls]`: how this laptop proves itself to a TLS gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// The name under which a gateway that demands a one-time password knows the person.
    pub user: Option<String>,
}

/// `[modem]`: where ModemManager is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modem {
    /// The socket of its message bus.
    #[serde(default = "system_bus")]
    pub bus: PathBuf,
}

fn system_bus() -> PathBuf {
    PathBuf::from("/run/dbus/system_bus_socket")
}

/// `[ike]`: how this laptop and `IPsec` gateways prove themselves to each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ike {
    /// Certificates of the gateways' authorities, in PEM; policy says by hash which one is believed.
    pub authorities: PathBuf,
    /// Lists of revoked certificates of these authorities, in PEM.
    pub revoked: Option<PathBuf>,
    /// The laptop's certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM. Absent where a token holds it.
    pub key: Option<PathBuf>,
    /// The token that holds it.
    pub token: Option<Token>,
    /// Where packets are sealed.
    #[serde(default)]
    pub esp: Esp,
}

/// `[ike.token]`: a smart card or another token, by PKCS #11.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token's library; one of the distribution's, under `/usr`.
    pub module: PathBuf,
    /// The key's `CKA_ID`, in hex.
    pub key: String,
    /// The file that holds the PIN. Absent where policy asks the person for it (`second_factor = "pin"`),
    /// which the engine makes sure of: the supervisor does not read policy.
    pub pin: Option<PathBuf>,
    /// Files, folders and sockets that the library needs, by the absolute path where it looks for
    /// them: a smart card's is `"/run/pcscd" = "/run/pcscd"`. The engine sees nothing else.
    #[serde(default)]
    pub needs: BTreeMap<PathBuf, PathBuf>,
}

/// `esp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Esp {
    /// In the kernel.
    #[default]
    Kernel,
    /// In charon itself: slow, for kernels that have no ESP.
    User,
}

/// `[work]`: the VMM, or something that stands for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Arguments of `sekisho-vmm`; the NIC, the guest channel and the control channel are added.
    pub arguments: Option<Vec<String>>,
    /// In place of the VMM, any command. `{link}`, `{control}` and `{guest}` stand for descriptors
    /// (`fd:N`), anywhere in a word. Without `{control}` it is started anew for each new gate, and
    /// its clean end is the end of all.
    pub command: Option<Vec<String>>,
    /// Whether the host's end of the guest channel is started; with `command` only where `{guest}`
    /// is named.
    #[serde(default = "yes")]
    pub guest_channel: bool,
}

/// `[restart]`: milliseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// See [`Pace::healthy_after`].
    #[serde(rename = "healthy_after_ms")]
    pub healthy_after: Option<u64>,
    /// See [`Pace::first_pause`].
    #[serde(rename = "first_pause_ms")]
    pub first_pause: Option<u64>,
    /// See [`Pace::longest_pause`].
    #[serde(rename = "longest_pause_ms")]
    pub longest_pause: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {message}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
}

impl Config {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read_toml(path)?;
        let refuse = |message: &str| ConfigError::Form {
            path: path.to_owned(),
            message: message.to_owned(),
        };
        match (&config.work.arguments, &config.work.command) {
            (Some(_), None) => {}
            (None, Some(words)) if !words.is_empty() => {
                if !words.iter().any(|word| word.contains(LINK)) {
                    return Err(refuse("`work.command` names no `{link}`"));
                }
            }
            _ => return Err(refuse("`[work]` needs either `arguments` or `command`")),
        }
        if config.netns.is_none() && config.ports.is_empty() {
            return Err(refuse(
                "`ports` names no interface, and there is no `netns`",
            ));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let folder = fs::canonicalize(if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        })
        .map_err(|source| ConfigError::Read {
            path: folder.to_owned(),
            source,
        })?;
        for file in [
            &mut config.programs,
            &mut config.policy,
            &mut config.signature,
            &mut config.trust,
            &mut config.device,
            &mut config.state,
        ] {
            *file = folder.join(&*file);
        }
        if let Some(status) = &mut config.status {
            status.socket = folder.join(&status.socket);
        }
        for file in [&mut config.wifi, &mut config.dot1x].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        config.usage = Some(match &config.usage {
            Some(own) => folder.join(own),
            None => config.state.with_file_name("uplink"),
        });
        if let Some(modem) = &mut config.modem {
            modem.bus = folder.join(&modem.bus);
        }
        if let Some(tls) = &mut config.tls {
            for file in [&mut tls.certificate, &mut tls.key] {
                *file = folder.join(&*file);
            }
        }
        if let Some(ike) = &mut config.ike {
            if ike.key.is_some() == ike.token.is_some() {
                return Err(refuse("`[ike]` needs either `key` or `[ike.token]`"));
            }
            let own = [&mut ike.authorities, &mut ike.certificate];
            let lists = ike.revoked.iter_mut().chain(&mut ike.key);
            let token = ike.token.iter_mut();
            let token =
                token.flat_map(|token| token.pin.iter_mut().chain(token.needs.values_mut()));
            for file in own.into_iter().chain(lists).chain(token) {
                *file = folder.join(&*file);
            }
        }
        Ok(config)
    }

    /// Times of restarts.
    pub(crate) fn pace(&self) -> Pace {
        let ms = |own: Option<u64>, usual| own.map_or(usual, Duration::from_millis);
        let usual = Pace::default();
        Pace {
            healthy_after: ms(self.restart.healthy_after, usual.healthy_after),
            first_pause: ms(self.restart.first_pause, usual.first_pause),
            longest_pause: ms(self.restart.longest_pause, usual.longest_pause),
        }
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let content = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&content).map_err(|error| ConfigError::Form {
        path: path.to_owned(),
        message: error.to_string(),
    })
}
