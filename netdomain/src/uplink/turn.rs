//! The loop: waits for links, frames, messages and time, feeds the machines, does what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
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
    net::Shutdown,
    time::{ClockId, clock_gettime},
};
use sekisho_control::{
    Channel, ChannelError, Command, GateToUplink, ModemToUplink, PathId, Port, Report, UplinkKind,
    UplinkToGate, UplinkToModem,
};

use super::{
    Endpoints, NetlinkError, Transport, UplinkError,
    dhcp::{Client, Socket, Step},
    dot1x::{self, Standing},
    gate_ended,
    meter::Meter,
    netlink::{
        AddressSet, HostRoute, Link, LinkEvent, LinkEvents, NeighbourWatch, Routing, RuleWatch,
        Sets, Wireless,
    },
    ports::{Action, Bound, Event, OpenWire, Ports},
    quota::Mark,
    routers::Routers,
    sockets::{open_path, open_stream},
    supervisor,
    uninvited::Uninvited,
    wire::Wire,
};

type Control = Channel<Report, Command>;
type Gate = Channel<UplinkToGate, GateToUplink>;
pub(super) type Modem = Channel<UplinkToModem, ModemToUplink>;

mod modem;

/// Frames that one port's DHCP client reads in one turn; a flood on one port must not starve the
/// news of a pulled cable on another.
const FRAMES_PER_TURN: usize = 32;
/// Messages taken from the gate in one turn, for the same reason.
const MESSAGES_PER_TURN: usize = 32;

/// Connections of one path that live at a time: a tunnel over TLS is one that signs in and one that
/// carries, and the next attempt may begin before the last has ended.
const MAX_STREAMS: usize = 4;

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
    clients: BTreeMap<u32, (Client, Socket)>,
    /// Where the policy gives the SIM a quota.
    meter: Option<Meter>,
    /// Our own descriptors of the paths: cutting one cuts the gate's copy as well. A path of
    /// datagrams has one, a path of connections the latest few.
    paths: BTreeMap<PathId, Vec<OwnedFd>>,
    /// The work OS's way onto the office LAN, where policy knows one.
    wire: Option<Wire>,
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

