//! MSI of one function with one message (PCI Local Bus 3.0, section 6.8.1).

use std::sync::Arc;

use super::{ConfigSpace, MsiMessage, Platform, Vector};

/// Capability id of MSI.
const CAPABILITY_MSI: u8 = 0x05;
const CONTROL_ENABLE: u16 = 1 << 0;
const CONTROL_64_BIT: u16 = 1 << 7;

/// The MSI state of one function: one message, 64-bit address, no masking.
pub struct Msi {
    vector: Vector,
    platform: Arc<dyn Platform>,
    capability: usize,
    /// What the board was last told.
    routed: Option<MsiMessage>,
}

impl Msi {
    /// Reserves a vector of the board and adds the capability.
    pub fn new(space: &mut ConfigSpace, platform: Arc<dyn Platform>) -> std::io::Result<Self> {
        let vectors = platform.allocate_vectors(1)?;
        let missing = || std::io::Error::other("the board gave no vector");
        let vector = vectors.first().copied().ok_or_else(missing)?;
        let mut body = [0; 12];
        body[..2].copy_from_slice(&CONTROL_64_BIT.to_le_bytes());
        let mut mask = [0xff; 12];
        mask[..2].copy_from_slice(&CONTROL_ENABLE.to_le_bytes());
        // Addresses are of whole dwords.
        mask[2] = 0xfc;
        let capability = space.add_capability(CAPABILITY_MSI, &body, &mask);
        Ok(Self {
            vector,
            platform,
            capability: capability.into(),
            routed: None,
        })
    }

    /// Takes over what a write to configuration space changed; whether that is the message or its way.
    pub fn config_written(&mut self, space: &ConfigSpace) -> bool {
        let register = |offset| space.u32_at(self.capability + offset);
        let enabled = space.u16_at(self.capability + 2) & CONTROL_ENABLE != 0;
        let message = (enabled && space.bus_master()).then(|| MsiMessage {
            address: u64::from(register(4)) | u64::from(register(8)) << 32,
            data: register(12) & 0xffff,
        });
        if message == self.routed {
            return false;
        }
        match self.platform.route(self.vector, message) {
            Ok(()) => self.routed = message,
            Err(error) => {
                self.routed = None;
                tracing::warn!(vector = ?self.vector, %error, "the MSI route was refused");
            }
        }
        true
    }

    /// Sends the message, unless it is off or the function may not send.
    pub fn signal(&self) {
        if self.routed.is_some()
            && let Err(error) = self.platform.signal(self.vector)
        {
            tracing::warn!(vector = ?self.vector, %error, "an interrupt was lost");
        }
    }
}
