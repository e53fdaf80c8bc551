//! Graphics card (virtio 1.2, section 5.7), 2D mode with one screen: what Linux, and Windows with the
//! distribution's drivers, draw by once firmware's frame buffer has done its part.
//!
//! The driver draws in guest memory and has the device copy what has changed ([`resources`]); what is shown
//! is a part of one picture, which the seat is told of through the [`Surface`]. Until the driver shows
//! something, and once it is gone, the frame buffer beside this card is on the screen.
//!
//! Not there: 3D, blob resources, more screens than one.

mod protocol;
mod resources;

use std::sync::Arc;

use sekisho_seatlink::{CURSOR_SIDE, Mode, Rect};

use self::protocol::{Answer, Command, Request, entry};
use self::resources::Resources;
use super::{Chain, Device, DriverFault, GuestRam, Io, Kind, Progress, QUEUE_SIZE};
use crate::display::edid::{EDID_LEN, Edid};
use crate::display::surface::{POINTER_LEN, Surface};
use crate::worker::Turn;

/// `VIRTIO_GPU_F_EDID`.
const F_EDID: u64 = 1 << 1;
/// Screens that a driver is told of; only the first is there.
const SCREENS: usize = 16;
/// Requests of a queue in one turn.
const BUDGET: usize = 64;
/// Bytes of pictures that are written in one turn, after which the other devices have theirs: a few milliseconds. A
/// request is not cut; the largest writes one whole picture.
const COPY_BUDGET: u64 = 8 << 20;
/// Bytes that could be copied while one entry of a list is looked up in a chain of many buffers.
const ENTRY_COST: u64 = 512;
/// The EDID's place in its answer is this long.
const EDID_ROOM: usize = 1024;

const CONTROL: usize = 0;
const CURSOR: usize = 1;

/// The card.
pub struct Gpu {
    surface: Arc<Surface>,
    preferred: Mode,
    resources: Resources,
    /// The picture that is shown.
    shown: Option<u32>,
    chain: Chain,
    active: bool,
    notified: [bool; 2],
    refused: u64,
}

impl Gpu {
    /// A card whose screen prefers `mode` and shows on `surface`.
    pub fn new(mode: Mode, surface: Arc<Surface>) -> Self {
        let size = surface.memory().cells().len() as u64;
        Self {
            surface,
            preferred: mode,
            resources: Resources::new(size),
            shown: None,
            chain: Chain::default(),
            active: false,
            notified: [false; 2],
            refused: 0,
        }
    }

