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

use std::{
    collections::BTreeMap,
    fs, io, iter,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::plan::{Pace, Role};

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
    /// The file that holds the PIN.
    pub pin: PathBuf,
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

/// What the supervisor needs of the device file; the gate reads the rest.
#[derive(Debug, Deserialize)]
struct Device {
    mac: String,
    mtu: u16,
    /// With the length of its prefix.
    address: String,
}

/// How to start a process: words in which `{…}` stand for descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) role: Role,
    pub(crate) words: Vec<String>,
}

impl Recipe {
    /// Whether a placeholder occurs.
    pub(crate) fn takes(&self, placeholder: &str) -> bool {
        self.words.iter().any(|word| word.contains(placeholder))
    }
}

pub(crate) const LINK: &str = "{link}";
pub(crate) const PATH: &str = "{path}";
pub(crate) const GUEST: &str = "{guest}";
pub(crate) const TLS: &str = "{tls}";
pub(crate) const MODEM: &str = "{modem}";
pub(crate) const IKE: &str = "{ike}";
pub(crate) const CONTROL: &str = "{control}";
pub(crate) const NETNS: &str = "{netns}";

/// Name of the console port that the agent in the work OS opens.
const AGENT_PORT: &str = "jp.sekisho.agent.0";

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
                token.flat_map(|token| iter::once(&mut token.pin).chain(token.needs.values_mut()));
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

    /// Every process to start.
    pub(crate) fn recipes(&self) -> Result<Vec<Recipe>, ConfigError> {
        let work = self.work()?;
        let guest = work.takes(GUEST).then(|| Recipe {
            role: Role::Guest,
            words: [
                self.program("sekisho-guest-host"),
                "--port".into(),
                GUEST.into(),
                "--control".into(),
                CONTROL.into(),
            ]
            .into(),
        });
        let mut recipes = vec![work, self.gate(), self.uplink()];
        recipes.extend(guest);
        recipes.extend(self.tls.as_ref().map(|tls| self.tls(tls)));
        recipes.extend(self.modem.as_ref().map(|modem| self.modem(modem)));
        if let Some(ike) = &self.ike {
            recipes.push(self.ike(ike)?);
        }
        Ok(recipes)
    }

    fn program(&self, name: &str) -> String {
        text(&self.programs.join(name))
    }

    /// The signed policy, and the folder that remembers the last one.
    fn signed(&self) -> Vec<String> {
        [
            ("--policy", &self.policy),
            ("--signature", &self.signature),
            ("--trust", &self.trust),
            ("--state", &self.state),
        ]
        .into_iter()
        .flat_map(|(option, path)| [option.to_owned(), text(path)])
        .collect()
    }

    fn gate(&self) -> Recipe {
        let mut words = vec![self.program("sekisho-netdomain"), "gate".into()];
        words.extend(self.signed());
        words.extend(["--device".into(), text(&self.device)]);
        words.extend(pairs(&[
            ("--link", LINK),
            ("--uplink", PATH),
            ("--control", CONTROL),
        ]));
        if self.tls.is_some() {
            words.extend(pairs(&[("--tls", TLS)]));
        }
        if self.ike.is_some() {
            words.extend(pairs(&[("--ike", IKE)]));
        }
        words.extend(user(self.users.gate));
        Recipe {
            role: Role::Gate,
            words,
        }
    }

    fn uplink(&self) -> Recipe {
        let mut words = vec![self.program("sekisho-netdomain"), "uplink".into()];
        words.extend(self.signed());
        words.extend(pairs(&[
            ("--netns", NETNS),
            ("--gate", PATH),
            ("--control", CONTROL),
        ]));
        if let Some(usage) = &self.usage {
            words.extend(["--usage".into(), text(usage)]);
        }
        for (option, file) in [("--wifi", &self.wifi), ("--dot1x", &self.dot1x)] {
            words.extend(file.iter().flat_map(|file| [option.into(), text(file)]));
        }
        if !self.ports.is_empty() {
            words.extend(["--ports".into(), self.ports.join(",")]);
        }
        if self.modem.is_some() {
            words.extend(pairs(&[("--modem", MODEM)]));
        }
        words.extend(user(self.users.uplink));
        Recipe {
            role: Role::Uplink,
            words,
        }
    }

    fn tls(&self, tls: &Tls) -> Recipe {
        let mut words = vec![self.program("sekisho-netdomain"), "tls".into()];
        words.extend(self.signed());
        words.extend(pairs(&[
            ("--certificate", &text(&tls.certificate)),
            ("--key", &text(&tls.key)),
            ("--gate", TLS),
            ("--control", CONTROL),
        ]));
        if let Some(user) = &tls.user {
            words.extend(["--as".into(), user.clone()]);
        }
        words.extend(user(self.users.tls));
        Recipe {
            role: Role::Tls,
            words,
        }
    }

    fn modem(&self, modem: &Modem) -> Recipe {
        let mut words = vec![self.program("sekisho-netdomain"), "modem".into()];
        words.extend(self.signed());
        words.extend(pairs(&[
            ("--bus", &text(&modem.bus)),
            ("--uplink", MODEM),
            ("--control", CONTROL),
        ]));
        words.extend(user(self.users.modem));
        Recipe {
            role: Role::Modem,
            words,
        }
    }

    fn ike(&self, ike: &Ike) -> Result<Recipe, ConfigError> {
        let device: Device = read_toml(&self.device)?;
        let address = device.address.split('/').next().unwrap_or_default();
        let mut words = vec![self.program("sekisho-netdomain"), "ike".into()];
        words.extend(self.signed());
        words.extend(pairs(&[
            ("--authorities", &text(&ike.authorities)),
            ("--certificate", &text(&ike.certificate)),
            ("--address", address),
            (
                "--esp",
                match ike.esp {
                    Esp::Kernel => "kernel",
                    Esp::User => "user",
                },
            ),
            ("--gate", IKE),
            ("--control", CONTROL),
        ]));
        for (option, file) in [("--key", &ike.key), ("--revoked", &ike.revoked)] {
            words.extend(file.iter().flat_map(|file| [option.into(), text(file)]));
        }
        if let Some(token) = &ike.token {
            words.extend(pairs(&[
                ("--token", &text(&token.module)),
                ("--token-key", &token.key),
                ("--token-pin", &text(&token.pin)),
            ]));
            let needs = token.needs.iter();
            words.extend(needs.flat_map(|(place, what)| {
                let pair = format!("{}:{}", what.display(), place.display());
                ["--token-needs".to_owned(), pair]
            }));
        }
        words.extend(user(self.users.ike));
        Ok(Recipe {
            role: Role::Ike,
            words,
        })
    }

    fn work(&self) -> Result<Recipe, ConfigError> {
        let role = Role::Work;
        if let Some(words) = &self.work.command {
            let words = words.clone();
            return Ok(Recipe { role, words });
        }
        let device: Device = read_toml(&self.device)?;
        let mut words = vec![self.program("sekisho-vmm")];
        let arguments = self.work.arguments.as_deref().unwrap_or_default();
        // What `Attach` replaces is the first NIC and the first console port, so ours come before
        // whatever else the file names; only the subcommand stays ahead.
        let (subcommand, others) = arguments.split_at(arguments.len().min(1));
        words.extend(subcommand.iter().cloned());
        let nic = format!("link={LINK},mac={},mtu={}", device.mac, device.mtu);
        words.extend(pairs(&[("--net", &nic), ("--control", CONTROL)]));
        if self.work.guest_channel {
            let console = format!("name={AGENT_PORT},socket={GUEST}");
            words.extend(pairs(&[("--console", &console)]));
        }
        words.extend(user(self.users.vmm));
        words.extend(others.iter().cloned());
        Ok(Recipe { role, words })
    }
}

