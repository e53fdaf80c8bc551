//! The work OS's question whether it has a network, answered here.
//!
//! Windows shows "connected" if the name `www.msftconnecttest.com` has an address, a web server
//! there says `Microsoft Connect Test`, and `dns.msftncsi.com` is 131.107.255.255 (Microsoft,
//! "Network Connectivity Status Indicator"). None of these servers is reachable from a closed
//! network, and asking them would leak. So while the tunnel is up, and only then, the gate says
//! what they would say: Windows' sign means the city's network. Its variants over IPv6 are not
//! answered.
//!
//! The web server keeps nothing. As with SYN cookies (RFC 4987, section 3.6) each segment says all
//! that is needed to answer it: the request fits one segment and so does the response, which ends
//! the connection. What is lost is asked again by the client's own timers. So there is no number of
//! connections to bound, no memory and no timer; and as only the guest is on this wire, a forged
//! segment only concerns whoever forges it.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::Edge;
use super::reply::Reply;
use crate::gate::packet::{IPV4_HEADER, Offload, Packet, Transport};

/// Where the web server is asked for.
pub(super) const HTTP: u16 = 80;
/// The server of the test page; its address is the gate's.
const SERVER: &[u8] = b"www.msftconnecttest.com";
/// The name whose address Windows knows beforehand.
const NAME: &[u8] = b"dns.msftncsi.com";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(131, 107, 255, 255);

const REQUEST: &[u8] = b"GET /connecttest.txt HTTP/1.";
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";
/// The longest request that is read; Windows sends some hundred bytes.
const MAX_REQUEST: u16 = 1024;
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\nContent-Type: text/plain\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\nMicrosoft Connect Test";
const NO_PAGE: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Headers of IPv4 and TCP without options.
const HEADERS: u16 = 40;

/// The address of a lower-case name, if it is one of the test's.
pub(super) fn address(name: &[u8], router: Ipv4Addr) -> Option<Ipv4Addr> {
    match name {
        SERVER => Some(router),
        NAME => Some(ADDRESS),
        _ => None,
    }
}

/// Whether a TCP segment has a checksum that does not fit. The guest may have left it to be written.
pub(super) fn is_broken(packet: &Packet<'_>) -> bool {
    let (from, to) = (packet.flow().source, packet.flow().destination);
    packet.offload() == Offload::None
        && TcpPacket::new_checked(packet.body())
            .is_ok_and(|segment| !segment.verify_checksum(&from.into(), &to.into()))
}

/// The web server.
#[derive(Debug, Default)]
pub(super) struct WebServer {
    /// A secret of this process, from which initial sequence numbers are made.
    hash: RandomState,
}

impl WebServer {
    /// The segment that answers `segment`, if any does.
    fn answer(&self, segment: &TcpPacket<&[u8]>, mtu: u16) -> Option<TcpRepr<'static>> {
        let payload = segment.payload();
        let number = segment.seq_number();
        if segment.rst() {
            return None;
        }
        let mut answer = TcpRepr {
            src_port: HTTP,
            dst_port: segment.src_port(),
            control: TcpControl::None,
            seq_number: segment.ack_number(),
            ack_number: Some(number + payload.len() + usize::from(segment.fin())),
            window_len: MAX_REQUEST,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"",
        };
        if segment.syn() && !segment.ack() {
            answer.control = TcpControl::Syn;
            answer.seq_number = self.initial(segment.src_port(), number);
            answer.ack_number = Some(number + 1);
            answer.max_seg_size = Some(mtu.saturating_sub(HEADERS));
            return Some(answer);
        }
        if !segment.ack() {
            return None;
        }
        if !segment.syn() && payload.is_empty() {
            // An acknowledgement is taken note of by keeping nothing; the end is acknowledged.
            return segment.fin().then_some(answer);
        }
        let first = self.initial(segment.src_port(), number - 1) + 1;
        let whole = payload.len() <= usize::from(MAX_REQUEST) && payload.ends_with(END_OF_REQUEST);
        if segment.syn() || segment.ack_number() != first || !whole {
            answer.control = TcpControl::Rst;
            answer.ack_number = None;
            return Some(answer);
        }
        answer.control = TcpControl::Fin;
        answer.payload = if payload.starts_with(REQUEST) {
            PAGE
        } else {
            NO_PAGE
        };
        Some(answer)
    }

    /// Our initial sequence number for a connection from `port` that began at `theirs`.
    fn initial(&self, port: u16, theirs: TcpSeqNumber) -> TcpSeqNumber {
        let [a, b, c, d, ..] = self.hash.hash_one((port, theirs.0)).to_ne_bytes();
        TcpSeqNumber(i32::from_ne_bytes([a, b, c, d]))
    }
}

