//! What the work OS does on the network during a test, and what it saw of it.
//!
//! The probe runs inside the guest. Each datagram and each request that it sends carries the
//! run's canary, so that whoever holds a capture can tell where the guest's traffic went. It
//! answers with one JSON document on standard output.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};
use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
};

/// How an attempt to reach something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Something answered.
    Answered {
        /// What it said, in short.
        detail: String,
    },
    /// An ICMP error or a reset came back at once.
    Refused {
        /// The kernel's words for it.
        error: String,
    },
    /// Nothing came back in time.
    Silent,
}

impl Outcome {
    /// Whether anything at the other end was reached.
    pub fn reached(&self) -> bool {
        matches!(self, Self::Answered { .. })
    }

    fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Silent,
            _ => Self::Refused {
                error: error.to_string(),
            },
        }
    }
}

/// A finished or broken download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Bytes of the body that arrived.
    pub bytes: u64,
    /// Bytes that the server announced.
    pub announced: Option<u64>,
    /// From connect to the end, in milliseconds.
    pub took_ms: u64,
    /// Longest time without a byte, in milliseconds.
    pub longest_gap_ms: u64,
    /// What broke it, if something did.
    pub error: Option<String>,
}

/// Connects by TCP, sends the canary, and reports what happened.
pub fn tcp(target: SocketAddr, canary: &str, patience: Duration) -> Outcome {
    let attempt = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&target, patience)?;
        stream.set_read_timeout(Some(patience.min(Duration::from_secs(1))))?;
        stream.write_all(canary.as_bytes())?;
        let mut answer = [0; 64];
        let said = match stream.read(&mut answer) {
            Ok(length) => String::from_utf8_lossy(&answer[..length]).into_owned(),
            Err(_) => String::new(),
        };
        Ok(format!("connected {said}").trim().to_owned())
    };
    attempt().map_or_else(
        |error| Outcome::from_error(&error),
        |detail| Outcome::Answered { detail },
    )
}

/// Asks `server` for the address of `name`.
pub fn dns(server: SocketAddr, name: &str, patience: Duration) -> Outcome {
    let attempt = || -> io::Result<String> {
        let answer = ask(server, name, patience)?;
        describe_dns(&answer)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a DNS answer"))
    };
    attempt().map_or_else(
        |error| Outcome::from_error(&error),
        |detail| Outcome::Answered { detail },
    )
}

/// Resolves `name` by `resolver` and fetches its first page by HTTP; answers with the page.
///
/// The C library of a static program resolves no names, so this asks by itself.
pub fn page(resolver: SocketAddr, name: &str, canary: &str, patience: Duration) -> Outcome {
    let attempt = || -> io::Result<String> {
        let answer = ask(resolver, name, patience)?;
        let address = first_address(&answer)
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the name has no address"))?;
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(
            stream,
            "GET / HTTP/1.0\r\nHost: {name}\r\nX-Canary: {canary}\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.take(MAX_PAGE).read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        if head.contains(" 200 ") {
            Ok(body.to_owned())
        } else {
            Err(io::Error::other(head.to_owned()))
        }
    };
    attempt().map_or_else(
        |error| Outcome::from_error(&error),
        |detail| Outcome::Answered { detail },
    )
}

/// Longest page that is read.
const MAX_PAGE: u64 = 64 * 1024;

/// Sends one datagram with the canary and waits for an answer.
pub fn udp(target: SocketAddr, canary: &str, patience: Duration) -> Outcome {
    let attempt = || -> io::Result<String> {
        let socket = socket_towards(target)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(canary.as_bytes())?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer)?;
        Ok(format!("{length} bytes"))
    };
    attempt().map_or_else(
        |error| Outcome::from_error(&error),
        |detail| Outcome::Answered { detail },
    )
}

/// One ICMP echo request with the canary as its data.
pub fn ping(target: IpAddr, canary: &str, patience: Duration) -> Outcome {
    let attempt = || -> io::Result<String> {
        let (family, protocol, kind) = match target {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
        };
        let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience))?;
        rustix::net::connect(&socket, &SocketAddr::new(target, 0))?;
        rustix::net::send(&socket, &echo_request(kind, canary), SendFlags::empty())?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let mut answer = [0; 1500];
            let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
            let message = match target {
                IpAddr::V4(_) => answer.get(20..length).unwrap_or_default(),
                IpAddr::V6(_) => &answer[..length],
            };
            match message.first() {
                Some(0 | 129) => return Ok("echo reply".to_owned()),
                Some(3 | 1) => {
                    return Err(io::Error::new(
                        ErrorKind::ConnectionRefused,
                        "destination unreachable",
                    ));
                }
                _ => {}
            }
        }
        Err(ErrorKind::TimedOut.into())
    };
    attempt().map_or_else(
        |error| Outcome::from_error(&error),
        |detail| Outcome::Answered { detail },
    )
}

