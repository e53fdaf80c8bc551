//! Sound: an Intel High Definition Audio controller (specification revision 1.0a) with a codec that
//! has one output and one input, which Windows, Linux and others drive without a driver of ours.
//!
//! [`Hda`] is the PCI function; behind it the registers and rings, the streams and the codec as plain
//! data, and [`sound`], where the samples go. While a stream runs the I/O thread moves what is due five
//! milliseconds at a time, by a clock that is given; a guest's access moves no samples and waits for
//! nobody. All that the guest lists is bounded: a turn moves 9,600 bytes a stream at most and fetches
//! 512 descriptors, a write to the command ring answers 255 commands.
//!
//! Not there: more streams, other formats, jacks that come and go, unsolicited answers, `INTx`.

mod codec;
mod controller;
pub mod fuzzing;
pub mod sound;
mod stream;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub use self::codec::Format;
use self::controller::{BAR_SIZE, Controller};
use self::sound::Sound;
use crate::pci::{Bar, BarShape, Class, ConfigSpace, Identity, Msi, PciDevice, Platform};
use crate::virtio::GuestRam;
use crate::worker::{Interest, Serve, Source, Turn, event_fd};

/// ICH9's: Linux goes by the ids, Windows by the class.
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x293e,
    revision: 3,
    // Multimedia, HD Audio.
    class: Class {
        base: 0x04,
        sub: 0x03,
        interface: 0,
    },
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    multifunction: false,
};
const BAR: u8 = 0;
/// Where ICH9 has its MSI. Drivers write other registers of its configuration space below.
const CAPABILITIES: u16 = 0x60;
/// Between two turns while a stream runs.
const PERIOD: Duration = Duration::from_millis(5);
const TIMER: u32 = 0;

/// Time since some moment; never goes back.
pub type Clock = Box<dyn Fn() -> Duration + Send>;

/// The host's clock.
pub fn clock() -> Clock {
    let start = Instant::now();
    Box::new(move || start.elapsed())
}

/// A sound card on PCI.
///
/// The board locks it for accesses from vCPUs, the worker for turns.
pub struct Hda {
    space: ConfigSpace,
    msi: Msi,
    controller: Controller,
    sound: Box<dyn Sound>,
    clock: Clock,
    wake: EventFd,
    timer: OwnedFd,
    ticking: bool,
    /// Causes that the guest was told of.
    told: u32,
}

impl Hda {
    /// A card that plays to `sound`, at the speed of `clock`.
    pub fn new(
        sound: Box<dyn Sound>,
        clock: Clock,
        ram: GuestRam,
        platform: Arc<dyn Platform>,
    ) -> io::Result<Self> {
        let mut space = ConfigSpace::new(&IDENTITY);
        space.add_bar(BarShape {
            index: BAR,
            size: BAR_SIZE,
            wide: true,
            prefetchable: false,
        });
        space.start_capabilities(CAPABILITIES);
        let msi = Msi::new(&mut space, platform)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            space,
            msi,
            controller: Controller::new(ram),
            sound,
            clock,
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            ticking: false,
            told: 0,
        })
    }

    /// Sends the message for causes that are new. Called after whatever may bring or clear one, so that
    /// one that comes while the guest clears another is not lost.
    fn interrupt(&mut self) {
        let causes = self.controller.interrupts();
        let news = causes & !self.told;
        self.told = causes;
        if news != 0 {
            self.msi.signal();
        }
    }

    fn set_timer(&mut self, on: bool) {
        if on == self.ticking {
            return;
        }
        let period = Timespec {
            tv_sec: 0,
            tv_nsec: if on { PERIOD.subsec_nanos().into() } else { 0 },
        };
        let time = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time) {
            Ok(_) => self.ticking = on,
            // Only a wrong time fails: a mistake of ours.
            Err(error) => tracing::error!("the sound card's clock cannot be set: {error}"),
        }
    }

    fn wake_worker(&self) {
        // A full counter is signalled already.
        let _ = self.wake.write(1);
    }
}

impl PciDevice for Hda {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
        if self.msi.config_written(&self.space) {
            // What was sent before had no way, or another.
            self.told = 0;
            self.interrupt();
        }
    }

    fn bars(&self) -> Vec<Bar> {
        self.space.bars()
    }

    fn read_bar(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        let now = (self.clock)();
        for (at, byte) in (offset..).zip(data) {
            let word = self.controller.read(at & !3, now).to_le_bytes();
            *byte = word[usize::from(at.to_le_bytes()[0] & 3)];
        }
    }

    fn write_bar(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        let now = (self.clock)();
        let master = self.space.bus_master();
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let first = usize::from(at.to_le_bytes()[0] & 3);
            let (part, more) = rest.split_at(rest.len().min(4 - first));
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            value[first..first + part.len()].copy_from_slice(part);
            mask[first..first + part.len()].fill(0xff);
            let (value, mask) = (u32::from_le_bytes(value), u32::from_le_bytes(mask));
            self.controller.write(at & !3, value, mask, now, master);
            at += part.len() as u64;
            rest = more;
        }
        if self.controller.running() != self.ticking {
            self.wake_worker();
        }
        self.interrupt();
    }

    fn reset(&mut self) {
        self.space.reset();
        self.msi.config_written(&self.space);
        self.controller.reset();
        self.told = 0;
        self.wake_worker();
    }
}

impl Serve for Hda {
    fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn wake(&self) -> BorrowedFd<'_> {
        event_fd(&self.wake)
    }

    fn notified(&mut self, _index: usize) {}

    fn woken(&mut self) {
        // Only the count goes; empty means that another wake-up took it.
        let _ = self.wake.read();
    }

    fn ready(&mut self, _token: u32) {
        // As for the wake-up.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }

    fn serve(&mut self) -> Turn {
        let now = (self.clock)();
        let master = self.space.bus_master();
        self.controller.advance(now, master, &mut *self.sound);
        self.set_timer(self.controller.running());
        self.interrupt();
        Turn::Idle
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        list.push(Source {
            token: TIMER,
            fd: self.timer.as_fd(),
            generation: 0,
            interest: Interest {
                read: true,
                ..Interest::default()
            },
        });
    }
}
