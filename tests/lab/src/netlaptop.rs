//! A laptop without KVM: the real supervisor with the real gate and uplink on the lab's cables, and
//! a namespace that plays the work OS, joined to the gate by the tap joint.

mod files;
mod part;
mod waiting;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;

pub use self::files::programs;
use self::files::{engines, supervisor_config, write_guest_files};
pub use self::part::Part;

use crate::{
    Canary, Events, Lab, LabError, LaptopFiles, Netns, Output, Process, address as at,
    dot1x::Dot1xPapers,
    packet::{PacketSocket, udp_frame},
};

/// The group whose members may ask the laptop how it does.
const STAFF: u32 = 64_021;
/// The user who may answer for the person, beside root.
const PERSON: u32 = 64_030;
/// Another member of that group.
const COLLEAGUE: u32 = 64_031;
/// The guest's interface.
const NIC: &str = "net0";

/// How long the way from power-on to the tunnel may take on a busy machine.
pub const UP_LIMIT: Duration = Duration::from_secs(30);

/// How a laptop is to be.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Another policy than [`crate::Papers::policy`], signed by the same key.
    pub policy: Option<String>,
    /// Whether the engine of a TLS tunnel is there, and the policy has a gateway for it.
    pub tls: bool,
    /// The laptop's papers for 802.1X; the policy demands it where they are given.
    pub dot1x: Option<Dot1xPapers>,
    /// The socket of the message bus that ModemManager is on, where somebody is to ask it.
    pub modem: Option<PathBuf>,
    /// Whether the engine of an `IPsec` tunnel is there, and the policy has a gateway for it.
    pub ike: bool,
    /// Further lines of `[ike]` in the supervisor's configuration, in place of `key`.
    pub ike_key: Option<String>,
    /// Whether the laptop has its second key, to ask paths that are not in use.
    pub standby: bool,
    /// What is done to the laptop's files before it starts: an attacker at rest.
    pub tamper: Option<fn(&LaptopFiles)>,
    /// Another folder of programs for the supervisor to start, with the same names.
    pub programs: Option<PathBuf>,
}

/// A running laptop. The guest's namespace outlives a restart of what joins it to the gate.
#[derive(Debug)]
pub struct NetLaptop<'l> {
    lab: &'l Lab,
    supervisor: Process,
    events: Events,
    guest: Netns,
    dir: PathBuf,
    canary: Canary,
    started: Instant,
}

impl<'l> NetLaptop<'l> {
    /// Switches the laptop on; returns at once.
    pub fn start(lab: &'l Lab, setup: &Setup) -> Result<Self, LabError> {
        let programs = programs()?;
        let dir = lab.dir().join("device");
        std::fs::create_dir_all(&dir).map_err(LabError::io("make the laptop's folder"))?;
        let policy = setup.policy.clone().unwrap_or_else(|| {
            let papers = lab.papers();
            if setup.tls {
                papers.policy_with_tls()
            } else if setup.ike {
                papers.policy_with_ike()
            } else {
                papers.policy()
            }
        });
        let policy = match &setup.dot1x {
            Some(dot1x) => dot1x.demand(&policy),
            None => policy,
        };
        let files = lab.papers().issue_policy(&dir, &policy)?;
        if setup.standby {
            let mut text = std::fs::read_to_string(&files.device)
                .map_err(LabError::io("read the device file"))?;
            text.push_str("probe_key = \"probe.key\"\n");
            std::fs::write(&files.device, text).map_err(LabError::io("write the device file"))?;
        }
        if let Some(dot1x) = &setup.dot1x {
            dot1x.issue(&dir)?;
        }
        if let Some(tamper) = setup.tamper {
            tamper(&files);
        }
        let guest = Netns::create().map_err(LabError::io("make the guest's namespace"))?;
        let pipe = dir.join("events");
        // An earlier laptop's, which was switched off.
        let _ = std::fs::remove_file(&pipe);
        let events = Events::follow(&pipe, &lab.dir().join("logs/events.jsonl"))
            .map_err(LabError::io("follow the supervisor's events"))?;
        write_guest_files(&dir)?;
        let config = dir.join("supervisor.toml");
        let started = setup.programs.as_ref().unwrap_or(&programs);
        let sections = engines(setup)?;
        let dot1x = setup.dot1x.is_some();
        let text = supervisor_config(started, &guest, dot1x, &sections);
        std::fs::write(&config, text)
            .map_err(LabError::io("write the supervisor's configuration"))?;
        let mut command = lab
            .space("laptop")?
            .command(programs.join("sekisho-supervisor"));
        command
            .arg("--config")
            .arg(&config)
            .arg("--events")
            .arg(&pipe);
        let started = Instant::now();
        let supervisor = lab.spawn_command("supervisor", command)?;
        Ok(Self {
            lab,
            supervisor,
            events,
            guest,
            dir,
            canary: Canary::random()?,
            started,
        })
    }

