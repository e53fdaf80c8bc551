//! A policy is applied only when it is signed, in force, and not older than the last (T34, T49,
//! T50).

use jiff::Timestamp;
use sekisho_policy::{
    Admission, Clock, Floor, Place, PrivateKey, Probe, Trust, TrustError, UplinkKind, VerifyError,
    verify,
};

const SAMPLE: &str = include_str!("../../tests/lab/policy/policy.toml");

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

fn trust() -> Trust {
    Trust::parse(&key(1).public_pem()).expect("our own PEM")
}

fn signed(text: &str) -> String {
    key(1).sign(text.as_bytes()).to_file()
}

fn at(now: &str, floor: Floor) -> Clock {
    Clock {
        now: now.parse().expect("an instant of this test"),
        floor,
    }
}

/// Within the sample's time.
fn clock() -> Clock {
    at("2026-12-01T00:00:00Z", Floor::default())
}

fn check(text: &str, clock: &Clock) -> Result<Floor, VerifyError> {
    verify(text.as_bytes(), signed(text).as_bytes(), &trust(), clock)
        .map(|policy| policy.floor().clone())
}

#[test]
fn a_signed_policy_decides() {
    let policy = verify(
        SAMPLE.as_bytes(),
        signed(SAMPLE).as_bytes(),
        &trust(),
        &clock(),
    )
    .unwrap();
    let admission = Admission::compile(&policy);
    let probe: Probe = "tcp 10.12.30.4:445".parse().unwrap();
    assert!(
        !admission
            .decide(&probe.at(Place::Remote, UplinkKind::Wired))
            .is_allowed()
    );
    let decision = admission.decide(&probe.at(Place::Office, UplinkKind::Wired));
    assert!(decision.is_allowed());
    assert_eq!(admission.name(decision.rule()), "files");
}

#[test]
fn t34_missing_empty_truncated_policies_are_refused() {
    let verify = |bytes: &[u8], signature: &[u8]| verify(bytes, signature, &trust(), &clock());
    let good = signed(SAMPLE);
    assert!(matches!(
        verify(b"", good.as_bytes()),
        Err(VerifyError::BadSignature)
    ));
    assert!(matches!(
        verify(SAMPLE.as_bytes(), b""),
        Err(VerifyError::Signature(_))
    ));
    for length in (0..SAMPLE.len()).step_by(97) {
        let refused = verify(&SAMPLE.as_bytes()[..length], good.as_bytes());
        assert!(
            matches!(refused, Err(VerifyError::BadSignature)),
            "first {length} bytes"
        );
    }
    for length in 0..good.len() - 1 {
        assert!(verify(SAMPLE.as_bytes(), &good.as_bytes()[..length]).is_err());
    }
    // An empty file that is signed is refused, too.
    assert!(matches!(check("", &clock()), Err(VerifyError::Policy(_))));
}

#[test]
fn t49_flipped_bits_are_refused_before_anything_is_parsed() {
    let signature = signed(SAMPLE);
    let mut bytes = SAMPLE.as_bytes().to_vec();
    for index in 0..bytes.len() {
        let bit = 1 << (index % 8);
        bytes[index] ^= bit;
        let refused = verify(&bytes, signature.as_bytes(), &trust(), &clock());
        assert!(
            matches!(refused, Err(VerifyError::BadSignature)),
            "byte {index}"
        );
        bytes[index] ^= bit;
    }
}

#[test]
fn t49_flipped_bits_of_the_signature_are_refused() {
    let mut file = signed(SAMPLE).into_bytes();
    for index in 0..file.len() - 1 {
        file[index] ^= 1;
        assert!(
            verify(SAMPLE.as_bytes(), &file, &trust(), &clock()).is_err(),
            "byte {index}"
        );
        file[index] ^= 1;
    }
}

