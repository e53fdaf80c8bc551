//! The main thread's loop while the guest runs: the supervisor, the terminal, signals, the clock,
//! the links, and at last the guest's end.

use std::io::{self, Stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sekisho_control::Report;

use crate::api::{ApiSocket, Machine, Refusal, State, Statistics};
use crate::board::Panel;
use crate::board::pause::{Holder, KvmGuest, Pauses, Times};
use crate::board::power::Ending;
use crate::chipset::laptop::Laptop;
use crate::control::{Control, Order};
use crate::devices::Devices;
use crate::supply::host::Host;
use crate::waking::Waking;

/// How long a guest may take to shut down when the supervisor ends the VMM: a desktop that saves
/// its documents takes some ten seconds, one that asks the person a question takes for ever.
const SHUTDOWN_GRACE: Duration = Duration::from_mins(1);
/// The terminal is not asked for more while the guest does not read.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What the loop works with.
pub struct Desk {
    /// The board's buttons.
    pub panel: Panel,
    /// The supervisor.
    pub control: Control,
    /// The devices, for fresh links.
    pub devices: Devices,
    /// Becomes readable on SIGINT, SIGTERM and SIGHUP.
    pub signals: OwnedFd,
    /// What pauses the guest and sets its clock.
    pub pauses: Pauses<KvmGuest>,
    /// Tells that the host slept.
    pub waking: Waking,
    /// The host's battery, mains and lid.
    pub laptop: Option<Host>,
    /// Standard input, while the serial port reads it.
    pub keys: Option<Stdin>,
    /// The control socket.
    pub api: Option<ApiSocket>,
    /// How many processors the machine has, and how many MiB of memory.
    pub size: (u8, u64),
    /// When the VMM started.
    pub started: Instant,
}

/// What woke the loop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Power,
    Signal,
    Woke,
    Control,
    Keys,
    View,
    Api,
    Link(usize),
}

