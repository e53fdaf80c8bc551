//! Keeps TCP peers from agreeing on segments that the tunnel cannot carry.

use smoltcp::wire::checksum;

use crate::gate::family::short;

const TCP_HEADER: usize = 20;
/// Where in a TCP header its checksum is.
const TCP_CHECKSUM: usize = 16;
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;

/// Lowers the MSS option (RFC 9293, section 3.7.1) in the headers of a SYN, whose IP header has `ip`
/// bytes, to what fits `mtu`, and corrects the TCP checksum by the difference (RFC 1624).
pub(super) fn clamp_mss(headers: &mut [u8], ip: usize, mtu: u16) {
    // Both headers without options.
    let most = mtu.saturating_sub(short(ip + TCP_HEADER));
    let mut at = ip + TCP_HEADER;
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
                    lower(headers, ip + TCP_CHECKSUM, at + 2, most);
                    return;
                }
                at += usize::from(length);
            }
        }
    }
}

fn lower(headers: &mut [u8], field: usize, at: usize, most: u16) {
    let old = u16::from_be_bytes([headers[at], headers[at + 1]]);
    if old <= most {
        return;
    }
    headers[at..at + 2].copy_from_slice(&most.to_be_bytes());
    let sum = u16::from_be_bytes([headers[field], headers[field + 1]]);
    // The option may start at an odd offset; its bytes then count swapped in the sum.
    let (old, new) = if at.is_multiple_of(2) {
        (old, most)
    } else {
        (old.swap_bytes(), most.swap_bytes())
    };
    let sum = !checksum::combine(&[!sum, !old, new]);
    headers[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
