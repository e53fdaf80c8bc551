//! Attacks that must fail, each against the real programs in network namespaces. The tests are in
//! `tests/attacks`, one module an attack, named by its number in the catalogue; this is the stage
//! that they share.
//!
//! Each test ends in [`Scene::holds`]: the oracle is green, the guest's canary was seen inside the
//! tunnel (so the search works), and then the positive control: a deliberate leak on the same wires
//! turns the same oracle red.
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    reason = "this is part of tests, which fail by panicking"
)]

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sekisho_lab::{
    Cafe, Canary, Lab, NetLaptop, Options, Process, Recordings, Setup, address as at,
    oracle::{Canaries, Verdict, count_canaries},
    programs,
};
use sekisho_skip::{skip, skip_unless};

/// Two laptops with their worlds fill a machine of two cores; more would only wait for each other.
static SEATS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// A world for one test.
#[derive(Debug)]
pub struct Scene {
    /// The world.
    pub lab: Lab,
    canaries: Mutex<Vec<Canary>>,
    _seat: MutexGuard<'static, ()>,
}

/// Says why a test cannot run here, if so.
pub fn skipped() -> bool {
    if skip_unless(
        rustix::process::geteuid().is_root(),
        "network namespaces need root",
    ) {
        return true;
    }
    if let Err(error) = programs() {
        // A machine that is asked to run these tests must not pass without them.
        assert!(std::env::var_os("CI").is_none(), "{error}");
        skip(error);
        return true;
    }
    false
}

/// Unwraps with the error's own words.
pub fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

impl Scene {
    /// The usual cafe, with the laptop's second cable pulled; `None` where it cannot be.
    pub fn cafe() -> Option<Self> {
        Self::with(Cafe::default())
    }

    /// A cafe that its owner or an attacker set up.
    pub fn with(cafe: Cafe) -> Option<Self> {
        Self::of(Options {
            cafe,
            ..Options::default()
        })
    }

    /// A cafe that forwards no UDP, and a gateway that also takes TLS.
    pub fn without_udp() -> Option<Self> {
        Self::of(Options {
            cafe: Cafe {
                blocks_udp: true,
                ..Cafe::default()
            },
            tls: true,
            ..Options::default()
        })
    }

    fn of(options: Options) -> Option<Self> {
        if skipped() {
            return None;
        }
        let seat = SEATS
            .iter()
            .find_map(|seat| seat.try_lock().ok())
            .unwrap_or_else(|| SEATS[0].lock().unwrap_or_else(PoisonError::into_inner));
        let lab = must(Lab::start(options));
        must(lab.unplug(at::ETH1));
        let canaries = Mutex::new(vec![lab.canary().clone()]);
        Some(Self {
            lab,
            canaries,
            _seat: seat,
        })
    }

    /// A laptop that is on, with its tunnel up and groupware's own page in the guest.
    pub fn laptop(&self) -> NetLaptop<'_> {
        let laptop = must(NetLaptop::start_up(&self.lab, &Setup::default()));
        let page = must(laptop.page(Duration::from_secs(10)));
        assert!(
            page.contains(&self.lab.canary().hex()),
            "another page: {page}"
        );
        laptop
    }

    /// A further canary that the oracle is to look for.
    pub fn canary(&self) -> Canary {
        let canary = must(Canary::random());
        self.look_for(&canary);
        canary
    }

    fn look_for(&self, canary: &Canary) {
        self.canaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(canary.clone());
    }

    fn judge(&self) -> (Recordings, Verdict, Canaries) {
        let canaries =
            Canaries::new(&*self.canaries.lock().unwrap_or_else(PoisonError::into_inner));
        let (recordings, verdict) = must(self.lab.judge(&canaries));
        (recordings, verdict, canaries)
    }

    /// The end of a test on the cable `eth0`: no leak; canaries inside the tunnel where `expects` says so; and the same
    /// oracle goes red on a deliberate leak.
    pub fn holds(&self, laptop: &NetLaptop<'_>, expects: Expects) -> Recordings {
        self.holds_on(at::ETH0, laptop, expects)
    }

    /// The same, with the deliberate leak on another cable.
    pub fn holds_on(
        &self,
        interface: &str,
        laptop: &NetLaptop<'_>,
        expects: Expects,
    ) -> Recordings {
        self.look_for(laptop.canary());
        let (recordings, verdict, canaries) = self.judge();
        assert!(verdict.holds(), "{verdict}");
        // Where the packets of another tunnel come out depends on the gateway; beyond it all are seen.
        let behind = match expects {
            Expects::Beyond => "gateway-lgwan",
            Expects::Tunnelled | Expects::Closed | Expects::Silent => "tunnel",
        };
        let inside = must(count_canaries(must(recordings.get(behind)), &canaries));
        match expects {
            Expects::Tunnelled | Expects::Beyond => {
                assert!(verdict.tunnelled > 0, "nothing left through the tunnel");
                assert!(
                    inside > 0,
                    "no canary inside the tunnel: the search proves nothing"
                );
            }
            Expects::Closed => assert_eq!(inside, 0, "something reached the gateway"),
            Expects::Silent => assert_eq!(verdict.frames, 0, "{verdict}"),
        }

        must(self.lab.capture());
        must(laptop.leak(interface));
        let (_, control, _) = self.judge();
        assert!(
            control
                .listed
                .iter()
                .any(|leak| leak.what.contains("a canary in clear"))
                && control
                    .listed
                    .iter()
                    .any(|leak| leak.what.contains("the guest's MAC")),
            "the oracle does not see a deliberate leak: {control}"
        );
        recordings
    }
}

/// What a test ends with, besides no leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// The guest's canary was seen inside the `WireGuard` tunnel.
    Tunnelled,
    /// The guest's canary was seen beyond the gateway, whatever tunnel it came by.
    Beyond,
    /// Nothing of the guest's reached the gateway.
    Closed,
    /// No frame at all was on any outside wire.
    Silent,
}

/// A download in the guest that has to live through what a test does.
#[derive(Debug)]
pub struct Download {
    curl: Process,
    bytes: u32,
}

impl Download {
    /// Starts it: so many bytes of groupware's, at so many a second.
    pub fn start(laptop: &NetLaptop<'_>, bytes: u32, rate: u32) -> Self {
        let url = format!(
            "http://{}/download?rate={rate}&canary={}",
            at::GROUPWARE,
            laptop.canary().hex()
        );
        let range = format!("0-{}", bytes - 1);
        let command = [
            "curl",
            "-s",
            "-m",
            "60",
            "-r",
            &range,
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}\n",
            &url,
        ];
        let curl = must(laptop.guest_spawn("download", &command));
        Self { curl, bytes }
    }

    /// Waits for its end: it had every byte, over one connection.
    pub fn lives_on(mut self) {
        let ended = must(self.curl.wait(Duration::from_mins(1)));
        let said = self.curl.lines();
        assert!(ended.is_some_and(|status| status.success()), "{said:?}");
        assert_eq!(said, [self.bytes.to_string()]);
    }
}
