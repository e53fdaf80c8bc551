//! charon as a fuzzer plays it.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use sekisho_policy::{IkeAuth, Revocation};

use super::dialogue::{Dialogue, Follows, Gateway, Identity, Key};
use super::token::{Pin, Words};
use super::vici::{Asked, Said, Vici, reads_back};

/// As much as fits the socket's buffer whatever the system's default.
const MOST: usize = 32 << 10;

/// Reads `data` as the stream of a charon that answers what it is told, and as its log; the first byte says
/// after how many bytes it pauses, and from 128 on that the key is in a token.
pub(crate) fn vici(data: &[u8]) {
    let Some((pause, said)) = data.split_first() else {
        return;
    };
    let said = &said[..said.len().min(MOST)];
    let (Ok((ours, mut theirs)), address) = (UnixStream::pair(), Ipv4Addr::new(10, 250, 7, 23))
    else {
        return;
    };
    let Ok(mut vici) = Vici::new(ours) else {
        return;
    };
    let gateway = Gateway {
        name: "honcho-ikev2".into(),
        address: "203.0.113.10:4500".parse().expect("an address"),
        lan: None,
        remote_id: "vpn1.mihon-city.example".into(),
        authority: vec![0x30],
        auth: IkeAuth::Certificate,
        revocation: Revocation::Relaxed,
    };
    let identity = Identity {
        certificate: vec![0x30],
        key: match pause {
            0..128 => Key::Here(vec![0x30].into()),
            128.. => Key::Token {
                id: "0a".into(),
                pin: Pin::Asked,
            },
        },
        revoked: Vec::new(),
        address,
    };
    let (mut dialogue, _) = Dialogue::begin(gateway, &identity, 1);
    let (mut begun, mut over, mut up) = (false, false, 0);
    let (mut words, mut given) = (Words::default(), 0);
    for piece in said.chunks(usize::from(*pause).max(1)) {
        if theirs.write_all(piece).is_err() {
            return;
        }
        words.hear(&String::from_utf8_lossy(piece));
        loop {
            let heard = match vici.hear() {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Said::Answer(message) | Said::Event(_, message) = &heard {
                assert!(reads_back(message), "what was read is not what is written");
            }
            let mut follows = dialogue.on(heard);
            if follows == Follows::Weigh {
                follows = dialogue.weigh(words.found());
            }
            match follows {
                Follows::Ask(Asked::Command("initiate", _)) => begun = true,
                Follows::Ask(_) | Follows::Nothing => {}
                Follows::Pin => {
                    let _ = dialogue.open(b"271828");
                    words = Words::default();
                    given += 1;
                    assert_eq!(given, 1, "a PIN is given twice");
                }
                Follows::Down(_) | Follows::Absent { .. } | Follows::Shut { .. } => over = true,
                Follows::Weigh => unreachable!("it was weighed"),
            }
            if dialogue.take_opened() {
                assert_eq!(given, 1, "opened without a PIN");
            }
            if dialogue.take_news() {
                up += 1;
                assert!(begun, "up before it was asked for");
                assert!(!over, "up after its end");
            }
            assert!(up <= 1, "up twice");
        }
    }
}
