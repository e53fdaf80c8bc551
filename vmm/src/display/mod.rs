//! The guest's screen: the PCI function that QEMU calls `bochs-display`, which stock firmware, Linux
//! and Windows drive without a driver of ours.
//!
//! [`Display`] is the function: memory that the guest draws into without an exit ([`vram`]), the
//! registers that choose what of it is shown ([`regs`]), and the seat that shows it to the person.
//! Pixels are not copied here: the seat reads the same memory by a descriptor for reading alone, and is told which part
//! of it has changed ([`damage`]), as often as it can take ([`pace`]).
//!
//! Not there: VGA's text and planar modes, the hardware's pointer, depths other than 32 bits, and the
//! clearing of the memory when a mode is set.

pub mod damage;
pub mod edid;
pub mod fuzzing;
pub mod pace;
pub mod regs;
mod seat;
pub mod surface;
pub mod view;
pub mod vram;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use sekisho_seatlink::{Input, Link, Mode, Rect, Scanout};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::damage::Pages;
use self::edid::Edid;
use self::regs::Registers;
use self::seat::{Canvas, Pointer, Seat};
use self::surface::Surface;
use self::vram::Vram;
use crate::pci::{Bar, BarShape, Class, ConfigSpace, Identity, PciDevice};
use crate::worker::{Interest, Serve, Source, Turn, event_fd};

/// Whom the drivers look for; revision 2 says that the registers of QEMU's own are there.
const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x1111,
    revision: 2,
    // Display controller, other: it is no VGA, and has none of its ports.
    class: Class {
        base: 0x03,
        sub: 0x80,
        interface: 0,
    },
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    multifunction: false,
};
const MEMORY_BAR: u8 = 0;
const REGISTER_BAR: u8 = 2;

/// The smallest mode that can be preferred: what firmware's menus need.
pub const MIN_PREFERRED: (u32, u32) = (640, 480);
/// The largest one: what an EDID's detailed timing can say at 60 Hz, and more than a laptop's panel.
pub const MAX_PREFERRED: (u32, u32) = (3840, 2400);
/// Memory of every screen at least: modes up to 2560x1600 whatever is preferred, as QEMU's has. With
/// [`MAX_PREFERRED`] it is 64 MiB, which is the most that a guest can make the host keep for it.
const MIN_VRAM: u64 = 16 << 20;

const SEAT: u32 = 0;
const TIMER: u32 = 1;

/// Whether a mode can be preferred: within the bounds, and lines of whole characters, as timings have.
pub fn can_be_preferred(mode: Mode) -> bool {
    let within = |side, least, most| (least..=most).contains(&side);
    within(mode.width(), MIN_PREFERRED.0, MAX_PREFERRED.0)
        && within(mode.height(), MIN_PREFERRED.1, MAX_PREFERRED.1)
        && mode.width().is_multiple_of(8)
}

/// Bytes of memory of a screen that prefers this mode.
pub fn vram_size(preferred: Mode) -> u64 {
    let picture = u64::from(preferred.width()) * u64::from(preferred.height()) * 4;
    picture.next_power_of_two().max(MIN_VRAM)
}

/// The memory's place in the guest, which the board keeps.
pub trait Aperture: Send {
    /// Lets the guest work on the memory at `address` without an exit, or nowhere. What is not let
    /// reaches [`PciDevice::write_bar`].
    fn place(&mut self, address: Option<u64>) -> io::Result<()>;

    /// The pages that the guest has written there since the last call, a bit each; those of a place
    /// that it has left are lost.
    fn written(&mut self) -> io::Result<Vec<u64>>;
}

/// What takes in keys and pointers: the devices that play them to the guest.
pub trait InputSink: Send {
    /// Something came from the seat. Called from the I/O thread; a seat that is lost or replaced ends
    /// with [`Input::AllUp`].
    fn input(&mut self, input: Input);
}

