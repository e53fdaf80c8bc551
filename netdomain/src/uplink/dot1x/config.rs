//! The wired supplicant's configuration: a pure function of the policy and the laptop's papers.
//!
//! Names are written in hexadecimal and papers in base64, so that no byte of them can end a line, a
//! string or a block. It holds the papers themselves and no path: the supplicant uses the very
//! bytes that were checked, and need not be able to read any file of ours.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{keeper::SOCKETS, papers::Papers};
use crate::uplink::wifi::hex;

/// Digits of base64 in a line; the supplicant reads lines of up to 255 bytes.
const LINE: usize = 64;

/// Text for `wpa_supplicant -c`. `server` is the name in the server's certificate.
///
/// TLS alone: no method that would give a password to whoever asks for it. No session is taken up
/// again: each time both sides show their certificates.
pub(super) fn configuration(papers: &Papers, server: &str) -> String {
    let mut text = format!(
        "ctrl_interface={SOCKETS}\n\
update_config=0
ap_scan=0
fast_reauth=0
network={{
  key_mgmt=IEEE8021X
  eapol_flags=0
  eap=TLS
  identity={}
  domain_match={}
  phase1=\"tls_disable_tlsv1_0=1 tls_disable_tlsv1_1=1\"
  ca_cert=\"blob://authority\"
  client_cert=\"blob://certificate\"
  private_key=\"blob://key\"
}}
",
        hex(papers.identity.as_str().as_bytes()),
        hex(server.as_bytes()),
    );
    for (name, bytes) in [
        ("authority", &papers.authority),
        ("certificate", &papers.certificate),
        ("key", &papers.key),
    ] {
        let _ = writeln!(text, "blob-base64-{name}={{");
        let digits = STANDARD.encode(bytes);
        let mut rest = &*digits;
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE));
            let _ = writeln!(text, "{line}");
            rest = more;
        }
        text.push_str("}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn papers(identity: &str, certificate: &[u8]) -> Papers {
        Papers {
            identity: serde_json::from_value(identity.into()).unwrap(),
            authority: vec![0; 48],
            certificate: certificate.to_vec(),
            key: b"-----BEGIN".to_vec(),
        }
    }

    #[test]
    fn text_is_what_it_was() {
        let text = configuration(&papers("a@b", &[0xff; 49]), "radius.example");
        let (zeros, ones) = ("A".repeat(64), "/".repeat(64));
        assert_eq!(
            text,
            format!(
                "ctrl_interface=/run/dot1x
update_config=0
ap_scan=0
fast_reauth=0
network={{
  key_mgmt=IEEE8021X
  eapol_flags=0
  eap=TLS
  identity=614062
  domain_match=7261646975732e6578616d706c65
  phase1=\"tls_disable_tlsv1_0=1 tls_disable_tlsv1_1=1\"
  ca_cert=\"blob://authority\"
  client_cert=\"blob://certificate\"
  private_key=\"blob://key\"
}}
blob-base64-authority={{
{zeros}
}}
blob-base64-certificate={{
{ones}
/w==
}}
blob-base64-key={{
LS0tLS1CRUdJTg==
}}
"
            )
        );
    }

    proptest! {
        /// Whatever stands in the laptop's papers, the lines and their order are ours.
        #[test]
        fn hostile_papers_write_no_line_of_their_own(
            identity in "[^\\pC\"\\\\]{1,80}",
            certificate in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let keys = |text: &str| -> Vec<String> {
                let digits = |line: &str| line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) && line.len() <= LINE;
                text.lines()
                    .filter(|line| !digits(line) || line.contains(['_', '{']))
                    .map(|line| line.split('=').next().unwrap().to_owned())
                    .collect()
            };
            let usual = configuration(&papers("a@b", b"x"), "radius.example");
            let text = configuration(&papers(&identity, &certificate), "radius.example");
            prop_assert_eq!(keys(&text), keys(&usual));
        }
    }
}
