//! MSI-X of one function: table, pending bits, capability (PCI Local Bus 3.0, section 6.8.2).

use std::sync::Arc;

use super::{ConfigSpace, MsiMessage, Platform, Vector};

/// Capability id of MSI-X.
const CAPABILITY_MSIX: u8 = 0x11;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_LEN: usize = 16;
const ENTRY_MASKED: u32 = 1;
/// Vectors that one function may have. The specification allows 2048; no device of this board has
/// more queues than this, and table and pending bits fit in one 4 KiB page each.
const MAX_VECTORS: u16 = 256;

#[derive(Clone, Copy)]
struct Entry {
    message: MsiMessage,
    control: u32,
    pending: bool,
    /// What the board was last told, so that masking costs no system call.
    routed: Option<MsiMessage>,
}

impl Entry {
    const POWER_ON: Self = Self {
        message: MsiMessage {
            address: 0,
            data: 0,
        },
        control: ENTRY_MASKED,
        pending: false,
        routed: None,
    };
}

/// The MSI-X state of one function.
pub struct Msix {
    entries: Vec<Entry>,
    vectors: Vec<Vector>,
    platform: Arc<dyn Platform>,
    control: u16,
    /// Whether the function may send anything.
    bus_master: bool,
    capability: u16,
}

impl Msix {
    /// Reserves `count` vectors (1 to 256) of the board and adds the capability, with
    /// table and pending bits at these offsets of BAR `bar`.
    pub fn new(
        space: &mut ConfigSpace,
        platform: Arc<dyn Platform>,
        count: u16,
        bar: u8,
        table: u32,
        pending: u32,
    ) -> std::io::Result<Self> {
        let count = count.clamp(1, MAX_VECTORS);
        let vectors = platform.allocate_vectors(count)?;
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(count - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        let mask = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
        let capability = space.add_capability(CAPABILITY_MSIX, &body, &mask);
        Ok(Self {
            entries: vec![Entry::POWER_ON; vectors.len().min(count.into())],
            vectors,
            platform,
            control: 0,
            bus_master: false,
            capability,
        })
    }

    /// Whether the guest turned MSI-X on.
    pub fn enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(MAX_VECTORS)
    }

    /// Sends vector `index`, or remembers it while it is masked or the function may not send.
    /// Whether a message was or will be
    /// sent: not while MSI-X is off, and not for an index past the table.
    pub fn signal(&mut self, index: u16) -> bool {
        let open = self.open();
        let enabled = self.enabled();
        let index = usize::from(index);
        let (Some(entry), Some(vector)) = (self.entries.get_mut(index), self.vectors.get(index))
        else {
            return false;
        };
        if !enabled {
            return false;
        }
        if open && entry.control & ENTRY_MASKED == 0 {
            send(&*self.platform, *vector);
        } else {
            entry.pending = true;
        }
        true
    }

    /// Takes over the message control register and bus mastering after a write to configuration
    /// space.
    pub fn config_written(&mut self, space: &ConfigSpace) {
        let control = space.u16_at(usize::from(self.capability) + 2);
        let bus_master = space.bus_master();
        if (control, bus_master) == (self.control, self.bus_master) {
            return;
        }
        self.control = control;
        self.bus_master = bus_master;
        for index in 0..self.entries.len() {
            self.update(index);
        }
    }

    /// Reads the table; bytes past its end read zero.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            *byte = self
                .entries
                .get(at / ENTRY_LEN)
                .map_or(0, |entry| entry_bytes(entry)[at % ENTRY_LEN]);
        }
    }

    /// Writes one entry of the table; `data` lies within one entry or is ignored.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let (index, at) = (offset / ENTRY_LEN, offset % ENTRY_LEN);
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let mut bytes = entry_bytes(entry);
        let Some(place) = bytes.get_mut(at..at + data.len()) else {
            return;
        };
        place.copy_from_slice(data);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        entry.message = MsiMessage {
            address: u64::from(word(0)) | u64::from(word(4)) << 32,
            data: word(8),
        };
        entry.control = word(12) & ENTRY_MASKED;
        self.update(index);
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let bits = self.entries.iter().skip(first).take(8).enumerate();
            *byte = bits.fold(0, |value, (bit, entry)| {
                value | u8::from(entry.pending) << bit
            });
        }
    }

    /// Masks all, forgets what was pending and takes the routes back.
    pub fn reset(&mut self) {
        self.control = 0;
        self.bus_master = false;
        for index in 0..self.entries.len() {
            self.unroute(index);
            self.entries[index] = Entry::POWER_ON;
        }
    }

    fn open(&self) -> bool {
        self.bus_master && self.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) == CONTROL_ENABLE
    }

    fn update(&mut self, index: usize) {
        if !self.enabled() {
            self.unroute(index);
            return;
        }
        let open = self.open();
        let (entry, vector) = (&mut self.entries[index], self.vectors[index]);
        if !open || entry.control & ENTRY_MASKED != 0 {
            return;
        }
        if entry.routed != Some(entry.message) {
            match self.platform.route(vector, Some(entry.message)) {
                Ok(()) => entry.routed = Some(entry.message),
                Err(error) => tracing::warn!(?vector, %error, "the MSI route was refused"),
            }
        }
        if std::mem::take(&mut entry.pending) {
            send(&*self.platform, vector);
        }
    }

    fn unroute(&mut self, index: usize) {
        if self.entries[index].routed.take().is_some()
            && let Err(error) = self.platform.route(self.vectors[index], None)
        {
            tracing::warn!(%error, "the MSI route could not be taken back");
        }
    }
}

fn send(platform: &dyn Platform, vector: Vector) {
    if let Err(error) = platform.signal(vector) {
        tracing::warn!(?vector, %error, "an interrupt was lost");
    }
}

fn entry_bytes(entry: &Entry) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    bytes[..8].copy_from_slice(&entry.message.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&entry.message.data.to_le_bytes());
    bytes[12..].copy_from_slice(&entry.control.to_le_bytes());
    bytes
}
