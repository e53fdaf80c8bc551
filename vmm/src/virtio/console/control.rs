//! Control queues: which ports there are and whose ends are open (virtio 1.2, section 5.3.6.2).

use super::Observer;
use super::port::Port;
use crate::virtio::{Chain, DriverFault, Io};
use crate::worker::Turn;

/// Control messages to the guest.
pub(super) const RECEIVE_QUEUE: usize = 2;
/// Control messages of the guest.
pub(super) const TRANSMIT_QUEUE: usize = 3;
/// Port, event, value.
const MESSAGE_LEN: usize = 8;
/// Messages taken in one turn. A driver sends a few a port.
const BUDGET: usize = 64;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What the guest has still to be told of a port. Flags, not a queue: however often a driver asks,
/// the answers to come stay as many.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "three messages, each owed or not"
)]
pub(super) struct Owed {
    pub(super) add: bool,
    pub(super) name: bool,
    pub(super) open: bool,
    /// The driver has the port; only then it is told of its state.
    pub(super) known: bool,
}

#[derive(Default)]
pub(super) struct Control {
    chain: Chain,
    pending: bool,
    /// The driver has no buffer for what it is to be told.
    starved: bool,
}

impl Control {
    pub(super) fn notified(&mut self) {
        self.pending = true;
    }

    /// The driver posted buffers, or there is something new to tell.
    pub(super) fn resume(&mut self) {
        self.starved = false;
    }

    /// Takes the driver's messages.
    pub(super) fn take(
        &mut self,
        io: &mut Io<'_>,
        ports: &mut [Port],
        observer: &mut Option<Observer>,
    ) -> Result<Turn, DriverFault> {
        if !std::mem::take(&mut self.pending) {
            return Ok(Turn::Idle);
        }
        let Some(queue) = io.queues.get_mut(TRANSMIT_QUEUE) else {
            return Ok(Turn::Idle);
        };
        for _ in 0..BUDGET {
            if !queue.pop(io.ram, &mut self.chain)? {
                if !queue.listen(io.ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let mut message = [0; MESSAGE_LEN];
            // A shorter message says nothing and is given back.
            if self.chain.read_at(io.ram, 0, &mut message) == MESSAGE_LEN {
                obey(message, ports, observer);
            }
            queue.push(io.ram, self.chain.head(), 0)?;
        }
        self.pending = true;
        Ok(Turn::More)
    }

    /// Tells the driver what it has still to be told, as far as it has posted buffers.
    pub(super) fn tell(&mut self, io: &mut Io<'_>, ports: &mut [Port]) -> Result<(), DriverFault> {
        if self.starved {
            return Ok(());
        }
        for port in ports {
            while let Some((event, value, name)) = next_message(port) {
                let Some(queue) = io.queues.get_mut(RECEIVE_QUEUE) else {
                    return Ok(());
                };
                while !queue.pop(io.ram, &mut self.chain)? {
                    if !queue.listen(io.ram)? {
                        self.starved = true;
                        return Ok(());
                    }
                }
                let mut message = Vec::with_capacity(MESSAGE_LEN + super::MAX_NAME);
                message.extend(port.id.to_le_bytes());
                message.extend(event.to_le_bytes());
                message.extend(value.to_le_bytes());
                if name {
                    message.extend(port.name.bytes());
                }
                let written = self.chain.write_at(io.ram, 0, &message);
                if written < MESSAGE_LEN {
                    return Err(DriverFault::Direction);
                }
                let written = u32::try_from(written).unwrap_or(0);
                queue.push(io.ram, self.chain.head(), written)?;
                settle(port, event);
            }
        }
        Ok(())
    }
}

fn obey(message: [u8; MESSAGE_LEN], ports: &mut [Port], observer: &mut Option<Observer>) {
    let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
    let id = u32::from_le_bytes([i0, i1, i2, i3]);
    let value = u16::from_le_bytes([v0, v1]);
    let event = u16::from_le_bytes([e0, e1]);
    if event == DEVICE_READY {
        for port in ports {
            port.owed.add = value == 1;
        }
        return;
    }
    let Some(port) = ports.iter_mut().find(|port| port.id == id) else {
        return;
    };
    match event {
        PORT_READY => {
            let ready = value == 1;
            port.owed.name = ready;
            port.owed.open = ready;
            port.owed.known = ready;
        }
        PORT_OPEN => {
            if port.set_guest_open(value == 1)
                && let Some(observer) = observer
            {
                observer(port.change());
            }
        }
        _ => {}
    }
}

/// The next message owed: event, value, and whether the name follows.
fn next_message(port: &Port) -> Option<(u16, u16, bool)> {
    let owed = port.owed;
    if owed.add {
        Some((PORT_ADD, 1, false))
    } else if owed.name {
        Some((PORT_NAME, 1, true))
    } else if owed.open && owed.known {
        Some((PORT_OPEN, u16::from(port.host_open()), false))
    } else {
        None
    }
}

fn settle(port: &mut Port, event: u16) {
    match event {
        PORT_ADD => port.owed.add = false,
        PORT_NAME => port.owed.name = false,
        _ => port.owed.open = false,
    }
}