impl Edge {
    /// Answers a segment to the web server.
    pub fn serve_probe(&self, packet: &Packet<'_>, reply: &mut Reply) {
        let flow = packet.flow();
        let Transport::Tcp { .. } = packet.transport() else {
            return;
        };
        let Ok(segment) = TcpPacket::new_checked(packet.body()) else {
            return;
        };
        let (to, from) = (flow.destination, flow.source);
        // A segment with a broken checksum would get an answer with a good one.
        if is_broken(packet) {
            return;
        }
        let Some(answer) = self.web.answer(&segment, self.device.mtu) else {
            return;
        };
        let protocol = IpProtocol::Tcp;
        let len = answer.buffer_len();
        debug_assert!(IPV4_HEADER + len <= usize::from(self.device.mtu));
        reply.ipv4(&self.ethernet, (to, from), protocol, len, |out| {
            let mut out = TcpPacket::new_unchecked(out);
            let sums = ChecksumCapabilities::default();
            answer.emit(&mut out, &to.into(), &from.into(), &sums);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1420;
    const ASK: &[u8] = b"GET /connecttest.txt HTTP/1.1\r\nHost: www.msftconnecttest.com\r\n\r\n";

    fn answered(server: &WebServer, segment: &TcpRepr<'_>) -> Option<TcpRepr<'static>> {
        let mut bytes = vec![0; segment.buffer_len()];
        let (from, to) = (Ipv4Addr::new(10, 250, 7, 23), Ipv4Addr::new(10, 250, 7, 1));
        segment.emit(
            &mut TcpPacket::new_unchecked(&mut bytes[..]),
            &from.into(),
            &to.into(),
            &ChecksumCapabilities::default(),
        );
        server.answer(&TcpPacket::new_checked(&bytes[..]).unwrap(), MTU)
    }

    const SYN: TcpRepr<'_> = TcpRepr {
        src_port: 4000,
        dst_port: HTTP,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(-3),
        ack_number: None,
        window_len: 4000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: b"",
    };

    /// The request of a client whose handshake went well.
    fn request(server: &WebServer, payload: &'static [u8]) -> TcpRepr<'static> {
        let greeting = answered(server, &SYN).unwrap();
        TcpRepr {
            control: TcpControl::Psh,
            seq_number: SYN.seq_number + 1,
            ack_number: Some(greeting.seq_number + 1),
            payload,
            ..SYN
        }
    }

    #[test]
    fn the_page_is_served_and_served_again_if_it_was_lost() {
        let server = WebServer::default();
        let ask = request(&server, ASK);
        let page = answered(&server, &ask).unwrap();
        assert_eq!(page.control, TcpControl::Fin);
        assert!(page.payload.ends_with(b"\r\n\r\nMicrosoft Connect Test"));
        assert_eq!(Some(page.seq_number), ask.ack_number);
        assert_eq!(page.ack_number, Some(ask.seq_number + ASK.len()));
        assert_eq!(answered(&server, &ask), Some(page));
        // The client's end is acknowledged; its acknowledgement of ours needs no answer.
        let mut end = TcpRepr {
            control: TcpControl::None,
            seq_number: ask.seq_number + ASK.len(),
            ack_number: Some(page.seq_number + page.payload.len() + 1),
            payload: b"",
            ..SYN
        };
        assert_eq!(answered(&server, &end), None);
        end.control = TcpControl::Fin;
        let last = answered(&server, &end).unwrap();
        assert_eq!(last.control, TcpControl::None);
        assert_eq!(last.ack_number, Some(end.seq_number + 1));
    }

    #[test]
    fn other_pages_are_not_there() {
        let server = WebServer::default();
        let ask = request(&server, b"GET / HTTP/1.1\r\n\r\n");
        let page = answered(&server, &ask).unwrap();
        assert!(page.payload.starts_with(b"HTTP/1.1 404 "));
    }

    #[test]
    fn what_is_no_whole_request_of_an_open_connection_is_reset() {
        let server = WebServer::default();
        let cut = request(&server, b"GET /connecttest.txt HTTP/1.1\r\n");
        let mut late = request(&server, ASK);
        late.ack_number = late.ack_number.map(|number| number + 1);
        let mut other = request(&server, ASK);
        other.src_port = 4001;
        for odd in [cut, late, other] {
            let answer = answered(&server, &odd).unwrap();
            assert_eq!(answer.control, TcpControl::Rst, "{odd:?}");
            assert!(answer.payload.is_empty());
        }
        let reset = TcpRepr {
            control: TcpControl::Rst,
            ..request(&server, b"")
        };
        assert_eq!(answered(&server, &reset), None, "no quarrel over resets");
    }

    #[test]
    fn the_length_that_the_page_tells_is_its_own() {
        let text = std::str::from_utf8(PAGE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
