//! The loop: waits for links, frames, messages and time, feeds the machines, does what they say.

mod act;
mod lent;
mod modem;
mod news;
mod open;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use sekisho_control::{
    Channel, Command, GateToUplink, ModemToUplink, PathId, Report, UplinkToGate, UplinkToModem,
};
use sekisho_policy::Direct;

use super::{
    Endpoints, UplinkError,
    dhcp::Client,
    dot1x,
    duplicate::Declined,
    frames::FrameSocket,
    meter::Meter,
    netlink::{Ethtool, LinkEvents, NeighbourWatch, Routing, RuleWatch, Sets, Wireless},
    ports::{Event, Ports},
    routers::Routers,
    shortage::Shortage,
    uninvited::Uninvited,
    wire::Wire,
};

type Control = Channel<Report, Command>;
type Gate = Channel<UplinkToGate, GateToUplink>;
pub(super) type Modem = Channel<UplinkToModem, ModemToUplink>;

/// Messages taken from the gate in one turn, for a flood of them must not starve the news of a pulled
/// cable.
const MESSAGES_PER_TURN: usize = 32;
/// Frames that one port's DHCP client, or the watch over its address, reads in one turn; a flood on one
/// port must not starve the news of a pulled cable on another.
const FRAMES_PER_TURN: usize = 32;

/// What became readable.
const CONTROL: u64 = 0;
const GATE: u64 = 1;
const LINKS: u64 = 2;
const SIGNAL: u64 = 3;
const RULES: u64 = 4;
const NEIGHBOURS: u64 = 5;
const KEEPER: u64 = 6;
const DOT1X: u64 = 7;
const MODEM: u64 = 8;
/// From here on: the DHCP socket of the port with index `token - DHCP`.
const DHCP: u64 = 16;

/// Everything that the running uplink holds.
pub(super) struct Turn {
    endpoints: Endpoints,
    ports: Ports,
    epoll: OwnedFd,
    control: Control,
    gate: Option<Gate>,
    /// Whoever asks ModemManager for the SIM.
    modem: Option<Modem>,
    routing: Routing,
    sets: Sets,
    links: LinkEvents,
    wireless: Wireless,
    rules: RuleWatch,
    neighbours: NeighbourWatch,
    routers: Routers,
    uninvited: Uninvited,
    /// Readable when the keeper of the supplicant has ended.
    keeper: Option<OwnedFd>,
    /// Where the policy demands 802.1X and the laptop can speak it.
    dot1x: Option<dot1x::Keeper>,
    terminate: UnixStream,
    clients: BTreeMap<u32, (Client, FrameSocket)>,
    /// Leases with the work OS's address.
    lent: BTreeMap<u32, lent::Lent>,
    declined: Declined,
    /// Where the policy gives the SIM a quota.
    meter: Option<Meter>,
    /// Our own descriptors of the paths: cutting one cuts the gate's copy as well. A path of
    /// datagrams has one, a path of connections the latest few.
    paths: BTreeMap<PathId, Vec<OwnedFd>>,
    /// The work OS's way onto the office LAN, where policy knows one.
    wire: Option<Wire>,
    /// Sets which cards wake the laptop, where the kernel can.
    ethtool: Option<Ethtool>,
    /// Until when ports are to be proven under the work OS's MAC.
    trials: BTreeMap<u32, Duration>,
    /// What could not be opened.
    shortage: Shortage,
    /// Ports over which the last connection to the beacon could not even be begun.
    beaconless: BTreeSet<String>,
    ending: bool,
}

fn fault(what: &'static str) -> impl Fn(Errno) -> UplinkError {
    move |errno| UplinkError::Loop {
        what,
        source: errno.into(),
    }
}