/// The screen.
///
/// The board locks it for accesses from vCPUs, the worker for turns.
pub struct Display {
    space: ConfigSpace,
    screen: Screen,
    wake: EventFd,
    timer: OwnedFd,
    seat: Option<Seat>,
    /// Counts the seats, whose sockets may have the same number.
    seats: u32,
    sink: Option<Box<dyn InputSink>>,
    /// What the guest's graphics card shows, which goes before the frame buffer.
    surface: Option<Arc<Surface>>,
}

/// What is drawn on and what is shown of it.
struct Screen {
    registers: Registers,
    vram: Arc<Vram>,
    aperture: Box<dyn Aperture>,
    /// Written and not told to the seat.
    touched: Pages,
    failures: u64,
}

impl Display {
    /// A screen that prefers `mode`, on `vram` that the guest reaches through `aperture`.
    pub fn new(mode: Mode, vram: Vram, aperture: Box<dyn Aperture>) -> io::Result<Self> {
        let size = vram.cells().len() as u64;
        let mut space = ConfigSpace::new(&IDENTITY);
        space.add_bar(BarShape {
            index: MEMORY_BAR,
            size,
            wide: false,
            prefetchable: true,
        });
        space.add_bar(BarShape {
            index: REGISTER_BAR,
            size: regs::BAR_SIZE,
            wide: false,
            prefetchable: false,
        });
        let clock = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            space,
            screen: Screen {
                registers: Registers::new(Edid::new(mode), size),
                vram: Arc::new(vram),
                aperture,
                touched: Pages::new(size),
                failures: 0,
            },
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, clock)?,
            seat: None,
            seats: 0,
            sink: None,
            surface: None,
        })
    }

    /// Gives the screen a fresh seat, which takes the place of the one before.
    pub fn attach(&mut self, socket: OwnedFd) -> io::Result<()> {
        let link = Link::new(socket)?;
        self.lose_seat();
        self.seat = Some(Seat::new(link));
        self.seats = self.seats.wrapping_add(1);
        self.wake_worker();
        Ok(())
    }

    /// Says who takes in keys and pointers.
    pub fn set_sink(&mut self, sink: Box<dyn InputSink>) {
        self.sink = Some(sink);
    }

    /// What is shown now, if anything, and the memory that it lies in.
    pub fn picture(&self) -> Option<(Scanout, Arc<Vram>)> {
        if let Some(surface) = self.surface.as_ref().filter(|surface| surface.is_taken()) {
            return surface.picture();
        }
        let scanout = self.screen.registers.scanout()?;
        Some((scanout, Arc::clone(&self.screen.vram)))
    }

    /// Makes room for a graphics card's pictures, `bytes` in all.
    pub fn add_surface(&mut self, bytes: u64) -> io::Result<Arc<Surface>> {
        let memory = Arc::new(Vram::new(bytes)?);
        let surface = Arc::new(Surface::new(memory, self.wake.try_clone()?)?);
        self.surface = Some(Arc::clone(&surface));
        Ok(surface)
    }

    fn lose_seat(&mut self) {
        if self.seat.take().is_some()
            && let Some(sink) = &mut self.sink
        {
            sink.input(Input::AllUp);
        }
    }

    fn wake_worker(&self) {
        // A full counter is signalled already.
        let _ = self.wake.write(1);
    }

    /// One turn of the conversation; whether there is more to hear now.
    fn converse(&mut self) -> Turn {
        let Some(seat) = &mut self.seat else {
            return Turn::Idle;
        };
        let sink = &mut self.sink;
        let heard = seat.hear(|input| {
            if let Some(sink) = sink {
                sink.input(input);
            }
        });
        let now = Instant::now();
        let shown = self.surface.as_ref().and_then(|surface| surface.shown());
        let told = heard.and_then(|more| {
            let due = match shown {
                Some(mut surface) => seat.tell(now, &mut surface),
                None => seat.tell(now, &mut self.screen),
            };
            Ok((more, due?))
        });
        match told {
            Ok((more, due)) => {
                if let Some(due) = due {
                    self.set_timer(due);
                }
                if more { Turn::More } else { Turn::Idle }
            }
            Err(error) => {
                tracing::warn!("the seat is lost, and the work OS goes on without it: {error}");
                self.lose_seat();
                Turn::Idle
            }
        }
    }

    fn set_timer(&mut self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        // Zero would stop it.
        let nanoseconds = i64::from(left.subsec_nanos()).max(1);
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: nanoseconds,
            },
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time) {
            // Only a wrong time fails: a mistake of ours.
            tracing::error!("the screen's clock cannot be set: {error}");
        }
    }
}