#[test]
fn t49_unknown_keys_and_strange_signature_files_are_refused() {
    let by = |signature: &str| {
        verify(SAMPLE.as_bytes(), signature.as_bytes(), &trust(), &clock()).unwrap_err()
    };
    let other = key(2).sign(SAMPLE.as_bytes());
    assert!(matches!(
        by(&other.to_file()),
        VerifyError::UnknownKey { .. }
    ));
    // Another's signature under a trusted name.
    let mut lying = other;
    lying.keyid = key(1).key_id().to_string();
    assert!(matches!(by(&lying.to_file()), VerifyError::BadSignature));
    // Duplicate keys: which of the two would have been looked at?
    let good = signed(SAMPLE);
    let twice = good.replacen('{', &format!("{{\"keyid\": \"{}\", ", key(2).key_id()), 1);
    assert!(matches!(by(&twice), VerifyError::Signature(_)));
    let more = good.replacen('{', "{\"alg\": \"none\", ", 1);
    assert!(matches!(by(&more), VerifyError::Signature(_)));
    assert!(matches!(by(&"[".repeat(2000)), VerifyError::Signature(_)));
}

#[test]
fn t50_older_and_replaced_policies_are_refused() {
    let newer = SAMPLE.replace("version = 1 ", "version = 2 ");
    let floor = check(&newer, &clock()).unwrap();
    assert_eq!(floor.version, 2);
    let remembered = at("2026-12-01T00:00:00Z", floor);
    assert!(matches!(
        check(SAMPLE, &remembered),
        Err(VerifyError::Older {
            version: 1,
            floor: 2
        })
    ));
    let same_version = newer.replace("最初の版", "別の版");
    assert!(matches!(
        check(&same_version, &remembered),
        Err(VerifyError::Replaced { version: 2 })
    ));
    assert!(check(&newer, &remembered).is_ok());
}

#[test]
fn expired_policies_are_refused_and_an_empty_clock_battery_is_no_dead_end() {
    let late = at("2027-02-28T00:00:00+09:00", Floor::default());
    assert!(matches!(
        check(SAMPLE, &late),
        Err(VerifyError::Expired { .. })
    ));
    let battery_out = at("1970-01-01T00:00:00Z", Floor::default());
    let floor = check(SAMPLE, &battery_out).unwrap();
    assert_eq!(
        floor.time,
        "2026-11-20T09:00:00+09:00".parse::<Timestamp>().unwrap()
    );
    // Turning the clock back does not bring an expired policy back once a later time was seen.
    let seen = Floor {
        time: "2027-03-01T00:00:00Z".parse().unwrap(),
        ..Floor::default()
    };
    assert!(matches!(
        check(SAMPLE, &at("2026-12-01T00:00:00Z", seen)),
        Err(VerifyError::Expired { .. })
    ));
}

#[test]
fn a_policy_that_fails_its_own_test_is_refused() {
    let wrong = SAMPLE.replace(
        "accept = [\"tcp 10.12.30.4:445\"]",
        "deny = [\"tcp 10.12.30.4:445\"]",
    );
    let error = check(&wrong, &clock()).unwrap_err();
    assert!(error.to_string().contains("fails"), "{error}");
}

#[test]
fn trust_files_hold_pem_or_base64_and_nothing_else() {
    let bare = "# the city's signer\nO2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\n";
    assert_eq!(Trust::parse(bare).unwrap().key_ids().count(), 1);
    let both = format!("{}{}", key(1).public_pem(), key(2).public_pem());
    assert_eq!(Trust::parse(&both).unwrap().key_ids().count(), 2);
    assert_eq!(Trust::parse("# nobody\n"), Err(TrustError::NoKey));
    assert_eq!(
        Trust::parse("\nhello\n"),
        Err(TrustError::NotAKey { line: 2 })
    );
    // A point of small order, for which anybody can sign.
    let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(Trust::parse(weak), Err(TrustError::NotAKey { line: 1 }));
    // A private key by mistake.
    assert!(Trust::parse(&key(1).to_pem()).is_err());
    let cut = key(1)
        .public_pem()
        .replace("-----END PUBLIC KEY-----\n", "");
    assert!(Trust::parse(&cut).is_err());
}

#[test]
fn floors_survive_being_stored() {
    let floor = check(SAMPLE, &clock()).unwrap();
    let stored = serde_json::to_string(&floor).unwrap();
    assert_eq!(serde_json::from_str::<Floor>(&stored).unwrap(), floor);
}