fn pairs(options: &[(&str, &str)]) -> Vec<String> {
    options
        .iter()
        .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
        .collect()
}

fn user(id: Option<u32>) -> Vec<String> {
    id.map_or_else(Vec::new, |id| vec!["--user".into(), id.to_string()])
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = r#"
device = "mihon-0001"
private_key = "wg.key"
address = "10.250.7.23/24"
router = "10.250.7.1"
mac = "02:53:4b:00:07:17"
mtu = 1420
"#;

    fn config(extra: &str) -> Result<(tempfile::TempDir, Config), ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.toml");
        fs::write(folder.path().join("device.toml"), DEVICE).unwrap();
        let text = format!(
            "programs = '/usr/lib/sekisho'\npolicy = 'policy.toml'\nsignature = 'policy.toml.sig'\n\
             trust = 'trust.pem'\ndevice = 'device.toml'\nstate = '/var/lib/sekisho'\n{extra}"
        );
        fs::write(&path, text).unwrap();
        Config::read(&path).map(|config| (folder, config))
    }

    #[test]
    fn the_vmm_is_given_its_nic_and_its_channels() {
        let extra = "ports = ['eth0', 'eth1']\n[users]\nuplink = 64018\n[work]\narguments = ['run', '--memory', '512M']\n";
        let (folder, config) = config(extra).unwrap();
        let recipes = config.recipes().unwrap();
        assert_eq!(
            recipes[0].words.join(" "),
            "/usr/lib/sekisho/sekisho-vmm run \
             --net link={link},mac=02:53:4b:00:07:17,mtu=1420 --control {control} \
             --console name=jp.sekisho.agent.0,socket={guest} --memory 512M"
        );
        let folder = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(
            recipes[2].words.join(" "),
            format!(
                "/usr/lib/sekisho/sekisho-netdomain uplink --policy {0}/policy.toml \
                 --signature {0}/policy.toml.sig --trust {0}/trust.pem \
                 --state /var/lib/sekisho --netns {{netns}} --gate {{path}} --control {{control}} \
                 --usage /var/lib/uplink --ports eth0,eth1 --user 64018",
                folder.display()
            )
        );
        assert_eq!(recipes[3].role, Role::Guest);
    }

    #[test]
    fn modem_manager_is_asked_only_where_it_is_named() {
        let extra =
            "ports = ['wwan0']\n[users]\nmodem = 64021\n[modem]\n[work]\narguments = ['run']\n";
        let (_folder, config) = config(extra).unwrap();
        let recipes = config.recipes().unwrap();
        let modem = recipes
            .iter()
            .find(|recipe| recipe.role == Role::Modem)
            .unwrap();
        let end =
            "--bus /run/dbus/system_bus_socket --uplink {modem} --control {control} --user 64021";
        assert!(modem.words.join(" ").ends_with(end), "{:?}", modem.words);
        assert!(recipes[2].takes(MODEM), "the uplink is told of it");
        assert!(!recipes[1].takes(MODEM), "the gate is not");

        let (_folder, without) =
            self::config("ports = ['eth0']\n[work]\narguments = ['run']\n").unwrap();
        let recipes = without.recipes().unwrap();
        assert!(recipes.iter().all(|recipe| !recipe.takes(MODEM)));
    }

    #[test]
    fn the_engine_of_a_tls_tunnel_is_started_only_where_it_is_named() {
        let extra = "ports = ['eth0']\n[users]\ntls = 64020\n[tls]\ncertificate = 'laptop.pem'\n\
                     key = '/etc/laptop.key'\nuser = 'mihon-0001'\n[work]\narguments = ['run']\n";
        let (folder, config) = config(extra).unwrap();
        let recipes = config.recipes().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let end = format!(
            "--certificate {}/laptop.pem --key /etc/laptop.key --gate {{tls}} --control {{control}} \
             --as mihon-0001 --user 64020",
            folder.display()
        );
        let tls = recipes
            .iter()
            .find(|recipe| recipe.role == Role::Tls)
            .unwrap();
        assert!(tls.words.join(" ").ends_with(&end), "{:?}", tls.words);
        assert!(recipes[1].takes(TLS), "the gate is told of it");

        let (_folder, without) =
            self::config("ports = ['eth0']\n[work]\narguments = ['run']\n").unwrap();
        let recipes = without.recipes().unwrap();
        assert!(recipes.iter().all(|recipe| !recipe.takes(TLS)));
    }

    #[test]
    fn the_engine_of_an_ipsec_tunnel_knows_the_address_and_no_other_file_of_the_gates() {
        let extra = "ports = ['eth0']\n[users]\nike = 64021\n[ike]\nauthorities = 'ca.pem'\n\
                     certificate = 'laptop.pem'\nkey = '/etc/laptop.key'\nrevoked = 'crl.pem'\n\
                     [work]\narguments = ['run']\n";
        let (folder, config) = config(extra).unwrap();
        let recipes = config.recipes().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let end = format!(
            "--authorities {0}/ca.pem --certificate {0}/laptop.pem --address 10.250.7.23 \
             --esp kernel --gate {{ike}} --control {{control}} --key /etc/laptop.key \
             --revoked {0}/crl.pem --user 64021",
            folder.display()
        );
        let ike = recipes.iter().find(|recipe| recipe.role == Role::Ike);
        let words = ike.unwrap().words.join(" ");
        assert!(words.ends_with(&end), "{words}");
        assert!(!words.contains("device.toml"), "{words}");
        assert!(recipes[1].takes(IKE), "the gate is told of it");
    }

    #[test]
    fn a_token_holds_the_key_in_place_of_a_file() {
        let ike = "ports = ['eth0']\n[work]\narguments = ['run']\n[ike]\nauthorities = 'ca.pem'\n\
                   certificate = 'laptop.pem'\n";
        let token = "[ike.token]\nmodule = '/usr/lib/token.so'\nkey = '0a'\npin = 'pin'\n\
                     needs = { '/run/pcscd' = '/run/pcscd' }\n";
        let (folder, config) = config(&format!("{ike}{token}")).unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let recipes = config.recipes().unwrap();
        let ike_words = recipes.iter().find(|recipe| recipe.role == Role::Ike);
        let words = ike_words.unwrap().words.join(" ");
        let end = format!(
            "--token /usr/lib/token.so --token-key 0a --token-pin {}/pin \
             --token-needs /run/pcscd:/run/pcscd",
            folder.display()
        );
        assert!(
            words.ends_with(&end) && !words.contains("--key "),
            "{words}"
        );
        for neither in [ike.to_owned(), format!("{ike}key = 'laptop.key'\n{token}")] {
            let error = self::config(&neither).unwrap_err().to_string();
            assert!(error.contains("either `key` or"), "{error}");
        }
    }

    #[test]
    fn refuses_what_cannot_work() {
        for (extra, complaint) in [
            ("ports = ['eth0']\n[work]\n", "`arguments` or `command`"),
            ("ports = ['eth0']\n[work]\ncommand = ['joint']\n", "{link}"),
            ("[work]\narguments = ['run']\n", "no interface"),
            ("port = ['eth0']\n[work]\narguments = []\n", "unknown field"),
        ] {
            let error = config(extra).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn another_command_takes_what_it_names() {
        let extra = "netns = 'cafe'\n[work]\ncommand = ['joint', '--link', '{link}']\n";
        let (_folder, config) = config(extra).unwrap();
        let recipes = config.recipes().unwrap();
        assert_eq!(recipes.len(), 3);
        assert!(!recipes[0].takes(CONTROL));
    }
}
