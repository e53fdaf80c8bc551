//! Whether somebody else on the LAN has the address already (RFC 5227), for the one address that is also
//! the work OS's: the lease of a port on a LAN that it is a member of.
//!
//! On every other port the address is the tunnel's own. There a duplicate is noticed by a tunnel that
//! does not come up, and nobody waits for probes in a cafe.
//!
//! | module | what |
//! |---|---|
//! | `machine` | probes, announces, defends: pure |
//! | `declined` | when an address is used in spite of whoever says that he has it |
//! | `packet` | the three ARP packets that it sends, and what it hears |

mod declined;
mod machine;
mod packet;

use std::{io, net::Ipv4Addr, time::Duration};

use socket2::SockFilter;

pub(super) use declined::Declined;
pub(super) use machine::{Step, Watch};

use super::frames::FrameSocket;

/// Drives the watch over an address with `data`: a byte of time before each frame, 16 bits of length, the
/// frame. See [`crate::fuzzing`].
///
/// # Panics
/// If the address is used although somebody had it before, or more is said than a LAN bears.
pub(crate) fn fuzz(mac: [u8; 6], address: Ipv4Addr, random: fn() -> u32, data: &[u8]) {
    /// What a byte of time stands for.
    const TICK: Duration = Duration::from_millis(80);
    let (mut now, mut frames, mut taken) = (Duration::ZERO, 0, false);
    let mut watch = Watch::new(address, mac, now, random);
    let mut heed = |steps: Vec<Step>| {
        for step in steps {
            match step {
                Step::Send(_) => frames += 1,
                Step::Taken(_) => taken = true,
                Step::Free => assert!(!taken, "somebody has it"),
                Step::Disputed(by) => assert_ne!(by, mac, "a quarrel with itself"),
            }
        }
    };
    let mut rest = data;
    while let Some(([time, high, low], tail)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        rest = tail;
        let until = now + TICK * u32::from(*time);
        while let Some(due) = watch.due().filter(|due| *due <= until) {
            heed(watch.on_time(due));
        }
        now = until;
        heed(watch.on_frame(now, frame));
    }
    // Three probes, two announcements, and a defence each ten seconds.
    let most = 6 + now.as_secs() / 10;
    assert!(frames <= most, "{frames} frames in {now:?}");
}

/// Ethernet type of ARP.
const ARP: u16 = 0x0806;

/// Opens a socket for ARP about one address, in the caller's network namespace.
pub(super) fn open(interface: u32, address: Ipv4Addr) -> io::Result<FrameSocket> {
    FrameSocket::open(interface, ARP, &about(address))
}

/// Passes untagged ARP for IPv4 over Ethernet that comes from the address or probes for it (classic
/// BPF): a flood of any other costs this process nothing.
fn about(address: Ipv4Addr) -> [SockFilter; 13] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: a tag that the card took off.
    const VLAN_PRESENT: u32 = 0xffff_f000 + 48;
    let address = u32::from(address);
    [
        SockFilter::new(LOAD_BYTE, 0, 0, VLAN_PRESENT),
        SockFilter::new(JUMP_EQUAL, 0, 10, 0),
        // Hardware Ethernet, protocol IPv4, and the lengths of both addresses.
        SockFilter::new(LOAD_WORD, 0, 0, 14),
        SockFilter::new(JUMP_EQUAL, 0, 8, 0x0001_0800),
        SockFilter::new(LOAD_HALF, 0, 0, 18),
        SockFilter::new(JUMP_EQUAL, 0, 6, 0x0604),
        // The sender's address, or none and the target's.
        SockFilter::new(LOAD_WORD, 0, 0, 28),
        SockFilter::new(JUMP_EQUAL, 3, 0, address),
        SockFilter::new(JUMP_EQUAL, 0, 3, 0),
        SockFilter::new(LOAD_WORD, 0, 0, 38),
        SockFilter::new(JUMP_EQUAL, 0, 1, address),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
