//! What the controller says of itself: identify data and log pages (NVMe, sections 5.14.1 and 5.15).

use super::command::NAMESPACE;
use super::controller::LastError;
use super::event::LIMIT;
use super::features::WARM;
use super::prp::MDTS;
use super::regs::VERSION;
use super::{SUBSYSTEM, VENDOR};
use crate::disk::{Counters, SECTOR};

/// Bytes of an identify data structure.
const IDENTIFY_LEN: usize = 4096;
const MODEL: &str = "Sekisho NVMe disk";
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");
/// The disk is no warmer than a room: 20 °C in kelvin.
const TEMPERATURE: u16 = 293;

/// What tells a controller and its namespace from others.
#[derive(Debug, Clone)]
pub(super) struct Names {
    serial: String,
    /// A UUID of version 8 (RFC 9562, section 5.8), the same for the same disk of each machine: it
    /// tells the disks of one guest apart.
    uuid: [u8; 16],
}

impl Names {
    pub(super) fn new(serial: &str, index: u8) -> Self {
        let mut uuid = *b"sekish\x80n\x80\0\0\0\0\0\0\0";
        uuid[15] = index;
        Self {
            serial: serial.chars().take(20).collect(),
            uuid,
        }
    }
}

/// A data structure that is being filled.
struct Page(Vec<u8>);

impl Page {
    fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// ASCII with spaces behind it.
    fn text(&mut self, at: usize, length: usize, text: &str) -> &mut Self {
        let text = format!("{text:length$}");
        self.put(at, &text.as_bytes()[..length])
    }
}

/// Identify Controller.
pub(super) fn controller(names: &Names, writable: bool) -> Vec<u8> {
    let mut page = Page::new(IDENTIFY_LEN);
    page.put(0, &VENDOR.to_le_bytes())
        .put(2, &VENDOR.to_le_bytes())
        .text(4, 20, &names.serial)
        .text(24, 40, MODEL)
        .text(64, 8, FIRMWARE)
        // Recommended arbitration burst: 64 commands.
        .put(72, &[6])
        .put(77, &[MDTS])
        .put(80, &VERSION.to_le_bytes())
        // One I/O controller.
        .put(111, &[1])
        // Aborts and event requests at once, counted from 0.
        .put(258, &[3, LIMIT - 1])
        // One firmware slot, read only. Log pages can be read from an offset.
        .put(260, &[0x03, 0x04])
        .put(266, &WARM.to_le_bytes())
        .put(268, &(WARM + 30).to_le_bytes())
        // Queue entries of 64 and 16 bytes, no more and no less.
        .put(512, &[0x66, 0x44])
        .put(516, &NAMESPACE.to_le_bytes());
    if writable {
        // Dataset management and write zeroes. A volatile write cache, and flushes of all namespaces.
        page.put(520, &[0x0c]).put(525, &[0x07]);
    }
    let name = format!(
        "nqn.2014.08.org.nvmexpress:{VENDOR:04x}{SUBSYSTEM:04x}{:20}{MODEL:40}",
        names.serial
    );
    page.put(768, name.as_bytes())
        // Power state 0: at most 25 W, as QEMU's.
        .put(2048, &2500_u16.to_le_bytes());
    page.0
}

/// Identify Namespace.
pub(super) fn namespace(sectors: u64, read_only: bool, discards: bool) -> Vec<u8> {
    let mut page = Page::new(IDENTIFY_LEN);
    let sectors = sectors.to_le_bytes();
    page.put(0, &sectors)
        .put(8, &sectors)
        .put(16, &sectors)
        // Deallocated blocks read zero; Write Zeroes can deallocate, too.
        .put(33, &[0x01 | u8::from(discards) << 3])
        // Whether it is write protected.
        .put(99, &[u8::from(read_only)])
        // The only format: no metadata, blocks of this power of two.
        .put(130, &[u8::try_from(SECTOR.ilog2()).unwrap_or(9)]);
    page.0
}

/// Active namespaces with a higher number.
pub(super) fn namespaces(above: u32) -> Vec<u8> {
    let mut page = Page::new(IDENTIFY_LEN);
    if above < NAMESPACE {
        page.put(0, &NAMESPACE.to_le_bytes());
    }
    page.0
}

/// Namespace identification descriptors: the UUID.
pub(super) fn descriptors(names: &Names) -> Vec<u8> {
    let mut page = Page::new(IDENTIFY_LEN);
    page.put(0, &[0x03, 16]).put(4, &names.uuid);
    page.0
}

/// Error information: the last command that failed.
pub(super) fn error_log(error: &LastError) -> Vec<u8> {
    let mut page = Page::new(64);
    if error.count > 0 {
        page.put(0, &error.count.to_le_bytes())
            .put(8, &error.queue.to_le_bytes())
            .put(10, &error.command.to_le_bytes())
            .put(12, &(error.status << 1).to_le_bytes())
            // Not one parameter's fault.
            .put(14, &u16::MAX.to_le_bytes())
            .put(24, &error.namespace.to_le_bytes());
    }
    page.0
}

/// SMART / health information since power-on.
pub(super) fn health_log(counters: &Counters, errors: u64) -> Vec<u8> {
    // In thousands of 512 bytes, rounded up.
    let units = |bytes: u64| bytes.div_ceil(512 * 1000).to_le_bytes();
    let mut page = Page::new(512);
    page.put(1, &TEMPERATURE.to_le_bytes())
        // Spare room in percent, and where a warning would come.
        .put(3, &[100, 10])
        .put(32, &units(counters.bytes_read))
        .put(48, &units(counters.bytes_written))
        .put(64, &counters.reads.to_le_bytes())
        .put(80, &counters.writes.to_le_bytes())
        .put(176, &errors.to_le_bytes());
    page.0
}

/// Firmware slots: the first one is active.
pub(super) fn firmware_log() -> Vec<u8> {
    let mut page = Page::new(512);
    page.put(0, &[1]).text(8, 8, FIRMWARE);
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_drivers_look_for_them() {
        let names = Names::new("sekisho-0", 3);
        let page = controller(&names, true);
        assert_eq!(&page[4..24], b"sekisho-0           ");
        assert_eq!(&page[24..41], MODEL.as_bytes());
        let name: Vec<u8> = page[768..1024]
            .iter()
            .copied()
            .take_while(|b| *b != 0)
            .collect();
        assert!(name.starts_with(b"nqn.2014.08.org.nvmexpress:1af41100sekisho-0"));
        assert!(name.len() < 223);
        let descriptors = descriptors(&names);
        assert_eq!(descriptors[..4], [3, 16, 0, 0]);
        // Version 8, variant 1.
        assert_eq!((descriptors[10] >> 4, descriptors[12] >> 6), (8, 2));
        assert_eq!(descriptors[19..21], [3, 0]);
    }

    #[test]
    fn a_long_serial_number_is_cut() {
        let names = Names::new("0123456789012345678901234", 0);
        let page = controller(&names, false);
        assert_eq!(&page[4..24], b"01234567890123456789");
        assert_eq!((page[520], page[525]), (0, 0));
    }

    #[test]
    fn a_namespace_tells_its_size_in_blocks() {
        let page = namespace(0x1234, true, false);
        assert_eq!(page[..8], 0x1234_u64.to_le_bytes());
        assert_eq!((page[99], page[130]), (1, 9));
        assert_eq!((page[33], namespace(8, false, true)[33]), (0x01, 0x09));
        assert_eq!(namespaces(0)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(namespaces(1)[..4], [0; 4]);
    }
}
