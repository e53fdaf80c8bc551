//! Layout of the BAR and the common configuration structure (virtio 1.2, section 4.1.4).

use super::queue::NO_VECTOR;

/// The BAR with all structures.
pub(super) const BAR: u8 = 0;
/// Its size: one page a structure, so that none shares a page with another.
pub(super) const BAR_SIZE: u64 = 0x8000;
/// Length of a page, and room of a structure.
pub(super) const PAGE: u64 = 0x1000;
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MSIX_TABLE: u64 = 0x4000;
pub(super) const MSIX_PENDING: u64 = 0x5000;
/// Bytes from one queue's notification register to the next.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

pub(super) const CFG_COMMON: u8 = 1;
pub(super) const CFG_NOTIFY: u8 = 2;
pub(super) const CFG_ISR: u8 = 3;
pub(super) const CFG_DEVICE: u8 = 4;
pub(super) const CFG_PCI: u8 = 5;

pub(super) const STATUS_ACKNOWLEDGE: u8 = 1;
pub(super) const STATUS_DRIVER: u8 = 2;
pub(super) const STATUS_DRIVER_OK: u8 = 4;
pub(super) const STATUS_FEATURES_OK: u8 = 8;
pub(super) const STATUS_NEEDS_RESET: u8 = 64;
pub(super) const STATUS_FAILED: u8 = 128;

/// `VIRTIO_F_INDIRECT_DESC`.
pub(super) const F_INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub(super) const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub(super) const F_VERSION_1: u64 = 1 << 32;

pub(super) const ISR_QUEUE: u8 = 1;
pub(super) const ISR_CONFIG: u8 = 2;

/// Length of the common configuration structure, without the fields of features not offered.
const COMMON_LEN: usize = 0x38;

/// Where and how large the driver wants a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueuePlace {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// What a write to the common configuration asks the transport to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing beyond the register itself.
    None,
    /// Set the device status.
    Status(u8),
    /// Set the vector of the configuration interrupt.
    ConfigVector(u16),
    /// Set the vector of the selected queue.
    QueueVector(u16),
    /// Enable the selected queue.
    Enable,
}

/// What the transport knows and the structure shows.
pub(super) struct View {
    pub(super) status: u8,
    pub(super) generation: u8,
    pub(super) device_features: u64,
    pub(super) queue_count: u16,
    pub(super) config_vector: u16,
    /// Vector of the selected queue and whether it is enabled.
    pub(super) queue: Option<(u16, bool)>,
}

/// The registers that the driver sets by itself.
pub(super) struct CommonRegs {
    device_feature_select: u32,
    driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u16,
    max_sizes: Vec<u16>,
    pub(super) places: Vec<QueuePlace>,
}

impl CommonRegs {
    pub(super) fn new(max_sizes: &[u16]) -> Self {
        let mut regs = Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            max_sizes: max_sizes.to_vec(),
            places: Vec::new(),
        };
        regs.reset();
        regs
    }

    pub(super) fn reset(&mut self) {
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        let power_on = |size: &u16| QueuePlace {
            size: *size,
            ..QueuePlace::default()
        };
        self.places = self.max_sizes.iter().map(power_on).collect();
    }

    /// Reads at `offset`; bytes past the structure read zero.
    pub(super) fn read(&self, view: &View, offset: u64, data: &mut [u8]) {
        let selected = usize::from(self.queue_select);
        let place = self.places.get(selected).copied().unwrap_or_default();
        let (vector, enabled) = view.queue.unwrap_or((NO_VECTOR, false));
        let offered = half(view.device_features, self.device_feature_select);
        let accepted = half(self.driver_features, self.driver_feature_select);

        let mut bytes = [0; COMMON_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &self.device_feature_select.to_le_bytes());
        put(0x04, &offered.to_le_bytes());
        put(0x08, &self.driver_feature_select.to_le_bytes());
        put(0x0c, &accepted.to_le_bytes());
        put(0x10, &view.config_vector.to_le_bytes());
        put(0x12, &view.queue_count.to_le_bytes());
        put(0x14, &[view.status, view.generation]);
        put(0x16, &self.queue_select.to_le_bytes());
        put(0x18, &place.size.to_le_bytes());
        put(0x1a, &vector.to_le_bytes());
        put(0x1c, &u16::from(enabled).to_le_bytes());
        // A queue's notification offset is its index.
        put(0x1e, &self.queue_select.to_le_bytes());
        put(0x20, &place.descriptors.to_le_bytes());
        put(0x28, &place.driver.to_le_bytes());
        put(0x30, &place.device.to_le_bytes());
        let start = usize::try_from(offset).unwrap_or(COMMON_LEN);
        for (at, byte) in (start..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes a field. `features_open`: features may still change; `queue_open`: the selected queue
    /// is not enabled, so its place may change. Writes that are not a field's own width, or one
    /// half of a 64-bit one, are ignored.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        features_open: bool,
        queue_open: bool,
    ) -> Command {
        let mut wide = [0; 8];
        let Some(low) = wide.get_mut(..data.len()) else {
            return Command::None;
        };
        low.copy_from_slice(data);
        let value = u64::from_le_bytes(wide);
        let [b0, b1, b2, b3, ..] = wide;
        let (word, dword) = (
            u16::from_le_bytes([b0, b1]),
            u32::from_le_bytes([b0, b1, b2, b3]),
        );
        match (offset, data.len()) {
            (0x00, 4) => self.device_feature_select = dword,
            (0x08, 4) => self.driver_feature_select = dword,
            (0x0c, 4) if features_open => {
                set_half(&mut self.driver_features, self.driver_feature_select, dword);
            }
            (0x10, 2) => return Command::ConfigVector(word),
            (0x14, 1) => return Command::Status(b0),
            (0x16, 2) => self.queue_select = word,
            (0x1a, 2) => return Command::QueueVector(word),
            (0x1c, 2) if queue_open && word == 1 => return Command::Enable,
            (0x18, 2) if queue_open => self.set_size(word),
            (0x20..=0x37, _) if queue_open => self.set_address(offset, data.len(), value),
            _ => {}
        }
        Command::None
    }

    fn set_size(&mut self, size: u16) {
        let selected = usize::from(self.queue_select);
        let max = self.max_sizes.get(selected).copied().unwrap_or(0);
        if let Some(place) = self.places.get_mut(selected)
            && size.is_power_of_two()
            && size <= max
        {
            place.size = size;
        }
    }

    fn set_address(&mut self, offset: u64, length: usize, value: u64) {
        let Some(place) = self.places.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        let field = match offset {
            0x20..=0x27 => &mut place.descriptors,
            0x28..=0x2f => &mut place.driver,
            _ => &mut place.device,
        };
        match (offset & 7, length) {
            (0, 8) => *field = value,
            (0, 4) => *field = *field >> 32 << 32 | value,
            (4, 4) => *field = *field & u64::from(u32::MAX) | value << 32,
            _ => {}
        }
    }
}

/// The 32 bits of `features` that a select register chooses.
fn half(features: u64, select: u32) -> u32 {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([b0, b1, b2, b3]),
        1 => u32::from_le_bytes([b4, b5, b6, b7]),
        _ => 0,
    }
}

fn set_half(features: &mut u64, select: u32, value: u32) {
    match select {
        0 => *features = *features >> 32 << 32 | u64::from(value),
        1 => *features = *features & u64::from(u32::MAX) | u64::from(value) << 32,
        _ => {}
    }
}