impl Screen {
    /// Told ever more seldom: a guest may bring it about for ever, and the log is the host's.
    fn complain(&mut self, what: &str, error: &io::Error) {
        self.failures += 1;
        if self.failures.is_power_of_two() {
            let failures = self.failures;
            tracing::warn!(failures, "the screen's memory cannot be {what}: {error}");
        }
    }
}

impl Canvas for Screen {
    fn number(&self) -> u8 {
        0
    }

    fn pointer(&self) -> Pointer {
        Pointer::default()
    }

    fn pointer_file(&self) -> BorrowedFd<'_> {
        self.vram.file()
    }

    fn wakes(&self) -> bool {
        false
    }

    fn scanout(&self) -> Option<Scanout> {
        self.registers.scanout()
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.vram.file()
    }

    fn soil(&mut self) {
        self.touched.mark(0, self.vram.cells().len() as u64);
    }

    fn changed(&mut self, scanout: Scanout) -> Option<Rect> {
        match self.aperture.written() {
            Ok(pages) => self.touched.merge(&pages),
            Err(error) => self.complain("asked for changes", &error),
        }
        damage::damaged(&self.touched, scanout)
    }

    fn told(&mut self) {
        self.touched.clear();
    }
}

impl PciDevice for Display {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
    }

    fn bars(&self) -> Vec<Bar> {
        self.space.bars()
    }

    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        match bar {
            MEMORY_BAR => self.screen.vram.read(offset, data),
            _ => self.screen.registers.read(offset, data),
        }
    }

    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar == MEMORY_BAR {
            self.screen.vram.write(offset, data);
            self.screen.touched.mark(offset, data.len() as u64);
            return;
        }
        let before = self.screen.registers.scanout();
        self.screen.registers.write(offset, data);
        if self.screen.registers.scanout() != before && self.seat.is_some() {
            self.wake_worker();
        }
    }

    fn bar_moved(&mut self, bar: u8, address: Option<u64>) {
        if bar != MEMORY_BAR {
            return;
        }
        // What was written in the place before and not asked for is not known any more.
        self.screen.soil();
        if let Err(error) = self.screen.aperture.place(address) {
            self.screen.complain("placed", &error);
        }
    }

    fn reset(&mut self) {
        self.space.reset();
        self.screen.registers.reset();
        self.wake_worker();
    }
}

impl Serve for Display {
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
        if let Some(seat) = &mut self.seat {
            seat.hurry();
        }
    }

    fn ready(&mut self, token: u32) {
        if token == TIMER {
            // As for the wake-up.
            let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        } else if let Some(seat) = &mut self.seat {
            seat.has_room();
        }
    }

    fn serve(&mut self) -> Turn {
        self.converse()
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        let Some(seat) = &self.seat else { return };
        let (fd, write) = seat.source();
        let read = Interest {
            read: true,
            ..Interest::default()
        };
        list.push(Source {
            token: SEAT,
            fd,
            generation: self.seats,
            interest: Interest { write, ..read },
        });
        list.push(Source {
            token: TIMER,
            fd: self.timer.as_fd(),
            generation: 0,
            interest: read,
        });
    }
}
