//! Numbers of DNS on the wire (RFC 1035, section 4.1 and IANA's registry).

/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;
/// With the lengths of its labels and the final zero (RFC 1035, section 2.3.4).
pub(super) const MAX_NAME: usize = 255;
/// Longest label.
pub(super) const MAX_LABEL: u8 = 63;
/// Type and class behind a question's name.
pub(super) const TYPE_AND_CLASS: usize = 4;
/// Name, type and class.
pub(super) const MAX_QUESTION: usize = MAX_NAME + TYPE_AND_CLASS;

/// In the third byte: this is an answer.
pub(super) const FLAG_ANSWER: u8 = 0x80;
/// In the third byte: the kind of query; zero is the ordinary one.
pub(super) const OPCODE: u8 = 0x78;
/// In the third byte: the answer did not fit.
pub(super) const FLAG_CUT: u8 = 0x02;
/// In the third byte: please ask others.
pub(super) const RECURSION_DESIRED: u8 = 0x01;
/// In the fourth byte.
pub(super) const RECURSION_AVAILABLE: u8 = 0x80;
/// Response code: all is well.
pub(super) const NO_ERROR: u8 = 0;
/// Response code: for reasons of policy.
pub(super) const REFUSED: u8 = 5;

/// The internet.
pub(super) const CLASS_IN: u16 = 1;

/// Types of records.
pub(super) mod kind {
    pub(in crate::gate::edge::dns) const A: u16 = 1;
    pub(in crate::gate::edge::dns) const NS: u16 = 2;
    pub(in crate::gate::edge::dns) const CNAME: u16 = 5;
    pub(in crate::gate::edge::dns) const SOA: u16 = 6;
    pub(in crate::gate::edge::dns) const PTR: u16 = 12;
    pub(in crate::gate::edge::dns) const MX: u16 = 15;
    pub(in crate::gate::edge::dns) const AAAA: u16 = 28;
    pub(in crate::gate::edge::dns) const SRV: u16 = 33;
    pub(in crate::gate::edge::dns) const DNAME: u16 = 39;
    pub(in crate::gate::edge::dns) const OPT: u16 = 41;
    pub(in crate::gate::edge::dns) const RRSIG: u16 = 46;
    pub(in crate::gate::edge::dns) const SVCB: u16 = 64;
    pub(in crate::gate::edge::dns) const HTTPS: u16 = 65;
    /// From here to 254: transfers of zones and keys of transactions.
    pub(in crate::gate::edge::dns) const TKEY: u16 = 249;
    pub(in crate::gate::edge::dns) const ANY: u16 = 255;
}

/// Two bytes at `at`, where they are.
pub(super) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}