/// A transaction id that a neighbour cannot guess.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Fails on no kernel that runs this program; a fixed id is only easier to guess.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
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
            uninvited: Uninvited::open()?,
            keeper: None,
            dot1x: None,
            terminate,
            clients: BTreeMap::new(),
            meter,
            paths: BTreeMap::new(),
            wire: None,
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
        let closed = self.feed(Event::Suspend);
        if closed.is_err() {
            // Whatever went wrong on the way, no link stays up.
            self.links_down();
        }
        served.and(counted).and(closed)
    }

    fn links_down(&mut self) {
        for index in self.ports.indices() {
            let _ = self.routing.set_up(index, false);
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
                    token => {
                        let index = u32::try_from(token.saturating_sub(DHCP)).unwrap_or(0);
                        self.on_frames(index)?;
                    }
                }
            }
            self.on_time()?;
            self.count(false)?;
            if self.ports.any_proven()
                && let Some(what) = self.uninvited.look(now())?
            {
                tracing::warn!("{what}");
                self.report(&Report::Ignored { what })?;
            }
        }
        tracing::info!("ending: links go down, the packet filter stays");
        Ok(())
    }

    fn wait(&self) -> Option<Timespec> {
        let clients = self.clients.values().map(|(client, _)| client.due());
        let meter = self.meter.as_ref().filter(|_| self.ports.has_sim());
        let uninvited = self.ports.any_proven().then(|| self.uninvited.due());
        let due = clients
            .chain(meter.map(Meter::due))
            .chain(uninvited)
            .min()?;
        let wait = due.saturating_sub(now());
        Some(Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn on_links(&mut self) -> Result<(), UplinkError> {
        while let Some(events) = self.links.read() {
            let Ok(events) = events else {
                tracing::warn!("link events were lost; listing the links again");
                self.list_links()?;
                continue;
            };
            for event in events {
                match event {
                    LinkEvent::Changed(link) => self.on_link(link)?,
                    LinkEvent::Gone(index) => self.feed(Event::Gone(index))?,
                }
            }
        }
        Ok(())
    }

    fn list_links(&mut self) -> Result<(), UplinkError> {
        let links = self.routing.links()?;
        let gone = self.ports.absent_from(&links);
        for index in gone {
            self.feed(Event::Gone(index))?;
        }
        links.into_iter().try_for_each(|link| self.on_link(link))
    }

    fn on_link(&mut self, mut link: Link) -> Result<(), UplinkError> {
        link.radio = self.wireless.has(link.index)?;
        self.feed(Event::Link(link))
    }

    /// News of one datagram a turn: whether a router answers is told to people, who have time.
    fn on_neighbours(&mut self) -> Result<(), UplinkError> {
        for neighbour in self.neighbours.read() {
            let Some(event) = self.routers.on(&neighbour) else {
                continue;
            };
            if let Some((port, kind)) = self.ports.port(neighbour.index) {
                let (port, event) = (port.to_owned(), event.to_owned());
                self.report(&Report::Uplink { port, kind, event })?;
            }
        }
        Ok(())
    }

    fn on_control(&mut self) -> Result<(), UplinkError> {
        while let Some(received) = self.control.recv().map_err(supervisor)? {
            let mut fds = received.fds.into_iter();
            match received.message {
                Command::Attach { port: Port::Gate } => {
                    if let Some(fd) = fds.next() {
                        self.attach_gate(Channel::from_fd(fd).map_err(gate_ended)?)?;
                    }
                }
                Command::Attach { port: Port::Modem } => {
                    if let Some(fd) = fds.next() {
                        self.attach_modem(fd)?;
                    }
                }
                Command::Suspend => self.feed(Event::Suspend)?,
                Command::Resume => self.feed(Event::Resume)?,
                Command::Shutdown => self.ending = true,
                Command::Attach { .. }
                | Command::PowerButton
                | Command::Answer { .. }
                | Command::AskAgain
                | Command::Notice { .. } => {
                    tracing::warn!("the supervisor sent a command that is not for the uplink");
                }
            }
        }
        Ok(())
    }

    fn on_dot1x(&mut self) -> Result<(), UplinkError> {
        while let Some(keeper) = &mut self.dot1x
            && let Some((index, standing)) = keeper.read().map_err(UplinkError::Dot1xEnded)?
        {
            self.feed(Event::Standing(index, standing))?;
        }
        Ok(())
    }

    fn on_gate(&mut self) -> Result<(), UplinkError> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(gate) = &self.gate else {
                return Ok(());
            };
            match gate.recv() {
                Ok(Some(received)) => self.feed(Event::Gate(received.message))?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the gate is gone; its sockets are cut");
                    self.drop_gate();
                    return self.feed(Event::GateLost);
                }
            }
        }
        Ok(())
    }

    fn drop_gate(&mut self) {
        if let Some(gate) = self.gate.take() {
            let _ = epoll::delete(&self.epoll, &gate);
        }
    }

    fn on_frames(&mut self, index: u32) -> Result<(), UplinkError> {
        let mut buffer = Socket::buffer();
        for _ in 0..FRAMES_PER_TURN {
            // The port may have gone with the steps of the last frame.
            let Some((client, socket)) = self.clients.get_mut(&index) else {
                break;
            };
            let Some(frame) = socket.receive(&mut buffer) else {
                break;
            };
            let endpoints = &self.endpoints;
            let steps = client.on_frame(now(), frame, &|address| endpoints.names(address));
            self.follow(index, steps)?;
        }
        Ok(())
    }

    fn on_time(&mut self) -> Result<(), UplinkError> {
        let now = now();
        let due: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, (client, _))| client.due() <= now)
            .map(|(index, _)| *index)
            .collect();
        for index in due {
            if let Some((client, _)) = self.clients.get_mut(&index) {
                let steps = client.on_time(now);
                self.follow(index, steps)?;
            }
        }
        Ok(())
    }

    /// Looks at what the SIM moved.
    fn count(&mut self, last: bool) -> Result<(), UplinkError> {
        let now = now();
        let due = |meter: &Meter| last || meter.due() <= now;
        if !self.ports.has_sim() || !self.meter.as_ref().is_some_and(due) {
            return Ok(());
        }
        let links = self.routing.links()?;
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        let sims = links.iter().filter(|link| self.ports.is_sim(link.index));
        let marks = sims.map(|link| Mark {
            index: link.index,
            bytes: link.bytes,
        });
        let (allowance, news) = meter.look(marks, now, last);
        let monthly = meter.monthly();
        // What is told has happened.
        self.feed(Event::Allowance(allowance))?;
        if let Some(news) = news {
            self.report(&Report::Quota {
                used: news.used,
                monthly,
                percent: news.percent,
                state: news.state,
            })?;
        }
        Ok(())
    }

    /// Does what a DHCP client says.
    fn follow(&mut self, index: u32, steps: Vec<Step>) -> Result<(), UplinkError> {
        for step in steps {
            match step {
                Step::Send(frame) => {
                    if let Some((_, socket)) = self.clients.get(&index) {
                        socket.send(&frame);
                    }
                }
                Step::Bound(lease) => self.feed(Event::Bound(index, lease))?,
                Step::Lost => self.feed(Event::LeaseLost(index))?,
                Step::Portal => self.feed(Event::Portal(index))?,
                Step::Ignored(what) => self.report(&Report::Ignored { what })?,
            }
        }
        Ok(())
    }

    /// Does what the ports' machine says, in its order.
    fn feed(&mut self, event: Event) -> Result<(), UplinkError> {
        for action in self.ports.on(event) {
            self.act(action)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), UplinkError> {
        match action {
            Action::Up(index) => or_gone(self.routing.set_up(index, true))?,
            Action::Down(index) => self.routing.set_up(index, false)?,
            Action::StartDhcp(index, mac) => self.start_dhcp(index, mac)?,
            Action::StopDhcp(index) => {
                if let Some((_, socket)) = self.clients.remove(&index) {
                    let _ = epoll::delete(&self.epoll, &socket);
                }
            }
            Action::Configure {
                port,
                lease,
                destinations,
            } => {
                tracing::info!(
                    port = port.name,
                    address = %lease.address,
                    prefix = lease.prefix,
                    router = %lease.router,
                    server = %lease.server,
                    "leased"
                );
                let mut sets = |set, address| self.sets.add_address(set, &port.name, address);
                sets(AddressSet::NextHop, lease.router)?;
                sets(AddressSet::Own, lease.address)?;
                self.routers.leased(port.index, lease.router);
                or_gone(self.routing.add_address(port.index, lease.address))?;
                let hosts = destinations
                    .into_iter()
                    .filter(|host| *host != lease.router);
                for (destination, via) in [(lease.router, None)]
                    .into_iter()
                    .chain(hosts.map(|host| (host, Some(lease.router))))
                {
                    or_gone(self.routing.add_host_route(&HostRoute {
                        index: port.index,
                        destination,
                        source: lease.address,
                        via,
                    }))?;
                }
            }
            Action::BeginDot1x(port) => match &mut self.dot1x {
                Some(keeper) => keeper
                    .begin(port.index, &port.name)
                    .map_err(UplinkError::Dot1xEnded)?,
                None => self.feed(Event::Standing(port.index, Standing::Unable))?,
            },
            Action::EndDot1x(index) => {
                if let Some(keeper) = &mut self.dot1x {
                    keeper.end(index).map_err(UplinkError::Dot1xEnded)?;
                }
            }
            Action::Flush(index) => {
                self.routers.forget(index);
                self.routing.flush(index)?;
            }
            Action::Allow(port, set) => self.sets.add(set, &port)?,
            Action::Forbid(port, set) => self.sets.remove(set, &port)?,
            Action::Forget(port, set, address) => self.sets.remove_address(set, &port, address)?,
            Action::OpenPath { from, path } => self.open_path(&from.port, from.address, &path)?,
            Action::CutPath(id) => {
                for socket in self.paths.remove(&id).unwrap_or_default() {
                    // The socket is one for all who hold a descriptor of it: the gate's dies too.
                    let _ = rustix::net::shutdown(&socket, Shutdown::Both);
                }
            }
            Action::OpenStream {
                id,
                transport,
                from,
                to,
            } => self.open_stream(id, transport, &from, to)?,
            Action::OpenBeacon { from, to } => self.open_beacon(from, to)?,
            Action::OpenWire(plan) => self.open_wire(&plan)?,
            Action::ShutWire(plan) => {
                if let Some(wire) = &self.wire {
                    wire.cut(&plan, &mut self.routing, &mut self.sets)?;
                }
            }
            Action::Tell(UplinkToGate::CarrierLost { port }) => {
                self.beaconless.remove(&port);
                self.tell(&UplinkToGate::CarrierLost { port }, &[])?;
            }
            Action::Tell(message) => self.tell(&message, &[])?,
            Action::Report(report) => self.report(&report)?,
        }
        Ok(())
    }

    fn start_dhcp(&mut self, index: u32, mac: [u8; 6]) -> Result<(), UplinkError> {
        let socket = match Socket::open(index) {
            Ok(socket) => socket,
            // The link may be gone again; its event is on the way.
            Err(error) => {
                tracing::warn!(index, %error, "no DHCP on this port");
                return Ok(());
            }
        };
        self.watch(&socket, DHCP + u64::from(index))?;
        let client = Client::new(mac, now(), random);
        self.clients.insert(index, (client, socket));
        Ok(())
    }

    fn open_path(
        &mut self,
        port: &str,
        source: std::net::Ipv4Addr,
        message: &UplinkToGate,
    ) -> Result<(), UplinkError> {
        let UplinkToGate::Path { id, peer, .. } = message else {
            return Ok(());
        };
        match open_path(port, source, *peer) {
            Ok(socket) => {
                self.tell(message, &[socket.as_fd()])?;
                self.paths.insert(*id, vec![socket]);
            }
            Err(error) => tracing::warn!(port, %peer, %error, "no path to this gateway"),
        }
        Ok(())
    }

    fn open_stream(
        &mut self,
        id: PathId,
        transport: Transport,
        from: &Bound,
        to: SocketAddrV4,
    ) -> Result<(), UplinkError> {
        let opened = match transport {
            Transport::Tcp => open_stream(&from.port, from.address, to),
            Transport::Udp | Transport::Esp => open_path(&from.port, from.address, to),
        };
        match opened {
            Ok(socket) => {
                self.tell(&UplinkToGate::Stream { id }, &[socket.as_fd()])?;
                let streams = self.paths.entry(id).or_default();
                if streams.len() >= MAX_STREAMS {
                    let _ = rustix::net::shutdown(streams.remove(0), Shutdown::Both);
                }
                streams.push(socket);
            }
            // Whoever asked gives up in its own time.
            Err(error) => tracing::warn!(port = from.port, peer = %to, %error, "no connection"),
        }
        Ok(())
    }

    /// Opens the wire and hands it over; what cannot be opened is shut again, and asked for again.
    fn open_wire(&mut self, plan: &OpenWire) -> Result<(), UplinkError> {
        let port = plan.port.name.clone();
        let Some(wire) = &self.wire else {
            self.ports.wire_failed(plan.id);
            return Ok(());
        };
        let joined = wire.join(plan, &mut self.routing, &mut self.sets);
        if !matches!(joined, Ok(true)) {
            if let Err(error) = joined {
                tracing::warn!(port, %error, "no wire");
            } else {
                tracing::info!(port, "the carrier was lost since the proof: no wire");
            }
            wire.cut(plan, &mut self.routing, &mut self.sets)?;
            self.ports.wire_failed(plan.id);
            return Ok(());
        }
        tracing::info!(port, address = %plan.address, "a wire onto the office LAN");
        let message = UplinkToGate::Wire {
            id: plan.id,
            port,
            kind: UplinkKind::Wired,
            index: plan.port.index,
            losses: plan.losses,
        };
        self.tell(&message, &wire.descriptors())
    }

    fn open_beacon(&mut self, from: Bound, to: SocketAddrV4) -> Result<(), UplinkError> {
        let port = from.port;
        match open_stream(&port, from.address, to) {
            Ok(socket) => {
                self.beaconless.remove(&port);
                self.tell(&UplinkToGate::Beacon { port }, &[socket.as_fd()])
            }
            Err(error) => {
                // The gate asks again and again; it is news once.
                if self.beaconless.insert(port.clone()) {
                    tracing::warn!(port, %error, "no connection to the beacon");
                }
                Ok(())
            }
        }
    }

    /// A gate that does not take what it must hear is no gate: this process ends, its sockets with
    /// it, and the supervisor starts both afresh.
    fn tell(
        &self,
        message: &UplinkToGate,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), UplinkError> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        match gate.send(message, fds) {
            Ok(()) => Ok(()),
            // Its end is read in its turn.
            Err(error) if closed(&error) => Ok(()),
            Err(error) => Err(gate_ended(error)),
        }
    }

    fn report(&mut self, report: &Report) -> Result<(), UplinkError> {
        tracing::debug!(?report);
        match self.control.send(report, &[]) {
            // News may be lost, the network not.
            Err(ChannelError::Full) | Ok(()) => Ok(()),
            Err(error) => Err(supervisor(error)),
        }
    }
}

fn closed(error: &ChannelError) -> bool {
    error.ends()
}

/// A link can leave between its event and what is done about it; its own event follows.
fn or_gone(answer: Result<(), NetlinkError>) -> Result<(), UplinkError> {
    match answer {
        Err(error)
            if matches!(
                error.errno(),
                Errno::NODEV | Errno::NETDOWN | Errno::NETUNREACH
            ) =>
        {
            tracing::warn!(%error, "a link left meanwhile");
            Ok(())
        }
        other => Ok(other?),
    }
}
