//! The header check, as a property and case by case (T39 and T40 of the attack list).

use proptest::prelude::*;
use sekisho_framelink::{
    Flaw, GsoType, HEADER_LEN, MAX_MESSAGE, MIN_FRAME, NetHdr, Offloads, Rules,
};

const MTU: u16 = 1420;
const LONGEST: usize = MAX_MESSAGE - HEADER_LEN;

const ALL: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    uso: true,
};

const RULES: Rules = Rules {
    offloads: ALL,
    mtu: MTU,
};

/// Headers of a TCP/IPv4 super-frame: Ethernet 14, IP 20, TCP 20.
fn super_frame() -> NetHdr {
    NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1380, 54)
}

/// The same with one field changed.
fn but(change: impl FnOnce(&mut NetHdr)) -> NetHdr {
    let mut hdr = super_frame();
    change(&mut hdr);
    hdr
}

fn check(hdr: NetHdr, frame_len: usize) -> Result<NetHdr, Flaw> {
    RULES.check(&hdr.emit(), frame_len)
}

#[test]
fn honest_headers_pass_as_they_are() {
    for (hdr, frame_len) in [
        (NetHdr::default(), MIN_FRAME),
        (NetHdr::default(), usize::from(MTU) + MIN_FRAME),
        (NetHdr::partial_csum(34, 16), 54),
        (NetHdr::partial_csum(34, 6), 42),
        (super_frame(), 54 + 1380),
        (super_frame(), LONGEST),
        (
            NetHdr::partial_csum(54, 16).with_gso(GsoType::TcpV6, 1360, 74),
            LONGEST,
        ),
        (
            NetHdr::partial_csum(34, 6).with_gso(GsoType::UdpL4, 1392, 42),
            LONGEST,
        ),
        (
            NetHdr {
                flags: 2,
                ..NetHdr::default()
            },
            60,
        ),
    ] {
        assert_eq!(check(hdr, frame_len), Ok(hdr));
    }
}

#[test]
fn lengths_outside_the_bounds_are_refused() {
    for frame_len in 0..MIN_FRAME {
        assert_eq!(check(NetHdr::default(), frame_len), Err(Flaw::Short));
    }
    let longest_plain = usize::from(MTU) + MIN_FRAME;
    for frame_len in [longest_plain + 1, longest_plain + 4, LONGEST, LONGEST + 1] {
        assert_eq!(check(NetHdr::default(), frame_len), Err(Flaw::Long));
    }
    assert_eq!(check(super_frame(), LONGEST + 1), Err(Flaw::Long));
    assert_eq!(check(super_frame(), usize::MAX), Err(Flaw::Long));
}

#[test]
fn each_broken_field_is_named() {
    let cases = [
        (but(|h| h.flags = 4), Flaw::Flags),
        (but(|h| h.flags = 0x81), Flaw::Flags),
        (but(|h| h.flags = 0), Flaw::GsoWithoutCsum),
        (but(|h| h.flags = 2), Flaw::GsoWithoutCsum),
        // UFO, ECN, and what nobody knows.
        (but(|h| h.gso_type = 3), Flaw::GsoType),
        (but(|h| h.gso_type = 0x81), Flaw::GsoType),
        (but(|h| h.gso_type = 255), Flaw::GsoType),
        (but(|h| h.gso_size = 0), Flaw::GsoSize),
        (but(|h| h.gso_size = 535), Flaw::GsoSize),
        (but(|h| h.gso_size = MTU + 1), Flaw::GsoSize),
        (but(|h| h.gso_size = 65_535), Flaw::GsoSize),
        (but(|h| h.hdr_len = 9001), Flaw::HdrLen),
        (but(|h| h.hdr_len = 65_535), Flaw::HdrLen),
        (but(|h| h.csum_start = 0), Flaw::Csum),
        (but(|h| h.csum_start = 13), Flaw::Csum),
        (but(|h| h.csum_start = 8981), Flaw::Csum),
        (but(|h| h.csum_start = 65_535), Flaw::Csum),
        (but(|h| h.csum_offset = 6), Flaw::Csum),
        (but(|h| h.csum_offset = 65_535), Flaw::Csum),
        (but(|h| h.gso_type = 5), Flaw::Csum),
    ];
    for (hdr, flaw) in cases {
        assert_eq!(check(hdr, 9000), Err(flaw), "{hdr:?}");
    }
    let end = NetHdr::partial_csum(34, 23);
    assert_eq!(
        check(end, 58),
        Err(Flaw::Csum),
        "one byte of the sum is outside"
    );
    assert_eq!(check(end, 59), Ok(end));
}