impl Desk {
    /// Serves until the guest has ended; tells how.
    pub fn serve(mut self) -> io::Result<Ending> {
        self.control.report(&Report::Ready);
        for _ in &self.devices.links {
            self.control.report(&Report::Link { up: true });
        }
        let mut deadline = None;
        loop {
            if let Some(ending) = self.panel.power.ending() {
                let cause = ending.cause().to_owned();
                self.control.report(&Report::WorkEnded { cause });
                return Ok(ending.clone());
            }
            for wake in self.wait(deadline)? {
                match wake {
                    // Who asks is answered below, as time may have come too.
                    Wake::Power | Wake::Api => {}
                    Wake::Signal => self.panel.power.end(Ending::Stopped),
                    Wake::Woke => self.woke()?,
                    Wake::Control => self.orders(&mut deadline),
                    Wake::Keys => self.typed(),
                    Wake::View => self.devices.answer_viewer(),
                    Wake::Link(index) => self.link_lost(index),
                }
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                tracing::warn!("the work OS did not shut down in time and is switched off");
                self.panel.power.end(Ending::Stopped);
            }
            self.answer();
            lock(&self.panel.clock).tick();
            if let (Some(host), Some(window)) = (&mut self.laptop, &self.panel.laptop) {
                show(host, window);
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Wake>> {
        let mut wakes = vec![Wake::Power, Wake::Signal, Wake::Woke];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.panel.power.as_fd(), PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.waking, PollFlags::IN),
        ];
        if let Some(channel) = self.control.source() {
            wakes.push(Wake::Control);
            fds.push(PollFd::from_borrowed_fd(channel, PollFlags::IN));
        }
        let full = self.keys.is_some() && self.room() == 0;
        if let Some(keys) = self.keys.as_ref().filter(|_| !full) {
            wakes.push(Wake::Keys);
            fds.push(PollFd::new(keys, PollFlags::IN));
        }
        if let Some(viewers) = self.devices.viewers() {
            wakes.push(Wake::View);
            fds.push(PollFd::from_borrowed_fd(viewers, PollFlags::IN));
        }
        if let Some(api) = &self.api {
            wakes.push(Wake::Api);
            fds.push(PollFd::new(api, PollFlags::IN));
        }
        for (index, (_, link)) in self.devices.links.iter().enumerate() {
            wakes.push(Wake::Link(index));
            // Only its end: what it carries is the I/O thread's.
            fds.push(PollFd::new(link, PollFlags::RDHUP));
        }
        let timeout = [
            deadline.map(|at| at.saturating_duration_since(Instant::now())),
            lock(&self.panel.clock).next_tick(),
            full.then_some(FULL_PAUSE),
            self.laptop.as_ref().map(|host| host.next(Instant::now())),
            self.api.as_ref().and_then(|api| {
                let now = self.started.elapsed();
                Some(api.due(now)?.saturating_sub(now))
            }),
        ];
        let timeout = timeout.into_iter().flatten().min();
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut ready: Vec<Wake> = wakes
            .into_iter()
            .zip(ready)
            .filter_map(|(wake, ready)| ready.then_some(wake))
            .collect();
        // Lost links are removed from the end, so that the other numbers stay right.
        ready.reverse();
        Ok(ready)
    }

    fn orders(&mut self, deadline: &mut Option<Instant>) {
        while let Some(order) = self.control.take() {
            match order {
                Order::Link(socket) => self.attach(socket),
                Order::GuestChannel(socket) => {
                    if let Err(error) = self.devices.attach_guest_channel(socket) {
                        tracing::warn!("{error}");
                    }
                }
                Order::Seat(socket) => {
                    if let Err(error) = self.devices.attach_seat(socket) {
                        tracing::warn!("{error}");
                    }
                }
                Order::Sleep => match self.pauses.pause(Holder::Host, Times::now()) {
                    Ok(()) => tracing::info!("the guest stands still while the host sleeps"),
                    Err(error) => tracing::error!("the guest runs while the host sleeps: {error}"),
                },
                Order::Wake => {
                    if self.pauses.resume(Holder::Host, Times::now()) {
                        tracing::info!("the guest goes on");
                    }
                    self.hurry();
                }
                Order::PowerButton => lock(&self.panel.pm).press_power_button(),
                Order::Shutdown | Order::Orphaned => {
                    // Who stands still cannot shut down.
                    self.pauses.release(Times::now());
                    lock(&self.panel.pm).press_power_button();
                    deadline.get_or_insert_with(|| Instant::now() + SHUTDOWN_GRACE);
                }
            }
        }
    }

    /// Answers who asks by the control socket.
    fn answer(&mut self) {
        let now = self.started.elapsed();
        let Some(api) = &mut self.api else {
            return;
        };
        let mut machine = Asked {
            panel: &self.panel,
            pauses: &mut self.pauses,
            devices: &self.devices,
            size: self.size,
            age: now,
        };
        api.turn(&mut machine, now);
    }

    /// The host slept, or its clock was set.
    fn woke(&mut self) -> io::Result<()> {
        self.waking.again()?;
        if let Some(slept) = self.pauses.woke(Times::now()) {
            tracing::warn!("the host slept for {slept:?}, of which nobody told beforehand");
        }
        self.hurry();
        Ok(())
    }

    /// Battery, mains and lid may be others.
    fn hurry(&mut self) {
        if let Some(host) = &mut self.laptop {
            host.hurry(Instant::now());
        }
    }

    fn attach(&mut self, socket: OwnedFd) {
        let Some(nic) = self.devices.nics.first() else {
            return tracing::warn!("the supervisor attached a link, and the guest has no NIC");
        };
        // The duplicate of the old link would keep it open.
        self.devices.links.retain(|(nic, _)| *nic != 0);
        match nic.attach(socket) {
            Ok(watch) => {
                self.devices.links.push((0, watch));
                self.control.report(&Report::Link { up: true });
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn link_lost(&mut self, index: usize) {
        if index < self.devices.links.len() {
            self.devices.links.remove(index);
            self.control.report(&Report::Link { up: false });
        }
    }

    fn room(&self) -> usize {
        let serial = self.panel.serial.as_ref();
        serial.map_or(0, |serial| lock(serial).room())
    }

    fn typed(&mut self) {
        let Some(keys) = &self.keys else { return };
        let mut buffer = [0; 64];
        let room = self.room().min(buffer.len());
        match rustix::io::read(keys, &mut buffer[..room]) {
            Ok(0) => self.keys = None,
            Ok(count) => {
                if let Some(serial) = &self.panel.serial {
                    lock(serial).receive(&buffer[..count]);
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.keys = None,
        }
    }
}

/// The machine as the control socket has it.
struct Asked<'d> {
    panel: &'d Panel,
    pauses: &'d mut Pauses<KvmGuest>,
    devices: &'d Devices,
    size: (u8, u64),
    age: Duration,
}

impl Machine for Asked<'_> {
    fn state(&self) -> State {
        let (cpus, memory_mib) = self.size;
        State {
            held_by: self.pauses.held_by().collect(),
            age: self.age,
            cpus,
            memory_mib,
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            exits: self.panel.counts.sums(),
            disks: self.devices.disk_counters(),
            nics: self.devices.nic_counters(),
        }
    }

    fn pause(&mut self) -> Result<(), Refusal> {
        let paused = self.pauses.pause(Holder::Person, Times::now());
        paused.map_err(|error| {
            tracing::error!("the guest was to be paused, and runs: {error}");
            Refusal::DoesNotStop
        })
    }

    fn resume(&mut self) {
        self.pauses.resume(Holder::Person, Times::now());
    }

    fn press_power_button(&mut self) {
        lock(&self.panel.pm).press_power_button();
    }

    fn press_sleep_button(&mut self) -> Result<(), Refusal> {
        let laptop = self.panel.laptop.as_ref().ok_or(Refusal::NoButton)?;
        lock(laptop).press_sleep_button();
        Ok(())
    }

    fn reset(&mut self) {
        self.panel.power.end(Ending::Reset);
        // Who stands still does not see the end.
        self.pauses.release(Times::now());
    }
}

/// Shows the guest what is new of the host's battery, mains and lid.
pub fn show(host: &mut Host, window: &Mutex<Laptop>) {
    let Some(seen) = host.look(Instant::now()) else {
        return;
    };
    let mut window = lock(window);
    window.set_power(seen.power);
    if let Some(open) = seen.lid_open {
        window.set_lid(open);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
