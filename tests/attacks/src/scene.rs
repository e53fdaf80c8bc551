//! A world for one test, and how it ends.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use sekisho_lab::{
    Cafe, Canary, Event, Lab, NetLaptop, Options, Output, Process, Recordings, Setup, UP_LIMIT,
    address as at,
    oracle::{Canaries, Verdict, count_canaries},
};

use crate::{must, skipped};

/// Two laptops with their worlds fill a machine of two cores; more would only wait for each other.
static SEATS: Seats = Seats {
    free: Mutex::new(2),
    freed: Condvar::new(),
};

/// How many worlds there may be yet.
#[derive(Debug)]
struct Seats {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Leave for one world. It is given back also by a test that fails.
#[derive(Debug)]
struct Seat(&'static Seats);

impl Seats {
    fn take(&'static self) -> Seat {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Seat(self)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// A world for one test.
#[derive(Debug)]
pub struct Scene {
    /// The world.
    pub lab: Lab,
    canaries: Mutex<Vec<Canary>>,
    _seat: Seat,
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

    /// The same, where that gateway demands a one-time password.
    pub fn with_otp() -> Option<Self> {
        Self::of(Options {
            cafe: Cafe {
                blocks_udp: true,
                ..Cafe::default()
            },
            tls: true,
            otp: true,
            ..Options::default()
        })
    }

    /// A cafe that does not forward to `WireGuard`'s port, and a gateway that also takes `IKEv2` and
    /// gives the laptop this address.
    pub fn with_ipsec(address: std::net::Ipv4Addr) -> Option<Self> {
        Self::of(Options {
            cafe: Cafe {
                blocks_wireguard: true,
                ..Cafe::default()
            },
            ike: Some(address),
            ..Options::default()
        })
    }

    pub(crate) fn of(options: Options) -> Option<Self> {
        if skipped() {
            return None;
        }
        let seat = SEATS.take();
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
        self.page(&laptop);
        laptop
    }

    /// Groupware's own page is in the guest, and no other.
    pub fn page(&self, laptop: &NetLaptop<'_>) {
        let page = must(laptop.page(Duration::from_secs(10)));
        assert!(
            page.contains(&self.lab.canary().hex()),
            "another page: {page}"
        );
    }

    /// Runs a command in a node of the lab, which has to succeed; what it said.
    pub fn run(&self, node: &str, command: &[&str]) -> String {
        must(must(self.lab.run(node, command)).ok()).stdout
    }

    /// Starts a Python program of the folder `stage` in a node and waits until it is ready.
    pub fn stage(&self, node: &str, name: &str, program: &str, arguments: &[&str]) -> Process {
        let program = format!("{}/stage/{program}", env!("CARGO_MANIFEST_DIR"));
        let command = [&["python3", "-u", &program][..], arguments].concat();
        let process = must(self.lab.spawn(node, name, &command));
        must(process.wait_line("ready", Duration::from_secs(20)));
        process
    }

    /// What a command says in the namespace of the laptop's network cards.
    pub fn uplink(&self, laptop: &NetLaptop<'_>, command: &[&str]) -> Output {
        let (program, arguments) = command.split_first().unwrap_or((&"true", &[]));
        let mut prepared = must(laptop.uplink_space()).command(program);
        prepared.args(arguments);
        must(self.lab.run_command(prepared, Duration::from_secs(10)))
    }

    /// Waits until the gate says that the tunnel is up at this place.
    pub fn placed(&self, laptop: &NetLaptop<'_>, mark: usize, place: &str) -> Event {
        must(laptop.wait_event(mark, place, UP_LIMIT, |event| {
            event.is("gate", "situation") && event.text("place") == place
        }))
    }

    /// A further canary that the oracle is to look for.
    pub fn canary(&self) -> Canary {
        let canary = must(Canary::random());
        self.look_for(&canary);
        canary
    }

    /// The canary of an earlier laptop, which the oracle is to look for too.
    pub fn look_for(&self, canary: &Canary) {
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
        // Where the packets of another tunnel come out depends on the gateway; beyond it all are
        // seen.
        let behind = match expects {
            Expects::Beyond => "gateway-lgwan",
            Expects::Direct | Expects::Desk | Expects::Both => "office-router",
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
            Expects::Direct => {
                assert!(verdict.direct > 0, "nothing left without a tunnel");
                assert!(
                    inside > 0,
                    "no canary beyond the wire: the search proves nothing"
                );
                let tunnel = must(count_canaries(must(recordings.get("tunnel")), &canaries));
                assert_eq!(tunnel, 0, "the tunnel carried what was to go direct");
            }
            Expects::Desk | Expects::Both => {
                assert!(verdict.direct > 0, "nothing left without a tunnel");
                assert!(
                    inside > 0,
                    "no canary beyond the wire: the search proves nothing"
                );
                if expects == Expects::Both {
                    assert!(verdict.tunnelled > 0, "nothing left through the tunnel");
                }
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
                && control.listed.iter().any(|leak| {
                    // Where the guest is a member of the LAN its MAC is at home.
                    leak.what.contains("the guest's MAC")
                        || leak.what.contains("the guest's inner address")
                }),
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
    /// The guest's canary was seen on the office LAN, and not inside the tunnel.
    Direct,
    /// On the office LAN, whether or not some of it went through the tunnel in between.
    Desk,
    /// On the office LAN at its time, and through the tunnel at another.
    Both,
    /// Nothing of the guest's reached the gateway.
    Closed,
    /// No frame at all was on any outside wire.
    Silent,
}
