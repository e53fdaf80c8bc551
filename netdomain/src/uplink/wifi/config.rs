//! The supplicant's configuration: a pure function of the policy and the networks.
//!
//! Every name and every secret is written in hexadecimal, so that no byte of them can end a line, a
//! string or a block. What a network must have at least is written for each: RSN with CCMP or
//! better, and management frame protection where the policy's word means WPA3. There is no line
//! that would let WEP, WPA, TKIP or an open network be joined.

use std::{fmt::Write as _, num::NonZeroU32};

use aws_lc_rs::pbkdf2;
use sekisho_policy::{SsidGlob, WifiSecurity};

use super::networks::{Certificate, Network, Passphrase, Secret, Ssid};

/// What holds for all networks. No control interface: nobody may add a network. The card's own
/// address is used (`mac_addr=0` is the default), because networks of cities know it.
const HEAD: &str = "\
update_config=0
ap_scan=1
country=JP
pmf=1
sae_pwe=2
p2p_disabled=1
";

/// Text for `wpa_supplicant -c`. Networks that `denied` covers are left out.
pub(crate) fn configuration(
    networks: &[Network],
    security: &[WifiSecurity],
    denied: &[SsidGlob],
) -> String {
    let mut text = HEAD.to_owned();
    let joined = networks
        .iter()
        .filter(|network| !denied.iter().any(|glob| glob.matches(network.ssid.bytes())));
    for network in joined {
        for word in security {
            if let Some(block) = block(network, *word) {
                text.push_str(&block);
            }
        }
    }
    text
}

/// One way into a network; `None` where its secret is not of that kind.
fn block(network: &Network, security: WifiSecurity) -> Option<String> {
    let Network { ssid, secret } = network;
    let (suites, protection, lines) = match (security, secret) {
        (WifiSecurity::Wpa3Sae, Secret::Passphrase(passphrase)) => {
            let lines = format!("  sae_password={}\n", hex(passphrase.bytes()));
            ("SAE", Protection::Required, lines)
        }
        (WifiSecurity::Wpa2Personal, Secret::Passphrase(passphrase)) => {
            let lines = format!("  psk={}\n", hex(&pairwise_master_key(passphrase, ssid)));
            ("WPA-PSK WPA-PSK-SHA256", Protection::Optional, lines)
        }
        (WifiSecurity::Wpa3Enterprise, Secret::Certificate(certificate)) => {
            let lines = eap_tls(certificate);
            ("WPA-EAP-SHA256", Protection::Required, lines)
        }
        (WifiSecurity::Wpa2Enterprise, Secret::Certificate(certificate)) => {
            let lines = eap_tls(certificate);
            ("WPA-EAP WPA-EAP-SHA256", Protection::Optional, lines)
        }
        _ => return None,
    };
    let mut text = String::from("network={\n");
    let _ = writeln!(text, "  ssid={}", hex(ssid.bytes()));
    // RSN alone, and no cipher below CCMP: neither WPA nor TKIP nor WEP is left to agree on, also
    // not for broadcasts.
    text.push_str("  proto=RSN\n  pairwise=CCMP GCMP-256\n  group=CCMP GCMP-256\n");
    let _ = writeln!(text, "  key_mgmt={suites}");
    // 802.11w: 1 where the access point has it, 2 always.
    let (mfp, priority) = match protection {
        Protection::Optional => (1, 1),
        Protection::Required => (2, 2),
    };
    let _ = writeln!(text, "  ieee80211w={mfp}\n  priority={priority}");
    text.push_str(&lines);
    text.push_str("}\n");
    Some(text)
}

/// Protection of management frames.
#[derive(Debug, Clone, Copy)]
enum Protection {
    Optional,
    Required,
}

/// TLS alone: no method that would give a password to whoever asks for it.
fn eap_tls(certificate: &Certificate) -> String {
    let Certificate {
        identity,
        server,
        authorities,
        certificate,
        key,
    } = certificate;
    let text = |word: &super::networks::Word| hex(word.as_str().as_bytes());
    format!(
        "  eap=TLS\n  identity={}\n  domain_match={}\n  ca_cert={}\n  client_cert={}\n  private_key={}\n",
        text(identity),
        text(server),
        text(authorities),
        text(certificate),
        text(key),
    )
}

