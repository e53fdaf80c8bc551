//! What an attacker, or bad luck, does to the laptop as a machine; for tests of single attacks.

use std::time::{Duration, Instant};

use sekisho_control::{Place, Report};
use sekisho_lab::{
    Direction, address as at,
    oracle::{self, Canaries, Verdict},
    topology::Point,
};
use sekisho_laptop::{Firmware, Laptop, exec::Start};

use super::arrival::{address, page, tunnelled};
use super::{Journey, StepError, cables, steps};

/// From a panic or a reset to a work OS that answers, on an emulated machine beside others.
const AGAIN_LIMIT: Duration = Duration::from_mins(3);

/// All that groupware has; at its pace it takes eight seconds.
const WHOLE_DOWNLOAD: u64 = 16 << 20;

/// What tcpdump writes before the first frame (pcap-savefile(5)).
const PCAP_HEADER: u64 = 24;

/// A canary in a UDP datagram to somebody on the internet, written onto a wire below every rule of the
/// kernel; as root of the laptop can do, and nobody else there.
const LEAK: &str = "import socket,sys
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind((sys.argv[1],0))
s.send(bytes.fromhex('ffffffffffff'+sys.argv[3]+'0800')+bytes(20)+sys.argv[2].encode())";

impl Journey {
    /// The laptop starts again after a panic or a reset, and cards can be plugged into it.
    #[must_use]
    pub const fn sturdy(mut self) -> Self {
        self.sturdy = true;
        self
    }

    /// Takes these steps, each of which has to hold.
    pub fn go(&mut self, names: &[&str]) -> Result<(), StepError> {
        for name in names {
            let step = steps(self.leak)
                .find(|step| step.name == *name)
                .ok_or_else(|| StepError::Broken(format!("{name} is no step")))?;
            let report = self.take(step);
            println!("{name}: {} ({} ms)", report.detail, report.took_ms);
            if !report.holds {
                return Err(StepError::Broken(format!("{name}: {}", report.detail)));
            }
        }
        Ok(())
    }

    /// The machine, while it is on.
    pub fn machine(&self) -> Result<&Laptop, StepError> {
        self.laptop()
    }

    /// What a shell in the work OS says.
    pub fn in_work_os(&self, script: &str) -> Result<String, StepError> {
        let output = self
            .guest()?
            .run(&["sh", "-c", script], Duration::from_secs(30))?;
        Ok(output.text())
    }

    /// What a shell in the laptop says.
    pub fn in_laptop(&self, script: &str) -> Result<String, StepError> {
        let output = self.laptop()?.run(&["sh", "-c", script])?;
        if output.status.success() {
            Ok(output.text())
        } else {
            Err(StepError::Broken(format!("{script}: {}", output.said())))
        }
    }

    /// What a shell says in the network namespace of one of the product's processes.
    pub fn in_space_of(&self, role: &str, script: &str) -> Result<String, StepError> {
        let pid = self.pid(role)?;
        self.in_laptop(&format!("nsenter -t {pid} -n sh -c '{script}'"))
    }

    /// Whether anything was told of a network card of that name.
    pub fn heard_of(&self, port: &str) -> Result<bool, StepError> {
        let told = self.events()?.wait(
            0,
            "a card",
            Duration::ZERO,
            |report| matches!(report, Report::Uplink { port: named, .. } if named == port),
        );
        Ok(told.is_ok())
    }

    /// Kills one of the product's processes and waits for the tunnel after it.
    pub fn kill_and_wait(&self, role: &str) -> Result<(), StepError> {
        let mark = self.events()?.mark();
        self.kill(role)?;
        self.wait_tunnel(mark)
    }

    /// Has the work OS send and receive without a pause until whatever comes.
    pub fn under_traffic(&mut self) -> Result<(), StepError> {
        self.start_download(WHOLE_DOWNLOAD)?;
        self.watch_download(Duration::from_secs(1))
    }

    /// The work OS's kernel panics; the work OS is to come back by itself.
    pub fn work_os_panics(&mut self) -> Result<Duration, StepError> {
        let began = Instant::now();
        let mark = self.events()?.mark();
        // Dropped, it would be killed.
        let _panicking = self.guest()?.spawn(panic())?;
        self.events()?
            .wait(mark, "the end of the work OS", AGAIN_LIMIT, |report| {
                matches!(report, Report::WorkEnded { .. })
            })?;
        self.download = None;
        self.work_os_again()?;
        Ok(began.elapsed())
    }

    /// The laptop's own kernel panics; the laptop is to start again by itself.
    pub fn laptop_panics(&mut self) -> Result<Duration, StepError> {
        self.starts_again(|laptop| laptop.spawn_with(panic()))
    }

