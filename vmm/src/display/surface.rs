//! What a graphics driver of the guest's shows in place of the frame buffer, with its pointer: written by
//! the virtio GPU, read by the seat's conversation.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sekisho_seatlink::{CURSOR_SIDE, Mode, Rect, Scanout};
use vmm_sys_util::eventfd::EventFd;

use super::seat::{Canvas, Pointer};
use super::vram::Vram;

/// Bytes of a pointer's picture.
pub const POINTER_LEN: u64 = CURSOR_SIDE as u64 * CURSOR_SIDE as u64 * 4;

/// The picture and its pointer. Neither side calls the other under the lock.
pub struct Surface {
    memory: Arc<Vram>,
    pointer: Vram,
    wake: EventFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The driver has shown something since it came.
    taken: bool,
    scanout: Option<Scanout>,
    damage: Option<Rect>,
    pointer: Pointer,
}

impl Surface {
    /// Shows nothing yet; pictures will lie in `memory`, and `wake` is told of changes.
    pub fn new(memory: Arc<Vram>, wake: EventFd) -> io::Result<Self> {
        Ok(Self {
            memory,
            pointer: Vram::new(POINTER_LEN)?,
            wake,
            state: Mutex::default(),
        })
    }

    /// Where pictures lie.
    pub fn memory(&self) -> &Arc<Vram> {
        &self.memory
    }

    /// This is the picture from now on. From the first one on the screen is the driver's: without a picture it
    /// is off.
    pub fn show(&self, scanout: Option<Scanout>) {
        let mut state = self.lock();
        state.taken |= scanout.is_some();
        state.damage = scanout.map(|scanout| Rect::whole(scanout.mode()));
        state.scanout = scanout;
        if scanout.is_none() {
            state.pointer.seen = false;
        }
        self.changed(state);
    }

    /// The driver is gone, and the frame buffer is shown again.
    pub fn release(&self) {
        let mut state = self.lock();
        *state = State {
            pointer: Pointer {
                seen: false,
                ..state.pointer
            },
            ..State::default()
        };
        self.changed(state);
    }

    /// Whether the screen is the driver's.
    pub fn is_taken(&self) -> bool {
        self.lock().taken
    }

    /// This part of the picture whose first byte is at `start` has changed: of it, what is shown.
    pub fn flushed(&self, start: u64, mode: Mode, part: Rect) {
        let mut state = self.lock();
        let Some(scanout) = state.scanout else { return };
        // Where the shown part begins in the picture.
        let line = u64::from(mode.width()) * 4;
        let skipped = u64::from(scanout.offset()).saturating_sub(start);
        let left = u32::try_from(skipped % line / 4).unwrap_or(0);
        let top = u32::try_from(skipped / line).unwrap_or(0);
        let (right, bottom) = (part.x + part.width, part.y + part.height);
        let moved = Rect {
            x: part.x.saturating_sub(left),
            y: part.y.saturating_sub(top),
            width: right.saturating_sub(part.x.max(left)),
            height: bottom.saturating_sub(part.y.max(top)),
        };
        let part = moved.within(scanout.mode());
        state.damage = match (state.damage, part) {
            (Some(before), Some(part)) => Some(before.union(part)),
            (before, part) => before.or(part),
        };
        self.changed(state);
    }

    /// The pointer has this picture, with its point at `hot`, which lies in it.
    pub fn shape(&self, pixels: &[u8], hot: (u32, u32)) {
        self.pointer.write(0, pixels);
        let mut state = self.lock();
        state.pointer.hot = hot;
        state.pointer.seen = true;
        state.pointer.shape = state.pointer.shape.wrapping_add(1);
        self.changed(state);
    }

    /// The pointer is not to be seen.
    pub fn hide(&self) {
        let mut state = self.lock();
        state.pointer.seen = false;
        self.changed(state);
    }

    /// The pointer's point is here.
    pub fn move_to(&self, at: (u32, u32)) {
        let mut state = self.lock();
        state.pointer.at = at;
        self.changed(state);
    }

    /// What is shown, if anything, and where it lies.
    pub fn picture(&self) -> Option<(Scanout, Arc<Vram>)> {
        let scanout = self.lock().scanout?;
        Some((scanout, Arc::clone(&self.memory)))
    }

    /// What is to be told to the seat while the screen is the driver's.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        let state = self.lock();
        state.taken.then_some(Shown {
            surface: self,
            state,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, state: MutexGuard<'_, State>) {
        drop(state);
        // A full counter is signalled already.
        let _ = self.wake.write(1);
    }
}

/// The picture while the seat is told of it.
pub(super) struct Shown<'a> {
    surface: &'a Surface,
    state: MutexGuard<'a, State>,
}

impl Canvas for Shown<'_> {
    fn number(&self) -> u8 {
        1
    }

    fn scanout(&self) -> Option<Scanout> {
        self.state.scanout
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.surface.memory.file()
    }

    fn pointer(&self) -> Pointer {
        self.state.pointer
    }

    fn pointer_file(&self) -> BorrowedFd<'_> {
        self.surface.pointer.file()
    }

    fn wakes(&self) -> bool {
        true
    }

    fn soil(&mut self) {
        let scanout = self.state.scanout;
        self.state.damage = scanout.map(|scanout| Rect::whole(scanout.mode()));
    }

    fn changed(&mut self, _scanout: Scanout) -> Option<Rect> {
        self.state.damage
    }

    fn told(&mut self) {
        self.state.damage = None;
    }
}
