//! How each process is started: which program, with which words.

use std::path::Path;

use serde::Deserialize;

use super::{Config, ConfigError, Esp, Ike, Modem, Tls, read_toml};
use crate::plan::Role;

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
        let mut recipes = vec![work, self.gate(), self.uplink()?];
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
        if let Some(ms) = self.restart.healthy_after {
            words.extend(pairs(&[("--healthy-after-ms", &ms.to_string())]));
        }
        words.extend(user(self.users.gate));
        Recipe {
            role: Role::Gate,
            words,
        }
    }

    fn uplink(&self) -> Result<Recipe, ConfigError> {
        let device: Device = read_toml(&self.device)?;
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
        // Not by way of the gate, which could name another station's.
        words.extend(pairs(&[("--member-mac", &device.mac)]));
        words.extend(user(self.users.uplink));
        Ok(Recipe {
            role: Role::Uplink,
            words,
        })
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
            ]));
            let pin = token.pin.iter();
            words.extend(pin.flat_map(|pin| ["--token-pin".into(), text(pin)]));
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