    /// Somebody presses reset.
    pub fn reset(&mut self) -> Result<Duration, StepError> {
        self.starts_again(Laptop::reset_button)
    }

    fn starts_again<T>(
        &mut self,
        how: impl FnOnce(&Laptop) -> Result<T, sekisho_laptop::LaptopError>,
    ) -> Result<Duration, StepError> {
        let began = Instant::now();
        let mark = self.events()?.mark();
        // A command is killed when it is dropped.
        let _until_then = how(self.laptop()?)?;
        self.download = None;
        self.laptop()?.again(AGAIN_LIMIT)?;
        self.wait_tunnel(mark)?;
        self.work_os_again()?;
        Ok(began.elapsed())
    }

    fn wait_tunnel(&self, mark: usize) -> Result<(), StepError> {
        self.events()?
            .wait(mark, "the tunnel", AGAIN_LIMIT, |report| {
                tunnelled(report, at::ETH0, Place::Remote)
            })?;
        Ok(())
    }

    fn work_os_again(&mut self) -> Result<(), StepError> {
        self.guest()?.sync(AGAIN_LIMIT)?;
        address(self)?;
        page(self)?;
        Ok(())
    }

    /// Its power is cut: nothing in it has a say any more.
    pub fn cut_power(&mut self) {
        self.download = None;
        self.guest = None;
        self.supervisor = None;
        self.laptop = None;
    }

    /// The deliberate leak: somebody who is root on the laptop writes a canary onto the wire of
    /// `eth0`.
    pub fn leak_canary(&self) -> Result<(), StepError> {
        let (uplink, canary) = (self.pid("uplink")?, self.canary.hex());
        let mac = at::GUEST_MAC.map(|byte| format!("{byte:02x}")).concat();
        let command = [
            "nsenter",
            "-t",
            &uplink,
            "-n",
            "python3",
            "-c",
            LEAK,
            at::ETH0,
            &canary,
            &mac,
        ];
        let output = self.laptop()?.run(&command)?;
        if output.status.success() {
            Ok(())
        } else {
            Err(StepError::Broken(format!("no leak: {}", output.said())))
        }
    }

    /// Switches on, on the same cables, a machine whose firmware boots from the network.
    pub fn network_boot(&self) -> Result<Firmware, StepError> {
        Ok(Firmware::start(cables(&self.lab)?, self.lab.dir())?)
    }

    /// Whether the running capture of `eth0` has a frame of the laptop's.
    pub fn sent_anything(&self) -> Result<bool, StepError> {
        let failed = |error| StepError::File("the captures' folder", error);
        let name = format!("{}.from.pcap", at::ETH0);
        let mut newest = None;
        for entry in std::fs::read_dir(self.lab.dir()).map_err(failed)? {
            let file = entry.map_err(failed)?.path().join(&name);
            if let Ok(data) = std::fs::metadata(&file) {
                newest = newest.max(Some((data.modified().map_err(failed)?, data.len())));
            }
        }
        Ok(newest.is_some_and(|(_, length)| length > PCAP_HEADER))
    }

    /// Starts the captures anew; after [`Journey::judge`].
    pub fn capture(&self) -> Result<(), StepError> {
        Ok(self.lab.capture()?)
    }

    /// Ends the captures, and gives what the oracle says of the outside wires, with the frames that
    /// the laptop sent on them in the order of their times, and the number of frames with a canary
    /// behind the gateway.
    pub fn judge(&self) -> Result<Judged, StepError> {
        let canaries = Canaries::new([&self.canary, self.lab.canary()]);
        let (recordings, verdict) = self.lab.judge(&canaries)?;
        let mut judged = Judged {
            verdict,
            ..Judged::default()
        };
        for recording in &recordings.list {
            if recording.point != Point::P1 {
                judged.inside += oracle::count_canaries(recording, &canaries)?;
            } else if recording.direction == Direction::FromLaptop {
                oracle::read(&recording.file, |frame| {
                    judged.sent.push((frame.at, frame.bytes.to_vec()));
                })?;
            }
        }
        judged.sent.sort();
        Ok(judged)
    }
}

/// What was on the wires.
#[derive(Debug, Default)]
pub struct Judged {
    /// Of the outside wires.
    pub verdict: Verdict,
    /// Frames of the laptop's on the outside wires.
    pub sent: Vec<(oracle::At, Vec<u8>)>,
    /// Frames with a canary behind the gateway.
    pub inside: u64,
}

/// `sysrq` c: a null pointer in the kernel (admin-guide/sysrq.rst).
fn panic() -> Start {
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
    Start {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..Start::default()
    }
}