/// Fetches `path` by HTTP, its first `bytes` only where given, and measures the longest silence on
/// the way.
pub fn download(
    server: SocketAddr,
    path: &str,
    bytes: Option<u64>,
    canary: &str,
    patience: Duration,
) -> Download {
    let started = Instant::now();
    let mut done = Download {
        bytes: 0,
        announced: None,
        took_ms: 0,
        longest_gap_ms: 0,
        error: None,
    };
    // RFC 9110, section 14.1.2.
    let range = bytes.map_or(String::new(), |bytes| {
        format!("Range: bytes=0-{}\r\n", bytes.saturating_sub(1))
    });
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n{range}X-Canary: {canary}\r\n\r\n");
    if let Err(error) = fetch(server, &request, patience, &mut done) {
        done.error = Some(error.to_string());
    }
    done.took_ms = millis(started.elapsed());
    done
}

fn fetch(
    server: SocketAddr,
    request: &str,
    patience: Duration,
    done: &mut Download,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut last = Instant::now();
    loop {
        let length = stream.read(&mut buffer)?;
        done.longest_gap_ms = done.longest_gap_ms.max(millis(last.elapsed()));
        last = Instant::now();
        if length == 0 {
            break;
        }
        if done.announced.is_some() || head.len() > 16 * 1024 {
            done.bytes += length as u64;
            continue;
        }
        head.extend_from_slice(&buffer[..length]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
            done.bytes = (head.len() - end - 4) as u64;
            done.announced = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if !text.starts_with("http/1.") || !(text.contains(" 200 ") || text.contains(" 206 ")) {
                return Err(io::Error::other(
                    text.lines().next().unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    match done.announced {
        Some(announced) if announced != done.bytes => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn socket_towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket)
}

/// An A query as RFC 1035 section 4.1 lays it out.
fn dns_query(name: &str) -> Vec<u8> {
    let mut question = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        question.push(u8::try_from(label.len().min(63)).unwrap_or(63));
        question.extend_from_slice(&label.as_bytes()[..label.len().min(63)]);
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut query = vec![0; 12];
    let mut packet = DnsPacket::new_unchecked(&mut query[..]);
    packet.set_transaction_id(0x5eb1);
    packet.set_flags(DnsFlags::RECURSION_DESIRED);
    packet.set_opcode(DnsOpcode::Query);
    packet.set_question_count(1);
    query.extend_from_slice(&question);
    query
}

fn ask(server: SocketAddr, name: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let socket = socket_towards(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(&dns_query(name))?;
    let mut answer = vec![0; 1500];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// The first A record of an answer to one question.
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let packet = DnsPacket::new_checked(answer).ok()?;
    let (mut rest, _) = DnsQuestion::parse(packet.payload()).ok()?;
    for _ in 0..packet.answer_record_count() {
        let (after, record) = DnsRecord::parse(rest).ok()?;
        if let DnsRecordData::A(address) = record.data {
            return Some(address);
        }
        rest = after;
    }
    None
}

fn describe_dns(answer: &[u8]) -> Option<String> {
    let packet = DnsPacket::new_checked(answer).ok()?;
    let code = match packet.rcode() {
        DnsRcode::NoError => "NOERROR".to_owned(),
        DnsRcode::NXDomain => "NXDOMAIN".to_owned(),
        DnsRcode::Refused => "REFUSED".to_owned(),
        other => format!("{other:?}"),
    };
    Some(format!("{code}, {} answers", packet.answer_record_count()))
}

/// RFC 792 / RFC 4443 echo request; the kernel fills in the `ICMPv6` checksum.
fn echo_request(kind: u8, canary: &str) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x5e, 0xb1, 0, 1];
    message.extend_from_slice(canary.as_bytes());
    if message.len() % 2 == 1 {
        message.push(0);
    }
    let sum: u32 = message
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded & 0xffff).unwrap_or(0);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_download_counts_its_bytes_and_ends_with_the_announced_length() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let done = download(address, "/page", None, "c4n4ry", PATIENCE);
        assert!(server.join().unwrap().contains("X-Canary: c4n4ry"));
        assert_eq!((done.bytes, done.announced), (5, Some(5)));
        assert_eq!(done.error, None);
    }

    #[test]
    fn a_short_body_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhello").unwrap();
        });
        let done = download(address, "/", Some(9), "c", PATIENCE);
        server.join().unwrap();
        assert!(done.error.is_some());
    }

    #[test]
    fn a_closed_port_is_refused_and_an_open_one_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        assert!(tcp(open, "c", Duration::from_millis(200)).reached());
        drop(listener);
        assert!(matches!(tcp(open, "c", PATIENCE), Outcome::Refused { .. }));
    }

    #[test]
    fn a_query_is_what_a_third_party_parser_reads() {
        let query = dns_query("groupware.mihon-city.example");
        let packet = DnsPacket::new_checked(&query[..]).unwrap();
        assert_eq!(packet.question_count(), 1);
        assert_eq!(packet.payload().len(), 1 + 9 + 1 + 10 + 1 + 7 + 1 + 4);
    }
}
