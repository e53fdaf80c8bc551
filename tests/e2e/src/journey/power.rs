//! Switching the laptop on and off: cables, firmware-less QEMU, and what starts by itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sekisho_control::Report;
use sekisho_laptop::build;
use sekisho_laptop::exec::ExecClient;
use sekisho_laptop::{AtBoot, GuestImage, Laptop, Options, Share};

use super::events::Events;
use super::{Journey, StepError, StepResult, Tunnel, cables};

/// Console port that reaches the work OS for tests; the VMM opens it in the laptop.
const TEST_PORT: &str = "jp.sekisho.test.0";

/// Console port on which the laptop's supervisor tells what happens.
const EVENTS_PORT: &str = "jp.sekisho.events.0";

/// Memory of the laptop in MiB, and what the work OS gets of it.
const LAPTOP_MEMORY: u32 = 2048;
const WORK_MEMORY: &str = "384M";

/// From power-on until the work OS answers, under emulation on a busy machine.
const WORK_LIMIT: Duration = Duration::from_mins(2);

/// From the power button to the end of everything.
const POWER_OFF_LIMIT: Duration = Duration::from_mins(1);

impl Journey {
    /// Plugs the cafe's cable in and presses the power switch; returns when the laptop's own
    /// processes are being started.
    pub(super) fn power_on(&mut self) -> StepResult {
        // Built before the clock starts: on a real laptop it is installed.
        let probe = build::static_program("sekisho-e2e", "guest-probe", &[])?;
        let image = GuestImage::build_with(&self.lab.dir().join("work"), &[&probe])?;
        let folder = self.lab.dir().join("laptop");
        fs::create_dir_all(&folder)
            .map_err(|error| StepError::File("the laptop's folder", error))?;
        let config = folder.join("supervisor.toml");
        // Switched on again, it has what it had: another policy of the same version would be refused.
        if !config.exists() {
            fs::write(&config, self.supervisor_config(&folder, &image)?)
                .map_err(|error| StepError::File("the supervisor's configuration", error))?;
        }
        let log = folder.join("supervisor.log");
        let program = build::target_dir().join("debug/sekisho-supervisor");
        let at_boot = AtBoot {
            argv: vec![
                program.display().to_string(),
                format!("--config={}", config.display()),
                format!("--events=/dev/virtio-ports/{EVENTS_PORT}"),
            ],
            log: log.clone(),
            ports: vec![EVENTS_PORT.to_owned(), TEST_PORT.to_owned()],
        };
        self.power_on = Instant::now();
        let laptop = Laptop::start(Options {
            memory: LAPTOP_MEMORY,
            wires: cables(&self.lab)?,
            unplugged: vec![1],
            ports: vec![EVENTS_PORT.to_owned(), TEST_PORT.to_owned()],
            shares: vec![Share {
                path: folder,
                writable: true,
            }],
            at_boot: Some(at_boot),
            reboots: self.sturdy,
            sockets: self.sturdy,
            ..Options::default()
        })?;
        let boot = laptop.boot_time();
        self.supervisor = Some(Events::follow(laptop.port(EVENTS_PORT)?, log));
        self.laptop = Some(laptop);
        if self.leak {
            // Until it waits, the VMM cannot start; the supervisor tries again.
            self.joint = Some(self.prepare_leak()?);
        }
        Ok(format!(
            "laptop's own kernel up in {:.1} s",
            boot.as_secs_f64()
        ))
    }

    /// Waits until the work OS answers on its test port.
    pub(super) fn work_os(&mut self) -> StepResult {
        let stream = self.laptop()?.port(TEST_PORT)?;
        let guest = ExecClient::new(stream)?;
        let uptime = guest.hello(WORK_LIMIT).map_err(|error| {
            let events = self.events().map(Events::tail).unwrap_or_default();
            StepError::Broken(format!("the work OS does not answer: {error}\n{events}"))
        })?;
        self.guest = Some(guest);
        Ok(format!(
            "Debian answers, {:.1} s by its own clock",
            uptime.as_secs_f64()
        ))
    }

    /// Presses the power button and waits until everything has ended.
    pub(super) fn power_button(&mut self) -> StepResult {
        let events = self.events()?;
        let mark = events.mark();
        self.laptop()?.power_button()?;
        events.wait(
            mark,
            "the work OS's own end",
            POWER_OFF_LIMIT,
            |report| matches!(report, Report::WorkEnded { cause } if cause == "shutdown"),
        )?;
        self.guest = None;
        self.laptop()?.wait_off(POWER_OFF_LIMIT)?;
        self.laptop = None;
        Ok("the work OS shut itself down, then the laptop switched itself off".to_owned())
    }

    fn supervisor_config(&self, folder: &Path, image: &GuestImage) -> Result<String, StepError> {
        let papers = self.lab.papers();
        let policy = match self.tunnel {
            Tunnel::Wireguard => papers.policy(),
            Tunnel::Tls => papers.policy_with_tls(),
            Tunnel::Ikev2 => papers.policy_with_ike(),
        };
        let files = papers.issue_policy(folder, &policy)?;
        let programs = build::target_dir().join("debug");
        let mut text = String::new();
        let quote = |path: &Path| format!("{:?}", path.display().to_string());
        let _ = writeln!(text, "programs = {}", quote(&programs));
        let _ = writeln!(text, "policy = {}", quote(&files.policy));
        let _ = writeln!(text, "signature = {}", quote(&files.signature));
        let _ = writeln!(text, "trust = {}", quote(&files.trust));
        let _ = writeln!(text, "device = {}", quote(&files.device));
        let _ = writeln!(text, "state = {}", quote(&files.state));
        let _ = writeln!(text, "ports = [\"eth0\", \"eth1\"]");
        let _ = writeln!(text, "power_button = \"auto\"");
        let _ = writeln!(text, "[users]\ngate = 64017\nuplink = 64018\nvmm = 64019");
        if self.tunnel == Tunnel::Tls {
            let _ = writeln!(
                text,
                "tls = 64020\n\n[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\""
            );
        }
        if self.tunnel == Tunnel::Ikev2 {
            let _ = writeln!(
                text,
                "ike = 64021\n\n[ike]\nauthorities = \"ike-authority.pem\"\n\
                 certificate = \"tls.pem\"\nkey = \"tls.key\""
            );
        }
        let mut work = vec![
            "run".to_owned(),
            "--kernel".to_owned(),
            image.kernel.display().to_string(),
            "--initrd".to_owned(),
            image.initrd.display().to_string(),
            "--cmdline".to_owned(),
            image.cmdline.clone(),
            "--memory".to_owned(),
            WORK_MEMORY.to_owned(),
            "--serial".to_owned(),
            format!("file={}", folder.join("work-serial.log").display()),
            "--console".to_owned(),
            format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}"),
        ];
        if self.leak {
            work.extend([
                "--net".to_owned(),
                format!("mac=02:53:4b:00:07:99,link={}", super::leak::SOCKET),
            ]);
        }
        let _ = writeln!(text, "\n[work]\narguments = {work:?}");
        Ok(text)
    }
}
