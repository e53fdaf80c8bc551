//! The header before each frame, and the one check that it goes through.
//!
//! Source: virtio 1.2, section 5.1.6 "Device Operation" of the network device.

use crate::{HEADER_LEN, MAX_MESSAGE, MIN_FRAME};

/// The frame's checksum is to be completed: `csum_start` and `csum_offset` hold.
const NEEDS_CSUM: u8 = 1;
/// The checksum was verified by the sender. Known, and believed by nobody.
const DATA_VALID: u8 = 2;

/// Smallest segment that a super-frame may ask for: the TCP payload that every IPv4 host takes
/// (RFC 9293, section 3.7.1). It bounds a super-frame to 123 packets.
const MIN_GSO_SIZE: u16 = 536;

const TCP_CSUM_OFFSET: u16 = 16;
const TCP_HEADER: usize = 20;
const UDP_CSUM_OFFSET: u16 = 6;
const UDP_HEADER: usize = 8;

/// What kind of segmentation a super-frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum GsoType {
    /// None: the frame goes as it is.
    #[default]
    None = 0,
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP datagrams of equal length (USO), IPv4 or IPv6.
    UdpL4 = 5,
}

/// `virtio_net_hdr_v1`, field by field, as it is on the wire; nothing is checked yet unless it
/// comes from [`Rules::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NetHdr {
    /// Bit 0: the checksum is to be completed; bit 1: the sender verified it.
    pub flags: u8,
    /// A [`GsoType`], once checked.
    pub gso_type: u8,
    /// Length of the headers up to the payload, in bytes; a hint.
    pub hdr_len: u16,
    /// Payload of each segment, in bytes.
    pub gso_size: u16,
    /// Where the checksum starts, in bytes from the frame's start.
    pub csum_start: u16,
    /// Where it is stored, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Receive buffers that a frame took; of no meaning on the link.
    pub num_buffers: u16,
}

impl NetHdr {
    /// Reads the little-endian fields.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Writes the little-endian fields.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// The header of a frame whose checksum the receiver completes: the sum from `start` (bytes
    /// from the frame's start) is stored `offset` bytes after it.
    #[must_use]
    pub fn partial_csum(start: u16, offset: u16) -> Self {
        Self {
            flags: NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..Self::default()
        }
    }

    /// The same for a super-frame, to be cut into segments of `size` bytes of payload after
    /// `hdr_len` bytes of headers.
    #[must_use]
    pub fn with_gso(self, gso: GsoType, size: u16, hdr_len: u16) -> Self {
        Self {
            gso_type: gso as u8,
            gso_size: size,
            hdr_len,
            ..self
        }
    }

    /// Whether the checksum is to be completed.
    pub fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Which segmentation is asked for; `None` when `gso_type` is of no known kind, which a
    /// checked header never is.
    pub fn gso(&self) -> Option<GsoType> {
        match self.gso_type {
            0 => Some(GsoType::None),
            1 => Some(GsoType::TcpV4),
            4 => Some(GsoType::TcpV6),
            5 => Some(GsoType::UdpL4),
            _ => None,
        }
    }
}

/// What the sender of a frame may leave to its receiver.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature bit of its own, negotiated by itself"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Checksums. The others need it.
    pub csum: bool,
    /// Segmentation of TCP over IPv4.
    pub tso4: bool,
    /// Segmentation of TCP over IPv6.
    pub tso6: bool,
    /// Segmentation of UDP.
    pub uso: bool,
}

/// What a frame is checked against, once, when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What was granted to the sender.
    pub offloads: Offloads,
    /// Longest IP packet on the guest's network, in bytes.
    pub mtu: u16,
}

