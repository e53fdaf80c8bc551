//! charon as a fuzzer plays it.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use sekisho_policy::{IkeAuth, Revocation};

use super::dialogue::{Dialogue, Follows, Gateway, Identity, Key};
use super::vici::{Asked, Said, Vici, reads_back};

/// As much as fits the socket's buffer whatever the system's default.
const MOST: usize = 32 << 10;

/// Reads `data` as the stream of a charon that answers what it is told, the first byte saying after how
/// many bytes it pauses.
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
        key: Key::Here(vec![0x30]),
        revoked: Vec::new(),
        address,
    };
    let (mut dialogue, _) = Dialogue::begin(gateway, &identity, 1);
    let (mut begun, mut over, mut up) = (false, false, 0);
    for piece in said.chunks(usize::from(*pause).max(1)) {
        if theirs.write_all(piece).is_err() {
            return;
        }
        loop {
            let heard = match vici.hear() {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Said::Answer(message) | Said::Event(_, message) = &heard {
                assert!(reads_back(message), "what was read is not what is written");
            }
            match dialogue.on(heard) {
                Follows::Ask(Asked::Command("initiate", _)) => begun = true,
                Follows::Ask(_) | Follows::Nothing => {}
                Follows::Down(_) | Follows::Locked(_) => over = true,
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
