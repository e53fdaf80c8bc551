//! Uplink, modem and message bus of one laptop, with the supervisor's ends of their channels.

use std::{
    io::{Read as _, Write as _},
    net::UdpSocket,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    process::{Child, Command as Process, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use sekisho_control::{
    Channel, Command, GateToUplink, ModemFound, Port, Report, Side, UplinkToGate,
};

use super::{
    fixture::papers::{self, Issue},
    service::Service,
    wire::{SOON, Uplink, Wire, arrives, inherit, receive, until},
};

/// A user that the bus can look up: it lets in nobody without an entry in passwd.
const NOBODY: &str = "65534";

type Gate = Channel<GateToUplink, UplinkToGate>;
type Supervisor = Channel<Command, Report>;

/// What differs between policies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sim {
    pub(crate) interface: &'static str,
    pub(crate) roaming: bool,
    pub(crate) quota: bool,
}

impl Default for Sim {
    fn default() -> Self {
        Self {
            interface: "eth0",
            roaming: false,
            quota: false,
        }
    }
}

impl Sim {
    fn text(self) -> String {
        let quota = "monthly_quota = \"1MiB\"\nwarn_percent = [50]\n\
                     over_quota = { action = \"throttle\", rate = \"256kbit/s\" }\n";
        let sim = format!(
            "kind = \"sim\"\nrank = 1\ninterfaces = [\"{}\"]\napn = \"mihon.closed.example\"\n\
             plmn = [\"44010\"]\nroaming = {}\n{}",
            self.interface,
            self.roaming,
            if self.quota { quota } else { "" }
        );
        Issue::default()
            .text()
            .replacen("kind = \"wired\"\nrank = 1\n", &sim, 1)
            .replacen("uplinks = [\"wired\"]", "uplinks = [\"sim\"]", 1)
    }
}

/// The laptop and its surroundings.
pub(crate) struct Laptop {
    pub(crate) wire: Wire,
    pub(crate) service: Service,
    modem: Option<(Child, Supervisor)>,
    uplink: Option<(Uplink, Gate)>,
    /// What the modem's process is joined to the uplink by, until one of them runs.
    link: Option<OwnedFd>,
    quota: bool,
    interface: &'static str,
}

impl Laptop {
    /// A bus with `ModemManager`, and a policy; none of our programs runs.
    pub(crate) fn prepare(sim: Sim) -> Self {
        let wire = Wire::new();
        Issue::write_text(wire.folder(), &sim.text());
        Self {
            service: Service::start(wire.folder()),
            wire,
            modem: None,
            uplink: None,
            link: None,
            quota: sim.quota,
            interface: sim.interface,
        }
    }

    /// The same, and our programs run.
    pub(crate) fn start(sim: Sim) -> Self {
        let mut laptop = Self::prepare(sim);
        laptop.run();
        laptop
    }

    pub(crate) fn run(&mut self) {
        self.run_uplink(true);
        self.run_modem();
    }

    /// Starts the uplink, with or without a place for a modem.
    pub(crate) fn run_uplink(&mut self, asks: bool) {
        let folder = self.wire.folder().to_string_lossy().into_owned();
        let mut arguments = vec!["--ports", self.interface];
        if self.quota {
            arguments.extend(["--usage", &folder]);
        }
        let (ours, theirs) = sekisho_control::pair().unwrap();
        if asks {
            arguments.extend(["--modem", "fd:202"]);
        }
        let uplink = self.wire.start_handing(&arguments, vec![(theirs, 202)]);
        self.link = Some(ours);
        uplink.report("ready", |report| *report == Report::Ready);
        let gate = uplink.attach_gate();
        self.uplink = Some((uplink, gate));
    }

    /// Starts the process that asks `ModemManager`, and joins it to the uplink.
    pub(crate) fn run_modem(&mut self) {
        let link = self.link.take().unwrap_or_else(|| {
            let (ours, theirs) = sekisho_control::pair().unwrap();
            let attach = Command::Attach { port: Port::Modem };
            let (uplink, _) = self.uplink.as_ref().unwrap();
            uplink.hand(&attach, &theirs);
            ours
        });
        let (control, theirs) = sekisho_control::pair().unwrap();
        let mut process = Process::new(env!("CARGO_BIN_EXE_sekisho-netdomain"));
        process
            .arg("modem")
            .args(papers::arguments(self.wire.folder()))
            .arg("--bus")
            .arg(self.service.socket())
            .args([
                "--control",
                "fd:201",
                "--uplink",
                "fd:203",
                "--user",
                NOBODY,
            ])
            .env("SEKISHO_LOG", "debug");
        inherit(&mut process, vec![(theirs, 201), (link, 203)]);
        let child = process.spawn().unwrap();
        drop(process);
        self.modem = Some((child, Channel::from_fd(control).unwrap()));
    }

    pub(crate) fn kill_modem(&mut self) {
        if let Some((mut child, _)) = self.modem.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn gate(&self) -> &Gate {
        &self.uplink.as_ref().unwrap().1
    }

    /// Waits for the path to the gateway.
    pub(crate) fn path(&mut self) -> UdpSocket {
        let (_, fds) = receive(self.gate(), "a path", |message, _| {
            matches!(
                message,
                UplinkToGate::Path {
                    side: Side::Outside,
                    ..
                }
            )
        });
        let socket = UdpSocket::from(fds.into_iter().next().unwrap());
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    pub(crate) fn loses_carrier(&mut self) {
        receive(
            self.gate(),
            "the loss of the carrier",
            |message, _| matches!(message, UplinkToGate::CarrierLost { port } if port == "eth0"),
        );
    }

    /// Waits until the modem's process found this; the operator and the signal that it told.
    pub(crate) fn finds(&mut self, wanted: ModemFound) -> (String, Option<u8>) {
        let (_, control) = self.modem.as_ref().unwrap();
        let what = format!("{wanted:?}");
        let (report, _) = receive(
            control,
            &what,
            |report, _| matches!(report, Report::Modem { found, .. } if *found == wanted),
        );
        match report {
            Report::Modem {
                operator, signal, ..
            } => (operator, signal),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a report of any of the two.
    pub(crate) fn hears(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) {
        let deadline = Instant::now() + SOON;
        let (uplink, _) = self.uplink.as_ref().unwrap();
        let mut channels = vec![uplink.control()];
        channels.extend(self.modem.as_ref().map(|(_, control)| control));
        loop {
            for control in &channels {
                while let Some(received) = control.recv().unwrap() {
                    eprintln!("received: {:?}", received.message);
                    if wanted(&received.message) {
                        return;
                    }
                }
            }
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The gate's socket is dead, and nothing else of the laptop gets out to the gateway either. The
    /// same without the rules does: the check can fail.
    pub(crate) fn is_shut(&mut self, path: &UdpSocket, gateway: &UdpSocket) {
        let source = path.local_addr().unwrap().ip().to_string();
        until("the port has no address", || {
            !self.wire.ip_host("addr show eth0").contains(&source)
        });
        assert!(path.send(super::CANARY).is_err());
        let ear = self.ear();
        self.wire.ip_host(&format!("addr add {source}/24 dev eth0"));
        self.wire
            .ip_host("route add 203.0.113.10/32 via 192.168.43.1 dev eth0");
        assert!(!arrives(&self.wire, &source, gateway));
        assert_eq!(ear.heard(Duration::from_millis(100)), 0);
        self.wire.ip_host("addr flush dev eth0");
    }

    /// An ear at the other end of the cable, from now on.
    pub(crate) fn ear(&self) -> Ear {
        let statistics = format!("/run/netns/{}", self.wire.lan());
        let ear = Ear {
            namespace: statistics,
            before: 0,
        };
        Ear {
            before: ear.frames(),
            ..ear
        }
    }
}

/// Counts every frame that comes off the laptop's interface, whatever it is.
pub(crate) struct Ear {
    namespace: String,
    before: u64,
}

impl Ear {
    /// Frames since it began to listen, after so long.
    pub(crate) fn heard(&self, wait: Duration) -> u64 {
        std::thread::sleep(wait);
        self.frames() - self.before
    }

    fn frames(&self) -> u64 {
        let output = Process::new("nsenter")
            .arg(format!("--net={}", self.namespace))
            .args(["cat", "/proc/net/dev"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("lan0:"))
            .unwrap();
        // Received: bytes, packets.
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Whether a datagram goes to the gateway and another comes back.
pub(crate) fn round_trip(path: &UdpSocket, gateway: &UdpSocket) {
    path.send(super::CANARY).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = gateway.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], super::CANARY);
    gateway.send_to(b"answer", from).unwrap();
    let length = path.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
}

/// How the process ends when the bus that let it in says `lie`.
pub(crate) fn listens_to(lie: &[u8]) -> ExitStatus {
    let folder = tempfile::tempdir().unwrap();
    let wire_text = Sim::default().text();
    Issue::write_text(folder.path(), &wire_text);
    let socket = folder.path().join("bus");
    let listener = UnixListener::bind(&socket).unwrap();
    let (control, theirs) = sekisho_control::pair().unwrap();
    let mut process = Process::new(env!("CARGO_BIN_EXE_sekisho-netdomain"));
    process
        .arg("modem")
        .args(papers::arguments(folder.path()))
        .arg("--bus")
        .arg(&socket)
        .args(["--control", "fd:201"]);
    inherit(&mut process, vec![(theirs, 201)]);
    let mut child = process.spawn().unwrap();
    drop(process);
    let (mut bus, _) = listener.accept().unwrap();
    bus.set_read_timeout(Some(SOON)).unwrap();
    let mut said = [0; 512];
    let length = bus.read(&mut said).unwrap();
    assert!(said[..length].starts_with(b"\0AUTH EXTERNAL "));
    bus.write_all(b"OK 0123456789abcdef\r\n").unwrap();
    let length = bus.read(&mut said).unwrap();
    assert!(said[..length].starts_with(b"BEGIN\r\n"));
    bus.write_all(lie).unwrap();
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    drop(control);
    status.unwrap()
}

impl Drop for Laptop {
    fn drop(&mut self) {
        self.kill_modem();
    }
}
