//! Keeps TCP peers from agreeing on segments that the tunnel cannot carry.

use smoltcp::wire::checksum;

use crate::gate::packet::IPV4_HEADER;

const TCP_HEADER: usize = 20;
/// Both headers without options.
const HEADERS: u16 = 40;
const _: () = assert!(HEADERS as usize == IPV4_HEADER + TCP_HEADER);
const TCP_CHECKSUM: usize = IPV4_HEADER + 16;
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;

/// Lowers the MSS option (RFC 9293, section 3.7.1) in the IPv4 and TCP headers of a SYN to what
/// fits `mtu`, and corrects the TCP checksum by the difference (RFC 1624).
pub(super) fn clamp_mss(headers: &mut [u8], mtu: u16) {
    let most = mtu.saturating_sub(HEADERS);
    let mut at = IPV4_HEADER + TCP_HEADER;
    while let Some(&kind) = headers.get(at) {
        match kind {
            END => return,
            NOP => at += 1,
            _ => {
                let Some(&length) = headers.get(at + 1) else {
                    return;
                };
                if length < 2 {
                    return;
                }
                if kind == MSS && length == 4 && headers.len() >= at + 4 {
                    lower(headers, at + 2, most);
                    return;
                }
                at += usize::from(length);
            }
        }
    }
}

fn lower(headers: &mut [u8], at: usize, most: u16) {
    let old = u16::from_be_bytes([headers[at], headers[at + 1]]);
    if old <= most {
        return;
    }
    headers[at..at + 2].copy_from_slice(&most.to_be_bytes());
    let sum = u16::from_be_bytes([headers[TCP_CHECKSUM], headers[TCP_CHECKSUM + 1]]);
    // The option may start at an odd offset; its bytes then count swapped in the sum.
    let (old, new) = if at.is_multiple_of(2) {
        (old, most)
    } else {
        (old.swap_bytes(), most.swap_bytes())
    };
    let sum = !checksum::combine(&[!sum, !old, new]);
    headers[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}