    /// Switches the laptop on and waits until the guest has its address and the tunnel is up.
    pub fn start_up(lab: &'l Lab, setup: &Setup) -> Result<Self, LabError> {
        let laptop = Self::start(lab, setup)?;
        laptop.plug_guest()?;
        laptop.wait_tunnel(0, UP_LIMIT)?;
        Ok(laptop)
    }

    /// What the supervisor told.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Time since the laptop was switched on.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The canary that the guest's traffic is to carry.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// Output of supervisor, gate and uplink.
    pub fn log(&self) -> &Process {
        &self.supervisor
    }

    /// Mutable access to the supervisor's process, to signal and await it.
    pub fn supervisor(&mut self) -> &mut Process {
        &mut self.supervisor
    }

    /// Gives the guest's NIC its MAC, switches it on and gets an address by DHCP, as a work OS would
    /// at boot. Needed again when the tap joint was started anew.
    pub fn plug_guest(&self) -> Result<(), LabError> {
        self.wait_event(0, "link up", UP_LIMIT, |event| {
            event.is("vmm", "link") && event.flag("up") == Some(true)
        })?;
        let mac = at::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        self.guest(&["ip", "link", "set", "lo", "up"])?.ok()?;
        self.guest(&["ip", "link", "set", NIC, "address", &mac, "up"])?
            .ok()?;
        let script = self.dir.join("lease.sh");
        let script = script.to_string_lossy();
        self.guest(&[
            "busybox",
            "udhcpc",
            "-i",
            NIC,
            "-f",
            "-q",
            "-n",
            "-t",
            "20",
            "-T",
            "1",
            "-O",
            "mtu",
            "-x",
            "hostname:shimin-017",
            "-s",
            &script,
        ])?
        .ok()?;
        Ok(())
    }