/// The rule that a message breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Shorter than header and [`MIN_FRAME`].
    #[error("the frame is shorter than an Ethernet header")]
    Short,
    /// Longer than the MTU allows without segmentation, or than [`MAX_MESSAGE`] with it.
    #[error("the frame is longer than the MTU, or than the longest super-frame")]
    Long,
    /// An unknown flag, or one that was not granted.
    #[error("the header has a flag that is unknown or was not granted")]
    Flags,
    /// An unknown kind of segmentation, or one that was not granted.
    #[error("the header asks for a segmentation that is unknown or was not granted")]
    GsoType,
    /// Segments shorter than 536 bytes or longer than the MTU.
    #[error("the header asks for segments shorter than 536 bytes or longer than the MTU")]
    GsoSize,
    /// Segmentation without a checksum to complete, which no segment could have.
    #[error("the header asks for segmentation but not for checksums")]
    GsoWithoutCsum,
    /// The headers end behind the frame.
    #[error("the header puts the payload behind the end of the frame")]
    HdrLen,
    /// The checksum lies outside the frame, or not where the protocol has it.
    #[error("the header puts the checksum outside the frame or beside its protocol's field")]
    Csum,
}

impl Rules {
    /// No offloads at all.
    pub fn plain(mtu: u16) -> Self {
        Self {
            offloads: Offloads::default(),
            mtu,
        }
    }

    /// Checks the header of a frame that is `frame_len` bytes long.
    ///
    /// The header that is returned has only fields that mean something: what its flags and its
    /// kind do not call for is zero, and so is `num_buffers`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, header: &[u8; HEADER_LEN], frame_len: usize) -> Result<NetHdr, Flaw> {
        if frame_len < MIN_FRAME {
            return Err(Flaw::Short);
        }
        let raw = NetHdr::parse(header);
        if raw.flags & !(NEEDS_CSUM | DATA_VALID) != 0 || (raw.flags != 0 && !self.offloads.csum) {
            return Err(Flaw::Flags);
        }
        if usize::from(raw.hdr_len) > frame_len {
            return Err(Flaw::HdrLen);
        }
        let gso = raw.gso().ok_or(Flaw::GsoType)?;
        let mut checked = NetHdr {
            flags: raw.flags,
            ..NetHdr::default()
        };
        if raw.needs_csum() {
            check_csum(&raw, gso, frame_len)?;
            checked.csum_start = raw.csum_start;
            checked.csum_offset = raw.csum_offset;
        }
        if gso == GsoType::None {
            if frame_len > usize::from(self.mtu) + MIN_FRAME {
                return Err(Flaw::Long);
            }
            return Ok(checked);
        }

        let granted = match gso {
            GsoType::None => true,
            GsoType::TcpV4 => self.offloads.tso4,
            GsoType::TcpV6 => self.offloads.tso6,
            GsoType::UdpL4 => self.offloads.uso,
        };
        if !granted {
            return Err(Flaw::GsoType);
        }
        if !raw.needs_csum() {
            return Err(Flaw::GsoWithoutCsum);
        }
        if !(MIN_GSO_SIZE..=self.mtu).contains(&raw.gso_size) {
            return Err(Flaw::GsoSize);
        }
        if frame_len > MAX_MESSAGE - HEADER_LEN {
            return Err(Flaw::Long);
        }
        checked.gso_type = raw.gso_type;
        checked.gso_size = raw.gso_size;
        checked.hdr_len = raw.hdr_len;
        Ok(checked)
    }
}

fn check_csum(raw: &NetHdr, gso: GsoType, frame_len: usize) -> Result<(), Flaw> {
    let start = usize::from(raw.csum_start);
    let field_end = start + usize::from(raw.csum_offset) + 2;
    let protocol_holds = match gso {
        GsoType::None => true,
        GsoType::TcpV4 | GsoType::TcpV6 => {
            raw.csum_offset == TCP_CSUM_OFFSET && start + TCP_HEADER <= frame_len
        }
        GsoType::UdpL4 => raw.csum_offset == UDP_CSUM_OFFSET && start + UDP_HEADER <= frame_len,
    };
    if start < MIN_FRAME || field_end > frame_len || !protocol_holds {
        return Err(Flaw::Csum);
    }
    Ok(())
}