    /// Requests that were answered with an error.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn show(&mut self, id: u32, part: Rect) -> Result<(), Answer> {
        if id == 0 {
            self.shown = None;
            self.surface.show(None);
            return Ok(());
        }
        let scanout = self.resources.get(id)?.scanout(part);
        let scanout = scanout.ok_or(Answer::InvalidParameter)?;
        self.shown = Some(id);
        self.surface.show(Some(scanout));
        Ok(())
    }

    /// Makes a black picture; its bytes.
    fn create(&mut self, id: u32, format: u32, sides: (u32, u32)) -> Result<u64, Answer> {
        let start = self.resources.create(id, format, sides)?.start();
        // What a picture held that is gone is not this one's.
        let len = u64::from(sides.0) * u64::from(sides.1) * 4;
        self.surface.memory().clear(start, len);
        Ok(len)
    }

    fn remove(&mut self, id: u32) -> Result<(), Answer> {
        self.resources.remove(id)?;
        if self.shown == Some(id) {
            self.shown = None;
            self.surface.show(None);
        }
        Ok(())
    }

    fn flush(&mut self, part: Rect, id: u32) -> Result<(), Answer> {
        let resource = self.resources.get(id)?;
        if part.within(resource.mode()) != Some(part) {
            return Err(Answer::InvalidParameter);
        }
        if self.shown == Some(id) {
            self.surface
                .flushed(resource.start(), resource.mode(), part);
        }
        Ok(())
    }

    fn shape(&mut self, id: u32, hot: (u32, u32)) -> Result<(), Answer> {
        if id == 0 {
            self.surface.hide();
            return Ok(());
        }
        let resource = self.resources.get(id)?;
        let square = Mode::new(CURSOR_SIDE, CURSOR_SIDE);
        if Some(resource.mode()) != square || hot.0 >= CURSOR_SIDE || hot.1 >= CURSOR_SIDE {
            return Err(Answer::InvalidParameter);
        }
        let mut pixels = vec![0; usize::try_from(POINTER_LEN).unwrap_or(0)];
        self.surface.memory().read(resource.start(), &mut pixels);
        self.surface.shape(&pixels, hot);
        Ok(())
    }

    /// Carries a command out: how the answer begins, what follows its header, and how many bytes were
    /// written for it.
    fn carry_out(
        &mut self,
        ram: &GuestRam,
        request: &Request,
    ) -> Result<(Answer, Vec<u8>, u64), Answer> {
        let mut copied = 0;
        match request.command()? {
            Command::GetDisplayInfo => {
                return Ok((Answer::DisplayInfo, screens(self.preferred), 0));
            }
            Command::GetEdid { scanout: 0 } => {
                return Ok((Answer::Edid, edid(self.preferred), 0));
            }
            Command::Create { id, format, sides } => copied = self.create(id, format, sides)?,
            Command::Unref { id } => self.remove(id)?,
            Command::SetScanout {
                part,
                scanout: 0,
                id,
            } => self.show(id, part)?,
            Command::Flush { part, id } => self.flush(part, id)?,
            Command::Transfer { part, offset, id } => {
                let resource = self.resources.get(id)?;
                copied = resource.transfer(ram, self.surface.memory(), part, offset)?;
            }
            Command::AttachBacking { id, entries } => {
                let chain = &self.chain;
                let entry = |index| entry(ram, chain, index);
                self.resources.attach(ram, id, entries, entry)?;
                // Each entry is looked up in the chain, which takes as long as some copying.
                copied = u64::from(entries) * ENTRY_COST;
            }
            Command::DetachBacking { id } => self.resources.detach(id)?,
            Command::UpdateCursor {
                at,
                scanout: 0,
                id,
                hot,
            } => {
                self.surface.move_to(at);
                self.shape(id, hot)?;
            }
            Command::MoveCursor { at, scanout: 0 } => self.surface.move_to(at),
            Command::GetEdid { .. }
            | Command::SetScanout { .. }
            | Command::UpdateCursor { .. }
            | Command::MoveCursor { .. } => return Err(Answer::InvalidScanout),
        }
        Ok((Answer::NoData, Vec::new(), copied))
    }

    fn serve(&mut self, io: &mut Io<'_>, index: usize) -> Result<Turn, DriverFault> {
        let Some(queue) = io.queues.get_mut(index) else {
            return Ok(Turn::Idle);
        };
        let mut copied = 0;
        for _ in 0..BUDGET {
            if !queue.pop(io.ram, &mut self.chain)? {
                if !queue.listen(io.ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let request = Request::read(io.ram, &self.chain);
            let (answer, body, bytes) =
                self.carry_out(io.ram, &request).unwrap_or_else(|refusal| {
                    self.refused += 1;
                    (refusal, Vec::new(), 0)
                });
            copied += bytes;
            let mut reply = request.header(answer).to_vec();
            reply.extend(body);
            // The cursor's requests have no room for an answer, and need none.
            let written = self.chain.write_at(io.ram, 0, &reply);
            queue.push(
                io.ram,
                self.chain.head(),
                u32::try_from(written).unwrap_or(0),
            )?;
            if copied >= COPY_BUDGET {
                break;
            }
        }
        Ok(Turn::More)
    }
}

/// What follows the header of a display information: a place, whether it is there, and flags, for each
/// screen.
fn screens(preferred: Mode) -> Vec<u8> {
    let first = [0, 0, preferred.width(), preferred.height(), 1, 0];
    let mut screens: Vec<u8> = first.iter().flat_map(|word| word.to_le_bytes()).collect();
    screens.resize(SCREENS * screens.len(), 0);
    screens
}

/// What follows the header of an EDID: its length, and room for a long one.
fn edid(preferred: Mode) -> Vec<u8> {
    let length = u32::try_from(EDID_LEN).unwrap_or(0);
    let mut answer = length.to_le_bytes().to_vec();
    answer.extend([0; 4]);
    answer.extend(Edid::new(preferred).bytes());
    answer.resize(8 + EDID_ROOM, 0);
    answer
}

impl Device for Gpu {
    fn kind(&self) -> Kind {
        Kind::Gpu
    }

    fn features(&self) -> u64 {
        F_EDID
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // No events; one screen; no capability sets.
        let config = [0_u32, 0, 1, 0].map(u32::to_le_bytes);
        for (at, byte) in (offset..).zip(data) {
            *byte = config.as_flattened().get(at).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, _features: u64) {
        self.active = true;
    }

    fn reset(&mut self) -> Progress {
        self.surface.release();
        *self = Self::new(self.preferred, Arc::clone(&self.surface));
        Progress::Done
    }

    fn notified(&mut self, index: usize) {
        if let Some(notified) = self.notified.get_mut(index) {
            *notified = true;
        }
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let mut turn = Turn::Idle;
        for index in [CONTROL, CURSOR] {
            if self.active && std::mem::take(&mut self.notified[index]) {
                self.notified[index] = self.serve(io, index)? == Turn::More;
                if self.notified[index] {
                    turn = Turn::More;
                }
            }
        }
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::protocol::HEADER_LEN;
    use super::*;

    #[test]
    fn answers_are_as_long_as_drivers_expect() {
        let mode = Mode::FULL_HD;
        // `virtio_gpu_resp_display_info` and `virtio_gpu_resp_edid`.
        assert_eq!(HEADER_LEN + screens(mode).len(), 408);
        assert_eq!(HEADER_LEN + edid(mode).len(), 1056);
    }
}
