//! Control queue (virtio 1.2, section 5.1.6.5).

use super::{DriverFault, Net, features};
use crate::virtio::{GuestRam, VirtQueue};
use crate::worker::Turn;

const CLASS_RX: u8 = 0;
/// Last command of the class RX: promiscuous, all-multicast, and their refinements.
const RX_LAST: u8 = 5;
const CLASS_MAC: u8 = 1;
const MAC_TABLE_SET: u8 = 0;
const CLASS_GUEST_OFFLOADS: u8 = 5;
const GUEST_OFFLOADS_SET: u8 = 0;
const OK: u8 = 0;
const ERR: u8 = 1;
/// Class, command, and the longest argument that is looked at.
const COMMAND_LEN: usize = 2 + 8;
/// Commands served in one turn. A driver waits for each, so more than a few are a driver at play.
const BUDGET: usize = 16;

impl Net {
    pub(super) fn serve_control(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
    ) -> Result<Turn, DriverFault> {
        if !self.control_notified {
            return Ok(Turn::Idle);
        }
        for _ in 0..BUDGET {
            let mut chain = std::mem::take(&mut self.control);
            let popped = queue.pop(ram, &mut chain);
            self.control = chain;
            if !popped? {
                if !queue.listen(ram)? {
                    self.control_notified = false;
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let mut command = [0; COMMAND_LEN];
            let length = self.control.read_at(ram, 0, &mut command);
            let answer = self.obey(&command[..length]);
            if answer == ERR {
                self.counters.refused_commands += 1;
            }
            if self.control.write_at(ram, 0, &[answer]) == 0 {
                return Err(DriverFault::Direction);
            }
            queue.push(ram, self.control.head(), 1)?;
        }
        Ok(Turn::More)
    }

    fn obey(&mut self, command: &[u8]) -> u8 {
        match *command {
            // All frames of the link are the guest's, so its filters have nothing to keep out.
            [CLASS_RX, 0..=RX_LAST, ..] | [CLASS_MAC, MAC_TABLE_SET, ..] => OK,
            [
                CLASS_GUEST_OFFLOADS,
                GUEST_OFFLOADS_SET,
                b0,
                b1,
                b2,
                b3,
                b4,
                b5,
                b6,
                b7,
            ] => self.set_guest_offloads(u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7])),
            // Among them: another MAC address, which was not offered.
            _ => ERR,
        }
    }

    fn set_guest_offloads(&mut self, wanted: u64) -> u8 {
        let switchable = features::SWITCHABLE & features::offered(&self.settings);
        let Some(accepted) = &mut self.features else {
            return ERR;
        };
        let next = *accepted & !features::SWITCHABLE | wanted;
        let known = *accepted & features::CTRL_GUEST_OFFLOADS != 0 && wanted & !switchable == 0;
        if !known || !features::consistent(next) {
            return ERR;
        }
        *accepted = next;
        self.refresh_rules();
        OK
    }
}
