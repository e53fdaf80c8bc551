//! A laptop that is switched on, taken to the office and back, and switched off.

mod arrival;
mod attacked;
mod crashes;
mod emulator;
mod events;
mod isolation;
mod leak;
mod office;
mod power;
mod refusals;
mod steps;
mod verdict;

pub use attacked::Judged;
pub use events::{Event, Events};
pub use steps::steps;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sekisho_lab::oracle::Canary;
use sekisho_lab::{Lab, LabError};
use sekisho_laptop::build::BuildError;
use sekisho_laptop::exec::{ExecClient, ExecError, Running, Start};
use sekisho_laptop::{GuestError, Laptop, LaptopError};
use serde::{Deserialize, Serialize};

use crate::probe::{Download, Outcome};

/// Why a step could not be carried out or did not hold.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The lab failed.
    #[error("the lab: {0}")]
    Lab(#[from] LabError),
    /// The laptop failed.
    #[error("the laptop: {0}")]
    Laptop(#[from] LaptopError),
    /// A command in the work OS failed.
    #[error("the work OS: {0}")]
    Guest(#[from] ExecError),
    /// The work OS could not be made.
    #[error("the work OS: {0}")]
    Image(#[from] GuestError),
    /// A program for it could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file could not be written.
    #[error("{0}: {1}")]
    File(&'static str, #[source] std::io::Error),
    /// Something that had to happen did not.
    #[error("waited {limit:?} for {what}; the last events were:\n{last}")]
    Missing {
        /// What it was.
        what: String,
        /// For how long.
        limit: Duration,
        /// What happened instead.
        last: String,
    },
    /// The promise of the step does not hold.
    #[error("{0}")]
    Broken(String),
}

/// What a step found, in a few words; or why it does not hold.
pub type StepResult = Result<String, StepError>;

/// One step of the journey.
pub struct Step {
    /// Its name: words joined by hyphens.
    pub name: &'static str,
    /// What a person sees happen.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&mut Journey) -> StepResult,
}

/// How a step ended; one entry of the demo's document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepReport {
    /// Name of the step.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// When it began, in milliseconds since power-on.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was found.
    pub detail: String,
}

/// What carries the laptop's packets from the cafe to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Tunnel {
    /// `WireGuard`.
    #[default]
    Wireguard,
    /// TLS by openconnect, in a cafe that forwards no UDP.
    Tls,
    /// `IPsec` by charon and the kernel, in a cafe that does not forward to `WireGuard`'s port.
    Ikev2,
}

impl Tunnel {
    /// The gateway's name in the lab's policy.
    const fn gateway(self) -> &'static str {
        match self {
            Self::Wireguard => "honcho-1",
            Self::Tls => "honcho-tls",
            Self::Ikev2 => "honcho-ikev2",
        }
    }
}

/// The laptop, its work OS and the world around them.
///
/// The fields are dropped in this order: the laptop loses its power before the world ends.
pub struct Journey {
    leak: bool,
    tunnel: Tunnel,
    joint: Option<Running>,
    power_on: Instant,
    guest: Option<ExecClient>,
    supervisor: Option<Events>,
    download: Option<(u64, Running)>,
    sturdy: bool,
    laptop: Option<Laptop>,
    canary: Canary,
    lab: Lab,
}

impl Journey {
    /// Builds the world around the laptop; the laptop is still off. With `leak`, a way round the
    /// network domain is opened on purpose.
    pub fn prepare(leak: bool, tunnel: Tunnel) -> Result<Self, StepError> {
        let mut lab = Lab::start(sekisho_lab::Options {
            cafe: sekisho_lab::Cafe {
                blocks_udp: tunnel == Tunnel::Tls,
                blocks_wireguard: tunnel == Tunnel::Ikev2,
                ..sekisho_lab::Cafe::default()
            },
            tls: tunnel == Tunnel::Tls,
            ike: (tunnel == Tunnel::Ikev2).then_some(sekisho_lab::address::GUEST),
            seat: sekisho_lab::Seat::Taps { vnet_hdr: true },
            ..sekisho_lab::Options::default()
        })?;
        lab.keep();
        Ok(Self {
            leak,
            tunnel,
            joint: None,
            power_on: Instant::now(),
            guest: None,
            supervisor: None,
            download: None,
            sturdy: false,
            laptop: None,
            canary: Canary::random()?,
            lab,
        })
    }

    /// Takes one step.
    pub fn take(&mut self, step: &Step) -> StepReport {
        let started = Instant::now();
        let at_ms = millis(started.saturating_duration_since(self.power_on));
        let outcome = (step.run)(self);
        let (holds, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        let took_ms = millis(started.elapsed());
        StepReport {
            name: step.name.to_owned(),
            holds,
            at_ms,
            took_ms,
            detail,
        }
    }

    /// The lab's folder, with captures and logs.
    pub fn folder(&self) -> &std::path::Path {
        self.lab.dir()
    }

    fn laptop(&self) -> Result<&Laptop, StepError> {
        self.laptop
            .as_ref()
            .ok_or_else(|| StepError::Broken("the laptop is off".to_owned()))
    }

    fn guest(&self) -> Result<&ExecClient, StepError> {
        self.guest
            .as_ref()
            .ok_or_else(|| StepError::Broken("no work OS is running".to_owned()))
    }

    fn events(&self) -> Result<&Events, StepError> {
        self.supervisor
            .as_ref()
            .ok_or_else(|| StepError::Broken("nothing was started in the laptop".to_owned()))
    }

    /// The id of one of the product's processes in the laptop.
    fn pid(&self, role: &str) -> Result<String, StepError> {
        let pid = self.events()?.pid(role);
        pid.map(|pid| pid.to_string())
            .ok_or_else(|| StepError::Broken(format!("no {role} was started")))
    }

    /// Kills one of them, without a word.
    fn kill(&self, role: &str) -> Result<(), StepError> {
        let pid = self.pid(role)?;
        let killed = self.laptop()?.run(&["kill", "-KILL", &pid])?;
        if killed.status.success() {
            return Ok(());
        }
        let why = format!("no {role} to kill: {}", killed.said());
        Err(StepError::Broken(why))
    }

    /// Runs the probe in the work OS and takes its answer.
    fn probe<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, StepError> {
        let canary = self.canary.hex();
        let mut command = vec!["guest-probe", "--canary", &canary];
        command.extend(arguments);
        let output = self.guest()?.run(&command, PROBE_LIMIT)?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            StepError::Broken(format!(
                "the probe said nothing that makes sense: {}",
                output.said()
            ))
        })
    }

    fn connect(&self, target: SocketAddr) -> Result<Outcome, StepError> {
        self.probe(&["tcp", &target.to_string()])
    }

    fn datagram(&self, target: SocketAddr) -> Result<Outcome, StepError> {
        self.probe(&["udp", &target.to_string()])
    }

    fn ping(&self, target: IpAddr) -> Result<Outcome, StepError> {
        self.probe(&["ping", &target.to_string()])
    }

    fn lookup(&self, server: SocketAddr, name: &str) -> Result<Outcome, StepError> {
        self.probe(&["dns", &server.to_string(), name])
    }

    /// Starts a download of `bytes` in the background, at [`PACE`].
    fn start_download(&mut self, bytes: u64) -> Result<(), StepError> {
        let target = SocketAddr::from((sekisho_lab::address::GROUPWARE, 80)).to_string();
        let argv = vec![
            "guest-probe".to_owned(),
            format!("--canary={}", self.canary.hex()),
            "--patience=20000".to_owned(),
            "download".to_owned(),
            target,
            format!("/download?rate={PACE}"),
            format!("--bytes={bytes}"),
        ];
        let start = Start {
            argv,
            ..Start::default()
        };
        self.download = Some((bytes, self.guest()?.spawn(start)?));
        Ok(())
    }

    /// Lets the download run for a while; it must not have ended then.
    fn watch_download(&mut self, limit: Duration) -> Result<(), StepError> {
        let Some((_, running)) = &mut self.download else {
            return Err(StepError::Broken("no download is running".to_owned()));
        };
        match running.next(limit)? {
            None => Ok(()),
            Some(said) => Err(StepError::Broken(format!(
                "the download ended early: {said:?}"
            ))),
        }
    }

    /// Waits for the end of the download: the same TCP connection, every byte.
    fn finish_download(&mut self) -> Result<Download, StepError> {
        let (bytes, running) = self
            .download
            .take()
            .ok_or_else(|| StepError::Broken("no download is running".to_owned()))?;
        let output = running.output(DOWNLOAD_LIMIT)?;
        let download: Download = serde_json::from_slice(&output.stdout)
            .map_err(|_| StepError::Broken(format!("the probe ended badly: {}", output.said())))?;
        match &download.error {
            None if download.bytes == bytes => Ok(download),
            _ => Err(StepError::Broken(format!(
                "the download broke: {download:?}"
            ))),
        }
    }
}

/// Bytes a second that groupware is asked to send: slow enough that a switch falls into the middle.
const PACE: u64 = 2 << 20;

/// How long one probe may take; its own patience is far shorter.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// How long a download may take in all.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(90);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The laptop's cable ends, in the order of its cards.
fn cables(lab: &Lab) -> Result<Vec<OwnedFd>, LabError> {
    lab.topology()
        .cables
        .iter()
        .map(|cable| lab.tap_fd(cable.interface))
        .collect()
}
