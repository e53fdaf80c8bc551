//! A laptop whose tunnel an engine makes, and what each such tunnel must live through.

use std::{
    fs,
    time::{Duration, Instant},
};

use sekisho_lab::{LabError, NetLaptop, Part, Recordings, Setup, UP_LIMIT};

use crate::{Download, Expects, Scene, must, times};

/// From the end of an engine to the next tunnel: where it ended before it was up the policy's first pause
/// (1 s), a handshake that is tried once more (1.5 s), and the way up.
pub const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Kills of one run, unless `SEKISHO_KILLS` says otherwise. One takes a second or two.
const KILLS: usize = 10;

/// An engine, and the program that it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// The gateway that it serves, as policy calls it.
    pub gateway: &'static str,
    /// The engine's process.
    pub part: Part,
    /// The number of its program's process.
    pub program: fn(&NetLaptop<'_>) -> Result<u32, LabError>,
    /// Kills its program.
    pub kill_program: fn(&NetLaptop<'_>) -> Result<u32, LabError>,
}

impl Engine {
    /// A laptop that has its tunnel by this engine, with groupware's own page in the guest.
    pub fn laptop<'s>(&self, scene: &'s Scene, setup: &Setup) -> NetLaptop<'s> {
        let laptop = must(NetLaptop::start(&scene.lab, setup));
        must(laptop.plug_guest());
        self.wait_up(&laptop, 0, UP_LIMIT);
        scene.page(&laptop);
        laptop
    }

    /// A laptop whose tunnel must not come up although the gateway is reached, and `why` stands in its
    /// log.
    pub fn is_refused(&self, scene: &Scene, setup: &Setup, why: &str) -> Recordings {
        let laptop = must(NetLaptop::start(&scene.lab, setup));
        must(laptop.plug_guest());
        must(laptop.log().wait_line(why, UP_LIMIT));
        assert!(laptop.page(Duration::from_secs(3)).is_err());
        assert!(laptop.wait_tunnel(0, Duration::from_secs(3)).is_err());
        scene.holds(&laptop, Expects::Closed)
    }

    /// Waits until the gate says that this engine's tunnel is the way.
    pub fn wait_up(&self, laptop: &NetLaptop<'_>, mark: usize, limit: Duration) {
        must(laptop.wait_event(mark, self.gateway, limit, |event| {
            event.is("gate", "situation") && event.text("gateway") == self.gateway
        }));
    }

    /// Waits until the program runs no more.
    pub fn program_ends(&self, laptop: &NetLaptop<'_>) {
        let start = Instant::now();
        while (self.program)(laptop).is_ok() {
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "the program of a tunnel that is not needed runs on"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process has these lines in its status, and sees none of the gate's files.
    pub fn is_closed_in(&self, scene: &Scene, laptop: &NetLaptop<'_>, status: &[&str]) {
        let pid = must((self.program)(laptop));
        let said = must(fs::read_to_string(format!("/proc/{pid}/status")));
        for line in status {
            assert!(said.contains(line), "{line} is not in\n{said}");
        }
        let key = scene.lab.dir().join("device/wg.key");
        assert!(key.exists());
        let seen = format!("/proc/{pid}/root{}", key.display());
        assert!(!must(fs::exists(seen)), "the gate's key is in its root");
    }

    /// The names of the network interfaces that its program sees.
    pub fn interfaces(&self, laptop: &NetLaptop<'_>) -> Vec<String> {
        let pid = must((self.program)(laptop));
        let network = must(fs::read_to_string(format!("/proc/{pid}/net/dev")));
        let names = network.lines().skip(2);
        names
            .map(|line| line.split(':').next().unwrap_or_default().trim().to_owned())
            .collect()
    }

    /// The names in the root of its program.
    pub fn root(&self, laptop: &NetLaptop<'_>) -> Vec<String> {
        let pid = must((self.program)(laptop));
        must(fs::read_dir(format!("/proc/{pid}/root")))
            .map(|entry| must(entry).file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Kills the program and its keeper in turn, as often as `SEKISHO_KILLS` says, at random points, and in
    /// one of four the program again in its next start. Each time the gate closes within a second and the
    /// page is there again; a download of the guest's lives through the first ten.
    pub fn lives_through_kills(&self, laptop: &NetLaptop<'_>) {
        let kills = times("SEKISHO_KILLS", KILLS);
        let mut download = Some(Download::start(laptop, 3_000_000, 100_000));
        let (mut closed, mut back) = (Vec::new(), Vec::new());
        for kill in 0..kills {
            let mut random = [0; 3];
            must(getrandom::fill(&mut random));
            // The random point: right behind the last start, or under traffic.
            std::thread::sleep(Duration::from_millis(u64::from(random[0]) / 2));
            let mut mark = laptop.events().mark();
            let start = Instant::now();
            if kill % 2 == 0 {
                must((self.kill_program)(laptop));
            } else {
                must(laptop.kill(self.part));
            }
            must(laptop.wait_closed(mark, Duration::from_secs(1)));
            closed.push(start.elapsed());
            if random[1] < 64 {
                // And once more while it starts and shakes hands, if it does by then.
                std::thread::sleep(Duration::from_millis(u64::from(random[2])));
                if (self.kill_program)(laptop).is_ok() {
                    mark = laptop.events().mark();
                }
            }
            self.wait_up(laptop, mark, BACK_WITHIN);
            back.push(start.elapsed());
            must(laptop.wait_page(Duration::from_secs(5)));
            if kill + 1 == KILLS.min(kills)
                && let Some(download) = download.take()
            {
                download.lives_on();
            }
        }
        for (what, mut times) in [("closed", closed), ("back", back)] {
            times.sort_unstable();
            let at = |percent: usize| times.get(times.len() * percent / 100);
            if let (Some(median), Some(slow), Some(longest)) = (at(50), at(99), times.last()) {
                eprintln!(
                    "{kills} kills: {what} after {median:?} (median), {slow:?} (99th of a hundred), \
                     {longest:?} (longest)"
                );
            }
        }
    }
}
