//! The beacon's client against a TLS server that nobody here wrote, honest and otherwise.
#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{KeyPair, PublicKeyData as _};
use rustix::event::{PollFd, Timespec, poll};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sekisho_netdomain::moment::Moment;
use sekisho_netdomain::premises::{BeaconClient, NOT_ITS_KEY, Progress, QUESTIONS};

const ROUND_TRIP: Duration = Duration::from_millis(500);

/// What the server does with a question.
#[derive(Clone, Copy)]
enum Manner {
    Honest,
    /// Answers another question: yesterday's.
    Replay,
    /// Answers right, but as if it were relayed from far away.
    Late,
    /// So at first, for want of a processor.
    Busy,
    /// Sends the person elsewhere, as a captive portal does.
    Portal,
}

/// A beacon that answers one question; gives its address and the pin of its key.
fn beacon(manner: Manner) -> (SocketAddr, [u8; 32]) {
    let key = KeyPair::generate().unwrap();
    let spki = key.subject_public_key_info();
    let sha256 = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .unwrap()
        .common
        .hash_provider;
    let pin = sha256.hash(&spki).as_ref().try_into().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["beacon".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let tls = ServerConnection::new(Arc::new(config)).unwrap();
        // A client that does not like the key hangs up.
        let _ = serve(StreamOwned::new(tls, stream), manner);
    });
    (address, pin)
}

fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    manner: Manner,
) -> std::io::Result<()> {
    for asked in 0..QUESTIONS {
        let mut reader = BufReader::new(&mut stream);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut rest = String::new();
        while rest != "\r\n" {
            rest.clear();
            if reader.read_line(&mut rest)? == 0 {
                return Ok(());
            }
        }
        answer(&mut stream, &request, (manner, asked))?;
    }
    Ok(())
}

fn answer(
    stream: &mut impl Write,
    request: &str,
    (manner, asked): (Manner, usize),
) -> std::io::Result<()> {
    let nonce = request
        .strip_prefix("GET /sekisho-beacon?nonce=")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1\r\n"))
        .expect("the question of the contract")
        .to_owned();
    assert_eq!(nonce.len(), 64);
    let (status, body) = match manner {
        Manner::Busy if asked < 2 => {
            std::thread::sleep(ROUND_TRIP * 2);
            ("200 OK", nonce)
        }
        Manner::Honest | Manner::Busy => ("200 OK", nonce),
        Manner::Replay => ("200 OK", "0".repeat(64)),
        Manner::Late => {
            std::thread::sleep(ROUND_TRIP * 2);
            ("200 OK", nonce)
        }
        Manner::Portal => ("302 Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

fn ask(address: SocketAddr, pin: [u8; 32]) -> Progress {
    let SocketAddr::V4(v4) = address else {
        panic!("an IPv4 listener");
    };
    let client = BeaconClient::new(v4, pin, ROUND_TRIP).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut probe = client
        .begin(
            "eth1".to_owned(),
            OwnedFd::from(socket),
            &[[7; 32]; QUESTIONS],
            Moment::now(),
        )
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let progress = probe.advance(Moment::now());
        if progress != Progress::Waiting {
            return progress;
        }
        let pause = Timespec::try_from(probe.deadline().since(Moment::now())).unwrap();
        let fd = probe.as_fd();
        poll(&mut [PollFd::new(&fd, probe.interest())], Some(&pause)).unwrap();
    }
    panic!("neither proven nor failed");
}

#[test]
fn the_beacon_with_the_pinned_key_proves_the_office() {
    let (address, pin) = beacon(Manner::Honest);
    let progress = ask(address, pin);
    assert!(
        matches!(progress, Progress::Proven(took) if took <= ROUND_TRIP),
        "{progress:?}"
    );
}

#[test]
fn t19_another_key_proves_nothing() {
    let (address, _) = beacon(Manner::Honest);
    let (_, other) = beacon(Manner::Honest);
    assert_eq!(ask(address, other), Progress::Failed(NOT_ITS_KEY));
}

#[test]
fn t20_a_right_answer_from_far_away_proves_nothing() {
    let (address, pin) = beacon(Manner::Late);
    assert!(matches!(
        ask(address, pin),
        Progress::Failed("the beacon's answer took longer than one across the hall")
    ));
}

#[test]
fn a_beacon_that_is_busy_at_first_proves_the_office_in_the_end() {
    let (address, pin) = beacon(Manner::Busy);
    assert!(matches!(ask(address, pin), Progress::Proven(took) if took <= ROUND_TRIP));
}

#[test]
fn t21_a_replayed_answer_proves_nothing() {
    let (address, pin) = beacon(Manner::Replay);
    assert!(matches!(ask(address, pin), Progress::Failed(_)));
}

#[test]
fn t13_a_captive_portal_proves_nothing() {
    let (address, pin) = beacon(Manner::Portal);
    assert!(matches!(ask(address, pin), Progress::Failed(_)));
}

/// Most portals answer every connection as if it were one to a page.
#[test]
fn t13_who_speaks_no_tls_is_a_stranger() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let portal = std::thread::spawn(move || {
        let (mut seat, _) = listener.accept().unwrap();
        let found = b"HTTP/1.1 302 Found\r\nLocation: http://192.168.43.1/\r\n\r\n";
        seat.write_all(found).unwrap();
        // Until the laptop hangs up.
        let _ = seat.read_to_end(&mut Vec::new());
    });
    assert_eq!(ask(address, [0; 32]), Progress::Stranger);
    portal.join().unwrap();
}

/// The uplink keeps a descriptor of each socket that it hands over, and whoever holds one may make
/// the socket block for all; the gate must not wait for a beacon that says nothing.
#[test]
fn a_socket_that_the_uplink_makes_block_does_not_hold_the_gate_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let SocketAddr::V4(v4) = address else {
        panic!("an IPv4 listener");
    };
    let client = BeaconClient::new(v4, [0; 32], ROUND_TRIP).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    let kept = socket.try_clone().unwrap();
    let mut probe = client
        .begin(
            "eth1".to_owned(),
            socket.into(),
            &[[7; 32]; QUESTIONS],
            Moment::now(),
        )
        .unwrap();
    kept.set_nonblocking(false).unwrap();
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(probe.advance(Moment::now())));
    let progress = waits.recv_timeout(Duration::from_secs(5));
    assert_eq!(progress, Ok(Progress::Waiting));
}