    /// Lets the guest ask until it has this address, as a work OS does each time its cable is plugged
    /// in.
    pub fn plug_until(&self, address: std::net::Ipv4Addr) -> Result<(), LabError> {
        let limit = Instant::now() + UP_LIMIT;
        let wanted = format!("inet {address}/");
        loop {
            self.plug_guest()?;
            let shown = self.guest(&["ip", "-4", "-o", "addr", "show"])?.ok()?;
            if shown.stdout.contains(&wanted) {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(LabError::Lost { what: wanted });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The supervisor's status socket.
    pub fn status_socket(&self) -> PathBuf {
        self.dir.join("status")
    }

    /// Runs `sekisho` with these arguments on the laptop.
    pub fn sekisho(&self, arguments: &[&str]) -> Result<Output, LabError> {
        self.lab
            .run_command(self.sekisho_command(arguments)?, Duration::from_secs(30))
    }

    /// Starts `sekisho` with these arguments on the laptop; its output goes to `logs/NAME.log`.
    pub fn sekisho_spawn(&self, name: &str, arguments: &[&str]) -> Result<Process, LabError> {
        self.lab
            .spawn_command(name, self.sekisho_command(arguments)?)
    }

    /// Runs `sekisho answer` on the laptop as this user, who types this.
    pub fn answer(&self, who: Who, typed: &str) -> Result<Output, LabError> {
        let sekisho = programs()?.join("sekisho");
        let user = match who {
            Who::Person => PERSON,
            Who::Colleague => COLLEAGUE,
        };
        let mut command = self.lab.space("laptop")?.command("setpriv");
        command
            .args(["--clear-groups", "--regid", &STAFF.to_string()])
            .args(["--reuid", &user.to_string()])
            // `sekisho` itself sees it in its input alone.
            .args(["sh", "-c", "printf '%s\\n' \"$0\" | exec \"$@\""])
            .arg(typed)
            .arg(sekisho)
            .args(["--lang", "en", "answer", "--socket"])
            .arg(self.status_socket());
        self.lab.run_command(command, Duration::from_secs(100))
    }

    fn sekisho_command(&self, arguments: &[&str]) -> Result<std::process::Command, LabError> {
        let program = programs()?.join("sekisho");
        let mut command = self.lab.space("laptop")?.command(program);
        command
            .arg("--socket")
            .arg(self.status_socket())
            .args(arguments);
        Ok(command)
    }

    /// Runs a command as the guest to its end.
    pub fn guest(&self, command: &[&str]) -> Result<Output, LabError> {
        self.guest_for(command, Duration::from_secs(30))
    }

    /// Runs a command as the guest to its end, at most for `limit`.
    pub fn guest_for(&self, command: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.lab.run_command(self.guest_command(command), limit)
    }

    /// Starts a command as the guest; its output goes to `logs/NAME.log`.
    pub fn guest_spawn(&self, name: &str, command: &[&str]) -> Result<Process, LabError> {
        self.lab.spawn_command(name, self.guest_command(command))
    }

    fn guest_command(&self, command: &[&str]) -> std::process::Command {
        let (program, arguments) = command.split_first().unwrap_or((&"true", &[]));
        let resolver = self.dir.join("resolv.conf");
        let mut prepared = self.guest.command_with_resolver(program, &resolver);
        prepared.args(arguments);
        prepared
    }

    /// Groupware's page as the guest sees it, asked for by name with the guest's canary; an error if
    /// it does not come within `limit`.
    pub fn page(&self, limit: Duration) -> Result<String, LabError> {
        let url = format!(
            "http://{}/?canary={}",
            at::GROUPWARE_NAME,
            self.canary.hex()
        );
        let seconds = limit.as_secs().max(1).to_string();
        let output = self.guest_for(
            &["curl", "-sS", "--retry", "0", "-m", &seconds, &url],
            limit + Duration::from_secs(2),
        )?;
        Ok(output.ok()?.stdout)
    }

    /// Asks for the page again and again until it comes; gives the time it took.
    pub fn wait_page(&self, limit: Duration) -> Result<Duration, LabError> {
        let start = Instant::now();
        loop {
            match self.page(Duration::from_secs(2)) {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > limit => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// The guest's namespace.
    pub fn guest_space(&self) -> &Netns {
        &self.guest
    }

    /// A packet socket on the guest's NIC.
    pub fn guest_packets(&self) -> Result<PacketSocket, LabError> {
        PacketSocket::open(&self.guest, NIC).map_err(opening())
    }

    /// The namespace in which the uplink holds the cables.
    pub fn uplink_space(&self) -> Result<Netns, LabError> {
        let pid = self.pid(Part::Uplink)?;
        Netns::of_process(pid).map_err(LabError::io("open the uplink's namespace"))
    }

    /// A deliberate leak, for the positive control: a frame of the guest's with its canary, put on
    /// the laptop's wire past all that stands between.
    pub fn leak(&self, interface: &str) -> Result<(), LabError> {
        let from = std::net::SocketAddrV4::new(at::GUEST, 40_000);
        let to = std::net::SocketAddrV4::new(at::DECOY_DNS, 53);
        let payload = self.canary.hex();
        let frame = udp_frame((at::GUEST_MAC, [0xff; 6]), from, to, payload.as_bytes());
        let put =
            |space: &Netns| PacketSocket::open(space, interface).and_then(|wire| wire.send(&frame));
        if self.uplink_space().is_ok_and(|space| put(&space).is_ok()) {
            return Ok(());
        }
        // No uplink runs: the cable is still where it was at power-on.
        let laptop = self.lab.space("laptop")?;
        self.lab
            .run("laptop", &["ip", "link", "set", interface, "up"])?
            .ok()?;
        put(laptop).map_err(LabError::io("leak a frame"))
    }
}

fn opening() -> impl FnOnce(std::io::Error) -> LabError {
    LabError::io("open a packet socket")
}

impl Drop for NetLaptop<'_> {
    fn drop(&mut self) {
        // In an orderly way, so that none of its children is left behind.
        let _ = self.supervisor.stop(Signal::TERM, Duration::from_secs(8));
    }
}

/// Who types at the laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The person whom it is issued to.
    Person,
    /// Another one, who may see how it does and no more.
    Colleague,
}