#[test]
fn nothing_is_allowed_that_was_not_granted() {
    let cases = [
        (
            Offloads { csum: false, ..ALL },
            NetHdr::partial_csum(34, 16),
            Flaw::Flags,
        ),
        (
            Offloads { csum: false, ..ALL },
            NetHdr {
                flags: 2,
                ..NetHdr::default()
            },
            Flaw::Flags,
        ),
        (
            Offloads { tso4: false, ..ALL },
            super_frame(),
            Flaw::GsoType,
        ),
        (
            Offloads { tso6: false, ..ALL },
            NetHdr::partial_csum(54, 16).with_gso(GsoType::TcpV6, 1360, 74),
            Flaw::GsoType,
        ),
        (
            Offloads { uso: false, ..ALL },
            NetHdr::partial_csum(34, 6).with_gso(GsoType::UdpL4, 1392, 42),
            Flaw::GsoType,
        ),
    ];
    for (offloads, hdr, flaw) in cases {
        let rules = Rules { offloads, mtu: MTU };
        assert_eq!(rules.check(&hdr.emit(), 1000), Err(flaw), "{offloads:?}");
        assert_eq!(check(hdr, 1000), Ok(hdr));
    }
}

#[test]
fn fields_without_meaning_are_cleared() {
    let noise = NetHdr {
        hdr_len: 14,
        gso_size: 9,
        csum_start: 60_000,
        csum_offset: 60_000,
        num_buffers: 7,
        ..NetHdr::default()
    };
    assert_eq!(check(noise, 60), Ok(NetHdr::default()));
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (
        any::<[bool; 4]>(),
        prop_oneof![any::<u16>(), Just(1420), Just(1500)],
    )
        .prop_map(|([csum, tso4, tso6, uso], mtu)| Rules {
            offloads: Offloads {
                csum,
                tso4,
                tso6,
                uso,
            },
            mtu,
        })
}

/// Small numbers and edges far more often than `any` would have them.
fn field() -> impl Strategy<Value = u16> {
    prop_oneof![0..80_u16, 500..1600_u16, Just(u16::MAX), any::<u16>()]
}

fn any_header() -> impl Strategy<Value = [u8; HEADER_LEN]> {
    let flags = prop_oneof![4 => 0..4_u8, 1 => any::<u8>()];
    let gso_type = prop_oneof![4 => prop::sample::select(vec![0, 1, 3, 4, 5]), 1 => any::<u8>()];
    let offset = prop_oneof![Just(6), Just(16), field()];
    (
        flags,
        gso_type,
        field(),
        field(),
        field(),
        offset,
        any::<u16>(),
    )
        .prop_map(
            |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers)| {
                NetHdr {
                    flags,
                    gso_type,
                    hdr_len,
                    gso_size,
                    csum_start,
                    csum_offset,
                    num_buffers,
                }
                .emit()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn parse_and_emit_are_a_pair(bytes in any::<[u8; HEADER_LEN]>()) {
        prop_assert_eq!(NetHdr::parse(&bytes).emit(), bytes);
    }

    /// What the gate and the VMM rely on afterwards, written down anew.
    #[test]
    fn whatever_passes_is_safe_to_use(
        rules in any_rules(),
        header in any_header(),
        frame_len in prop_oneof![0..2000_usize, 0..70_000_usize],
    ) {
        let Ok(hdr) = rules.check(&header, frame_len) else { return Ok(()) };
        prop_assert!((14..=65_538).contains(&frame_len) || usize::from(rules.mtu) > 65_000);
        prop_assert!(usize::from(hdr.hdr_len) <= frame_len);
        prop_assert_eq!(hdr.flags & !3, 0);
        prop_assert!(hdr.flags == 0 || rules.offloads.csum);
        prop_assert_eq!(hdr.num_buffers, 0);
        if hdr.needs_csum() {
            let field = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset);
            prop_assert!(hdr.csum_start >= 14 && field + 2 <= frame_len);
        } else {
            prop_assert_eq!((hdr.csum_start, hdr.csum_offset), (0, 0));
        }
        let granted = match hdr.gso() {
            Some(GsoType::None) => {
                prop_assert!(frame_len <= usize::from(rules.mtu) + 14);
                prop_assert_eq!((hdr.gso_size, hdr.hdr_len), (0, 0));
                return Ok(());
            }
            Some(GsoType::TcpV4) => rules.offloads.tso4,
            Some(GsoType::TcpV6) => rules.offloads.tso6,
            Some(GsoType::UdpL4) => rules.offloads.uso,
            None => false,
        };
        prop_assert!(granted && hdr.needs_csum());
        prop_assert!(hdr.gso_size >= 536 && hdr.gso_size <= rules.mtu);
        prop_assert!(frame_len.div_ceil(usize::from(hdr.gso_size)) <= 123);
    }

    #[test]
    fn checking_again_changes_nothing(
        header in any_header(),
        frame_len in 0..70_000_usize,
    ) {
        if let Ok(hdr) = RULES.check(&header, frame_len) {
            prop_assert_eq!(RULES.check(&hdr.emit(), frame_len), Ok(hdr));
        }
    }
}