/// Time that also passes while the laptop sleeps, so that leases end when they end.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Turn {
    /// Opens the loop's own descriptors, in the namespace of the interfaces.
    pub(super) fn open(
        endpoints: Endpoints,
        ports: Ports,
        routing: Routing,
        control: Control,
        meter: Option<Meter>,
    ) -> Result<Self, UplinkError> {
        let failed = |what| move |source| UplinkError::Loop { what, source };
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fault("open an epoll instance"))?;
        let links = LinkEvents::open()?;
        let (terminate, signal) = UnixStream::pair().map_err(failed("make a pipe for signals"))?;
        for number in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            let end = signal
                .try_clone()
                .map_err(failed("copy the signals' pipe"))?;
            signal_hook::low_level::pipe::register(number, end)
                .map_err(failed("register a signal handler"))?;
        }
        let bridged = endpoints.direct == Some(Direct::Bridged);
        let turn = Self {
            endpoints,
            ports,
            control,
            gate: None,
            modem: None,
            routing,
            sets: Sets::open()?,
            links,
            wireless: Wireless::open()?,
            rules: RuleWatch::open()?,
            neighbours: NeighbourWatch::open()?,
            routers: Routers::default(),
            uninvited: Uninvited::open(bridged)?,
            keeper: None,
            dot1x: None,
            terminate,
            clients: BTreeMap::new(),
            lent: BTreeMap::new(),
            declined: Declined::default(),
            meter,
            paths: BTreeMap::new(),
            wire: None,
            ethtool: Ethtool::open()?,
            trials: BTreeMap::new(),
            shortage: Shortage::default(),
            beaconless: BTreeSet::new(),
            ending: false,
            epoll,
        };
        // The first look at the clock finds the vDSO by calls that the sandbox does not allow.
        let _ = now();
        turn.watch(&turn.control, CONTROL)?;
        turn.watch(&turn.links, LINKS)?;
        turn.watch(&turn.terminate, SIGNAL)?;
        turn.watch(&turn.rules, RULES)?;
        turn.watch(&turn.neighbours, NEIGHBOURS)?;
        Ok(turn)
    }

    fn watch(&self, fd: impl AsFd, token: u64) -> Result<(), UplinkError> {
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            epoll::EventFlags::IN,
        )
        .map_err(fault("watch a descriptor"))
    }

    /// Has the device for the office LAN at hand.
    pub(super) fn lay(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    /// Ends this process when the keeper ends.
    pub(super) fn watch_keeper(&mut self, keeper: OwnedFd) -> Result<(), UplinkError> {
        self.watch(&keeper, KEEPER)?;
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Speaks 802.1X over cables by way of its keeper, whose end is the uplink's.
    pub(super) fn watch_dot1x(&mut self, keeper: dot1x::Keeper) -> Result<(), UplinkError> {
        self.watch(&keeper, DOT1X)?;
        self.dot1x = Some(keeper);
        Ok(())
    }

    /// Tells the supervisor that the rules are loaded, and looks at the links that are there.
    pub(super) fn ready(&mut self) -> Result<(), UplinkError> {
        self.report(&Report::Ready)?;
        self.miss_modem()?;
        // A spent quota is known before the first SIM is.
        if let Some(allowance) = self.meter.as_ref().map(Meter::allowance) {
            self.feed(Event::Allowance(allowance))?;
        }
        self.list_links()
    }

    /// Takes a gate's channel and offers it everything that is up.
    pub(super) fn attach_gate(&mut self, gate: Gate) -> Result<(), UplinkError> {
        self.drop_gate();
        self.watch(&gate, GATE)?;
        self.gate = Some(gate);
        self.feed(Event::GateAttached)
    }

    /// Runs until told to end, or until something is not as it must be. Either way the links go
    /// down; the packet filter stays.
    pub(super) fn run(&mut self) -> Result<(), UplinkError> {
        let served = self.serve();
        if matches!(served, Err(UplinkError::RulesChanged)) {
            // Without the rules the kernel answers in its own name, with an ICMP error for each
            // datagram to a socket that is gone. So the links go before the sockets.
            self.links_down();
        }
        let counted = self.count(true);
        // Each of these closes something, so one that fails keeps none of the others.
        let mut closed = Ok(());
        for action in self.ports.on(Event::End) {
            let done = self.act(action);
            closed = closed.and(done);
        }
        if closed.is_err() {
            // Whatever went wrong on the way, no link stays up and no card listens.
            self.links_down();
            self.deafen();
        }
        served.and(counted).and(closed)
    }

    fn links_down(&mut self) {
        for index in self.ports.indices() {
            let _ = self.routing.set_up(index, false);
        }
    }

    /// Lets no card wake the laptop.
    fn deafen(&mut self) {
        let Some(ethtool) = &mut self.ethtool else {
            return;
        };
        for index in self.ports.indices() {
            let _ = ethtool.set_wake(index, false);
        }
    }

    fn serve(&mut self) -> Result<(), UplinkError> {
        let mut ready = Vec::with_capacity(64);
        while !self.ending {
            let wait = self.wait();
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(fault("wait for events")(errno)),
            }
            // A pulled cable goes before everything else.
            self.on_links()?;
            for event in &ready {
                match event.data.u64() {
                    CONTROL => self.on_control()?,
                    GATE => self.on_gate()?,
                    SIGNAL => self.ending = true,
                    RULES if self.rules.changed() => return Err(UplinkError::RulesChanged),
                    KEEPER => return Err(UplinkError::KeeperEnded),
                    DOT1X => self.on_dot1x()?,
                    MODEM => self.on_modem()?,
                    RULES | LINKS => {}
                    NEIGHBOURS => self.on_neighbours()?,
                    token if token >= lent::ARP => {
                        let index = u32::try_from(token - lent::ARP).unwrap_or(0);
                        self.on_arp(index)?;
                    }
                    token => {
                        let index = u32::try_from(token.saturating_sub(DHCP)).unwrap_or(0);
                        self.on_frames(index)?;
                    }
                }
            }
            self.on_time()?;
            self.count(false)?;
            if self.ports.any_proven() {
                for what in self.uninvited.look(now())? {
                    tracing::warn!("{what}");
                    self.report(&Report::Ignored { what })?;
                }
            }
        }
        tracing::info!("ending: links go down, the packet filter stays");
        Ok(())
    }

    fn wait(&self) -> Option<Timespec> {
        let clients = self.clients.values().map(|(client, _)| client.due());
        let lent = self.lent.values().filter_map(lent::Lent::due);
        let meter = self.meter.as_ref().filter(|_| self.ports.has_sim());
        let uninvited = self.ports.any_proven().then(|| self.uninvited.due());
        let due = clients
            .chain(lent)
            .chain(meter.map(Meter::due))
            .chain(uninvited)
            .chain(self.shortage.due())
            .chain(self.trials.values().copied())
            .min()?;
        let wait = due.saturating_sub(now());
        Some(Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn drop_gate(&mut self) {
        if let Some(gate) = self.gate.take() {
            let _ = epoll::delete(&self.epoll, &gate);
        }
    }
}
