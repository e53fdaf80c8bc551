//! Commands and their status (NVMe, sections 4.2 and 4.6.1).

/// Bytes of a submission queue entry.
pub(super) const COMMAND_LEN: usize = 64;

/// The only namespace.
pub(super) const NAMESPACE: u32 = 1;
/// All namespaces.
pub(super) const ALL_NAMESPACES: u32 = u32::MAX;

/// A submission queue entry, copied out of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) opcode: u8,
    /// Fused operation (bits 1:0) and PRP or SGL (bits 7:6).
    flags: u8,
    pub(super) id: u16,
    pub(super) namespace: u32,
    pub(super) prp1: u64,
    pub(super) prp2: u64,
    /// Command dwords 10 to 15.
    dwords: [u32; 6],
}

impl Command {
    pub(super) fn parse(entry: &[u8; COMMAND_LEN]) -> Self {
        let dword = |index: usize| {
            let at = index * 4;
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        let quad = |index: usize| u64::from(dword(index)) | u64::from(dword(index + 1)) << 32;
        Self {
            opcode: entry[0],
            flags: entry[1],
            id: u16::from_le_bytes([entry[2], entry[3]]),
            namespace: dword(1),
            prp1: quad(6),
            prp2: quad(8),
            dwords: [
                dword(10),
                dword(11),
                dword(12),
                dword(13),
                dword(14),
                dword(15),
            ],
        }
    }

    /// Command dword 10.
    pub(super) fn dw10(&self) -> u32 {
        self.dwords[0]
    }

    /// Command dword 11.
    pub(super) fn dw11(&self) -> u32 {
        self.dwords[1]
    }

    /// Command dword 12.
    pub(super) fn dw12(&self) -> u32 {
        self.dwords[2]
    }

    /// Command dwords 12 and 13.
    pub(super) fn dw12_13(&self) -> u64 {
        u64::from(self.dwords[2]) | u64::from(self.dwords[3]) << 32
    }

    /// The low half of command dword 10.
    pub(super) fn dw10_low(&self) -> u16 {
        low(self.dw10())
    }

    /// The high half of command dword 10.
    pub(super) fn dw10_high(&self) -> u16 {
        low(self.dw10() >> 16)
    }

    /// Command dwords 10 and 11: the first block of a transfer.
    pub(super) fn block(&self) -> u64 {
        u64::from(self.dw10()) | u64::from(self.dw11()) << 32
    }

    /// Neither fused with another command nor with a scatter-gather list, which are not offered.
    pub(super) fn check_flags(&self) -> Result<(), Status> {
        if self.flags & 0xc3 == 0 {
            Ok(())
        } else {
            Err(Status::INVALID_FIELD)
        }
    }
}

/// The low 16 bits.
pub(super) fn low(value: u32) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

/// Status field of a completion, without the phase: code in bits 7:0, type in bits 10:8, "do not
/// retry" in bit 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

impl Status {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const INVALID_OPCODE: Self = Self::generic(0x01);
    pub(super) const INVALID_FIELD: Self = Self::generic(0x02);
    pub(super) const DATA_TRANSFER: Self = Self::generic(0x04);
    pub(super) const INVALID_NAMESPACE: Self = Self::generic(0x0b);
    pub(super) const COMMAND_SEQUENCE: Self = Self::generic(0x0c);
    pub(super) const INVALID_PRP_OFFSET: Self = Self::generic(0x13);
    pub(super) const WRITE_PROTECTED: Self = Self::generic(0x20);
    pub(super) const LBA_OUT_OF_RANGE: Self = Self::generic(0x80);
    pub(super) const CAPACITY_EXCEEDED: Self = Self::generic(0x81);
    pub(super) const COMPLETION_QUEUE_INVALID: Self = Self::specific(0x00);
    pub(super) const INVALID_QUEUE_ID: Self = Self::specific(0x01);
    pub(super) const INVALID_QUEUE_SIZE: Self = Self::specific(0x02);
    pub(super) const EVENT_LIMIT: Self = Self::specific(0x05);
    pub(super) const INVALID_VECTOR: Self = Self::specific(0x08);
    pub(super) const INVALID_LOG_PAGE: Self = Self::specific(0x09);
    pub(super) const INVALID_QUEUE_DELETION: Self = Self::specific(0x0c);
    pub(super) const NOT_SAVEABLE: Self = Self::specific(0x0d);
    pub(super) const WRITE_FAULT: Self = Self::medium(0x80);
    pub(super) const UNRECOVERED_READ: Self = Self::medium(0x81);

    /// The host has tried; the guest need not.
    const DO_NOT_RETRY: u16 = 1 << 14;

    const fn generic(code: u16) -> Self {
        Self(code | Self::DO_NOT_RETRY)
    }

    const fn specific(code: u16) -> Self {
        Self(code | 1 << 8 | Self::DO_NOT_RETRY)
    }

    const fn medium(code: u16) -> Self {
        Self(code | 2 << 8 | Self::DO_NOT_RETRY)
    }
}