/// IEEE 802.11-2020, J.4.1: PBKDF2-HMAC-SHA1, 4096 rounds, the SSID as salt.
fn pairwise_master_key(passphrase: &Passphrase, ssid: &Ssid) -> [u8; 32] {
    const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
    let mut key = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA1,
        ROUNDS,
        ssid.bytes(),
        passphrase.bytes(),
        &mut key,
    );
    key
}

/// Lower-case hexadecimal: what the supplicant takes for any string.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads `data` as the person's file, and writes the supplicant's: see [`crate::fuzzing`].
///
/// # Panics
/// When a network writes a line of its own.
pub(crate) fn fuzz(data: &[u8]) {
    use super::networks::Networks;

    /// Values of ours, or hexadecimal.
    const KEYS: [&str; 14] = [
        "ssid",
        "proto",
        "pairwise",
        "group",
        "key_mgmt",
        "ieee80211w",
        "priority",
        "sae_password",
        "eap",
        "identity",
        "domain_match",
        "ca_cert",
        "client_cert",
        "private_key",
    ];
    // Without WPA2 and a passphrase, whose key takes thousands of rounds.
    const WAYS: [WifiSecurity; 2] = [WifiSecurity::Wpa3Sae, WifiSecurity::Wpa3Enterprise];
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(Networks { networks }) = toml::from_str(text) else {
        return;
    };
    let text = configuration(&networks, &WAYS, &[]);
    let own = text.strip_prefix(HEAD).expect("it begins with the head");
    let mut blocks = 0;
    for line in own.lines() {
        match line {
            "network={" => blocks += 1,
            "}" => {}
            _ => {
                let (key, value) = line.trim_start().split_once('=').expect("a key");
                assert!(KEYS.contains(&key), "{line}");
                let ours = ["proto", "pairwise", "group", "key_mgmt", "eap"].contains(&key);
                assert!(
                    ours || value.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{line}"
                );
            }
        }
    }
    assert_eq!(
        blocks,
        networks.len(),
        "each network has one secret of one kind"
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::networks::Networks, *};

    const ALL: [WifiSecurity; 4] = [
        WifiSecurity::Wpa3Sae,
        WifiSecurity::Wpa3Enterprise,
        WifiSecurity::Wpa2Personal,
        WifiSecurity::Wpa2Enterprise,
    ];

    fn network(ssid: &[u8], passphrase: &str) -> Network {
        Network {
            ssid: Ssid::new(ssid.to_vec()).unwrap(),
            secret: Secret::Passphrase(Passphrase::new(passphrase.into()).unwrap()),
        }
    }

    #[test]
    fn the_key_is_the_standards() {
        // IEEE 802.11-2020, J.4.2, test cases 1 and 2.
        let key = |passphrase: &str, ssid: &[u8]| {
            let Network { ssid, secret } = network(ssid, passphrase);
            let Secret::Passphrase(passphrase) = secret else {
                unreachable!();
            };
            hex(&pairwise_master_key(&passphrase, &ssid))
        };
        assert_eq!(
            key("password", b"IEEE"),
            "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
        );
        assert_eq!(
            key("ThisIsAPassword", b"ThisIsASSID"),
            "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"
        );
    }

    #[test]
    fn text_is_what_it_was() {
        let text = configuration(&[network(b"IEEE", "password")], &ALL, &[]);
        assert_eq!(
            text,
            format!(
                "{HEAD}\
network={{
  ssid=49454545
  proto=RSN
  pairwise=CCMP GCMP-256
  group=CCMP GCMP-256
  key_mgmt=SAE
  ieee80211w=2
  priority=2
  sae_password=70617373776f7264
}}
network={{
  ssid=49454545
  proto=RSN
  pairwise=CCMP GCMP-256
  group=CCMP GCMP-256
  key_mgmt=WPA-PSK WPA-PSK-SHA256
  ieee80211w=1
  priority=1
  psk=f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e
}}
"
            )
        );
    }

    #[test]
    fn what_the_policy_does_not_name_is_not_written() {
        let home = network(b"home", "password");
        let only_wpa3 = configuration(std::slice::from_ref(&home), &[WifiSecurity::Wpa3Sae], &[]);
        assert!(only_wpa3.contains("SAE") && !only_wpa3.contains("WPA-PSK"));
        assert_eq!(configuration(std::slice::from_ref(&home), &[], &[]), HEAD);
        let office = "[[network]]\nssid = 'o'\n[network.certificate]\nidentity = 'a@b'\n\
             server = 's'\nauthorities = '/c'\ncertificate = '/d'\nkey = '/e'\n";
        let office: Networks = toml::from_str(office).unwrap();
        let text = configuration(&office.networks, &ALL, &[]);
        assert_eq!(text.matches("eap=TLS").count(), 2);
        assert_eq!(text.matches("domain_match=73\n").count(), 2);
    }

    #[test]
    fn a_denied_network_is_not_written_whoever_entered_it() {
        let denied: Vec<SsidGlob> = ["*-free-*"]
            .iter()
            .map(|glob| serde_json::from_value((*glob).into()).unwrap())
            .collect();
        let networks = [
            network(b"Cafe-FREE-wifi", "password"),
            network(b"home", "password"),
        ];
        let text = configuration(&networks, &ALL, &denied);
        assert_eq!(text.matches("network={").count(), 2, "{text}");
        assert!(!text.contains(&hex(b"Cafe")));
    }

    #[test]
    fn an_open_network_cannot_be_entered() {
        for text in [
            "[[network]]\nssid = 'x'\n",
            "[[network]]\nssid = 'x'\npassphrase = ''\n",
            "[[network]]\nssid = 'x'\npassphrase = 'short'\n",
            "[[network]]\nssid = 'x'\nkey_mgmt = 'NONE'\n",
            "[[network]]\nssid = 'x'\nssid_hex = '00'\npassphrase = 'password'\n",
            "[[network]]\nssid = 'a name of more than thirty-two bytes'\npassphrase = 'password'\n",
            "[[network]]\nssid = 'x'\npassphrase = \"pass\\nword\"\n",
        ] {
            assert!(toml::from_str::<Networks>(text).is_err(), "{text}");
        }
        let bytes: Networks =
            toml::from_str("[[network]]\nssid_hex = '00ff0a22'\npassphrase = 'password'\n")
                .unwrap();
        assert_eq!(bytes.networks[0].ssid.bytes(), [0, 0xff, b'\n', b'"']);
    }

    proptest! {
        /// Whatever the name and the passphrase: two blocks with known keys, and values of hex
        /// digits where they come from outside.
        #[test]
        fn a_hostile_name_writes_no_line_of_its_own(
            ssid in prop::collection::vec(any::<u8>(), 1..=32),
            passphrase in "[ -~]{8,63}",
        ) {
            let text = configuration(&[network(&ssid, &passphrase)], &ALL, &[]);
            let own = text.strip_prefix(HEAD).unwrap();
            let keys: Vec<&str> = own
                .lines()
                .map(|line| line.trim_start().split('=').next().unwrap())
                .collect();
            let fixed = ["network", "ssid", "proto", "pairwise", "group", "key_mgmt", "ieee80211w", "priority"];
            prop_assert_eq!(&keys[..8], &fixed);
            prop_assert_eq!(&keys[8..10], &["sae_password", "}"]);
            prop_assert_eq!(&keys[10..18], &fixed);
            prop_assert_eq!(&keys[18..], &["psk", "}"]);
            for line in own.lines().filter(|line| {
                ["ssid=", "sae_password=", "psk="].iter().any(|key| line.trim_start().starts_with(key))
            }) {
                let value = line.split('=').nth(1).unwrap();
                prop_assert!(value.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }
}
