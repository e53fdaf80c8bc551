//! Keys and pointers from the seat, and which device of the guest gets them.
//!
//! Keys go to the PS/2 keyboard. A mouse's movements go to the PS/2 mouse; an absolute position goes
//! to the tablet once the work OS has a driver for it, and before that to the mouse as the way from
//! the last position. Buttons and wheel belong to the pointer that moved last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sekisho_seatlink::{AXIS_MAX, Input, Mode, ScanoutId};

use crate::chipset::ps2::Ps2Controller;
use crate::display::InputSink;
use crate::virtio::VirtioPci;
use crate::virtio::input::Tablet;

/// First mouse button of `input-event-codes.h`, and the one after the last.
const BTN_MOUSE: u16 = 0x110;
const BTN_JOYSTICK: u16 = 0x120;
/// A screen of this size has the mouse move as far as the tablet, where no other is known.
const SCREEN: (u32, u32) = (1024, 768);

/// Which pointer moved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pointer {
    Mouse,
    Tablet,
}

/// The guest's input devices.
pub struct InputDevices {
    ps2: Option<Arc<Mutex<Ps2Controller>>>,
    tablet: Arc<Mutex<VirtioPci<Tablet>>>,
    pointer: Pointer,
    /// The last absolute position, where the mouse plays the tablet.
    last: Option<(u16, u16)>,
    screen: (u32, u32),
}

impl InputDevices {
    /// The keyboard and mouse of a board that has them, and a tablet.
    pub fn new(
        ps2: Option<Arc<Mutex<Ps2Controller>>>,
        tablet: Arc<Mutex<VirtioPci<Tablet>>>,
    ) -> Self {
        Self {
            ps2,
            tablet,
            pointer: Pointer::Mouse,
            last: None,
            screen: SCREEN,
        }
    }

    fn resized(&mut self, screen: ScanoutId, mode: Mode) {
        if screen == ScanoutId::FIRST {
            self.screen = (mode.width(), mode.height());
        }
    }

    fn at(&mut self, x: u16, y: u16) {
        let driven = lock(&self.tablet).running();
        if driven {
            self.last = None;
            self.turn_to(Pointer::Tablet);
            return self.tablet(|tablet| tablet.at(x, y));
        }
        self.turn_to(Pointer::Mouse);
        // Pixels from the left and the top: their differences add up to the whole way.
        let pixel = |at: u16, side: u32| {
            let at = u64::from(at) * u64::from(side) / u64::from(AXIS_MAX);
            i32::try_from(at).unwrap_or(i32::MAX)
        };
        let place = |(x, y): (u16, u16)| (pixel(x, self.screen.0), pixel(y, self.screen.1));
        let (now, before) = (place((x, y)), place(self.last.unwrap_or((x, y))));
        self.last = Some((x, y));
        self.ps2(|ps2| ps2.moved(now.0 - before.0, now.1 - before.1, 0));
    }

    /// Buttons that are held on the other pointer are let go: their release would not get there.
    fn turn_to(&mut self, pointer: Pointer) {
        if std::mem::replace(&mut self.pointer, pointer) != pointer {
            match pointer {
                Pointer::Mouse => self.tablet(Tablet::all_up),
                Pointer::Tablet => self.ps2(Ps2Controller::buttons_up),
            }
        }
    }

    fn ps2(&self, act: impl FnOnce(&mut Ps2Controller)) {
        if let Some(ps2) = &self.ps2 {
            act(&mut lock(ps2));
        }
    }

    fn tablet(&self, act: impl FnOnce(&mut Tablet)) {
        lock(&self.tablet).update(act);
    }
}

impl InputSink for InputDevices {
    /// What speaks of pictures is not for here.
    fn input(&mut self, input: Input) {
        match input {
            Input::Presented(_) => {}
            Input::Size(screen, mode) => self.resized(screen, mode),
            Input::Key { code, down } if (BTN_MOUSE..BTN_JOYSTICK).contains(&code) => {
                match self.pointer {
                    Pointer::Mouse => self.ps2(|ps2| ps2.key(code, down)),
                    Pointer::Tablet => self.tablet(|tablet| {
                        tablet.button(code, down);
                    }),
                }
            }
            Input::Key { code, down } => self.ps2(|ps2| ps2.key(code, down)),
            Input::AllUp => {
                self.ps2(Ps2Controller::all_up);
                self.tablet(Tablet::all_up);
            }
            Input::Moved { dx, dy } => {
                self.turn_to(Pointer::Mouse);
                self.ps2(|ps2| ps2.moved(dx, dy, 0));
            }
            Input::At { x, y, .. } => self.at(x, y),
            Input::Wheel { clicks } => match self.pointer {
                Pointer::Mouse => self.ps2(|ps2| ps2.moved(0, 0, clicks)),
                Pointer::Tablet => self.tablet(|tablet| tablet.wheel(clicks)),
            },
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
