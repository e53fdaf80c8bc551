//! The check of the header before each frame.

use sekisho_framelink::{GsoType, HEADER_LEN, NetHdr, Rules};

use crate::input::Input;

/// Rules (grants, MTU), header, length of the frame (32 bits).
pub fn net_hdr(data: &[u8]) {
    let mut input = Input::new(data);
    let rules = input.rules();
    let header: [u8; HEADER_LEN] = input.array();
    let frame_len = u32::from_le_bytes(input.array()) as usize;
    assert_eq!(NetHdr::parse(&header).emit(), header);
    if let Ok(hdr) = rules.check(&header, frame_len) {
        assert_holds(rules, hdr, frame_len);
        assert_eq!(rules.check(&hdr.emit(), frame_len), Ok(hdr));
    }
}

/// What the users of a checked header rely on.
pub(crate) fn assert_holds(rules: Rules, hdr: NetHdr, frame_len: usize) {
    assert!(frame_len >= 14);
    assert!(usize::from(hdr.hdr_len) <= frame_len);
    if hdr.needs_csum() {
        assert!(rules.offloads.csum && hdr.csum_start >= 14);
        let field = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset);
        assert!(field + 2 <= frame_len);
    }
    let granted = match hdr.gso() {
        Some(GsoType::None) => {
            assert!(frame_len <= usize::from(rules.mtu) + 14);
            return;
        }
        Some(GsoType::TcpV4) => rules.offloads.tso4,
        Some(GsoType::TcpV6) => rules.offloads.tso6,
        Some(GsoType::UdpL4) => rules.offloads.uso,
        None => false,
    };
    assert!(granted && hdr.needs_csum() && frame_len <= 65_538);
    assert!((536..=rules.mtu).contains(&hdr.gso_size));
}
