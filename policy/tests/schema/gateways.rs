//! Gateways of kind `tls` and `ikev2`.

use sekisho_policy::{Draft, GatewayProtocol, IkeAuth, Lang, Revocation, SecondFactor};

use super::{SAMPLE, with};

/// A gateway for networks that carry nothing else.
const TLS: &str = r#"[[vpn.gateway]]
name = "honcho-tls"
kind = "tls"
address = "203.0.113.10:443"
spki_sha256 = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
uplinks = ["wired"]

"#;

#[test]
fn a_tls_gateway_has_a_pin_and_is_the_last_resort() {
    let last = |gateway: &str| with("\n[onprem]", &format!("\n{gateway}[onprem]"));
    let draft = Draft::parse("policy.toml", last(TLS).as_bytes()).unwrap();
    let gateway = draft.policy().vpn.gateway.last().unwrap();
    assert!(matches!(gateway.protocol, GatewayProtocol::Tls { .. }));

    let complaint = |text: &str| {
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
        error.problems()[0].fault.text(Lang::En)
    };
    let key = "public_key = \"yZRkQ1H9pWcSPoM7B0FhkmKYgPk3fhrDHlT3bFVD5Fk=\"\n";
    let pin = TLS.lines().find(|line| line.starts_with("spki")).unwrap();
    for wrong in [
        TLS.replace(pin, ""),
        TLS.replace(pin, key),
        TLS.replace(pin, &format!("{pin}\n{key}")),
        TLS.replace("\"tls\"", "\"wireguard\""),
    ] {
        let said = complaint(&last(&wrong));
        assert!(
            said.contains("`spki_sha256` if it is of kind `tls`"),
            "{said}"
        );
    }
    let on_lan = TLS.replace("address =", "lan_address = \"10.12.0.2:443\"\naddress =");
    let said = complaint(&last(&on_lan));
    assert!(said.contains("has no `lan_address`"), "{said}");

    let at = SAMPLE.find("[[vpn.gateway]]").unwrap();
    let first = format!("{}{TLS}{}", &SAMPLE[..at], &SAMPLE[at..]);
    let said = complaint(&first);
    assert!(said.contains("is the fallback and comes last"), "{said}");
}

#[test]
fn a_second_factor_is_for_gateways_that_ask_for_one() {
    let last = |gateway: &str| with("\n[onprem]", &format!("\n{gateway}[onprem]"));
    let demand = |factor: &str, gateway: &str| {
        let key = format!("second_factor = \"{factor}\"\nuplinks =");
        last(&gateway.replace("uplinks =", &key))
    };
    let draft = Draft::parse("policy.toml", demand("otp", TLS).as_bytes()).unwrap();
    let vpn = &draft.policy().vpn;
    assert_eq!(
        vpn.gateway.last().unwrap().second_factor,
        Some(SecondFactor::Otp)
    );
    assert_eq!(vpn.answer_within, std::time::Duration::from_mins(3));

    let wireguard = SAMPLE.replacen(
        "= \"wireguard\"\n",
        "= \"wireguard\"\nsecond_factor = \"otp\"\n",
        1,
    );
    assert_ne!(wireguard, SAMPLE);
    for (text, complaint) in [
        (wireguard, "knows a key and nothing of people"),
        (
            demand("otp", IKEV2),
            "takes `second_factor = \"pin\"` alone",
        ),
        (demand("pin", TLS), "is in no token"),
        (demand("sms", TLS), "unknown variant"),
    ] {
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
        let said = error.problems()[0].fault.text(Lang::En);
        assert!(said.contains(complaint), "{said}");
    }
}

#[test]
fn a_pin_is_for_all_gateways_that_the_token_serves_or_for_none() {
    let pin = IKEV2.replace("uplinks =", "second_factor = \"pin\"\nuplinks =");
    let other = |gateway: &str| {
        gateway
            .replace("honcho-ikev2", "honcho-ikev2-b")
            .replace("113.10", "113.11")
    };
    let policy = |gateways: &str| with("\n[onprem]", &format!("\n{gateways}[onprem]"));
    for gateways in [pin.clone(), format!("{pin}{}", other(&pin))] {
        let draft = Draft::parse("policy.toml", policy(&gateways).as_bytes()).unwrap();
        let last = draft.policy().vpn.gateway.last().unwrap();
        assert_eq!(last.second_factor, Some(SecondFactor::Pin));
    }
    for gateways in [
        format!("{pin}{}", other(IKEV2)),
        format!("{IKEV2}{}", other(&pin)),
    ] {
        let text = policy(&gateways);
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
        let said = error.problems()[0].fault.text(Lang::En);
        assert!(said.contains("or for none"), "{said}");
    }
}

/// A gateway that a city already has.
const IKEV2: &str = r#"[[vpn.gateway]]
name = "honcho-ikev2"
kind = "ikev2"
address = "203.0.113.10"
remote_id = "vpn1.mihon-city.example"
ca_sha256 = "5f1d3c0c5b0e8b6a6c7f0c2f4f8d3f0a1f7f2b7d0a9c4e5d6b8a7c9e0f1a2b3c"
uplinks = ["wired"]

"#;

#[test]
fn an_ikev2_gateway_has_a_name_and_an_authority_and_no_port() {
    let last = |gateway: &str| with("\n[onprem]", &format!("\n{gateway}[onprem]"));
    let draft = Draft::parse("policy.toml", last(IKEV2).as_bytes()).unwrap();
    let gateway = draft.policy().vpn.gateway.last().unwrap();
    assert!(matches!(
        &gateway.protocol,
        GatewayProtocol::Ikev2 { remote_id, .. } if remote_id.as_str() == "vpn1.mihon-city.example"
    ));
    assert_eq!(gateway.address.to_string(), "203.0.113.10:4500");

    let complaint = |text: &str| {
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
        error.problems()[0].fault.text(Lang::En)
    };
    let line = |key: &str| IKEV2.lines().find(|line| line.starts_with(key)).unwrap();
    let stray = IKEV2.replace("\"ikev2\"", "\"wireguard\"");
    for wrong in [
        IKEV2.replace(line("remote_id"), ""),
        IKEV2.replace(line("ca_sha256"), ""),
        stray,
    ] {
        let said = complaint(&last(&wrong));
        assert!(said.contains("`remote_id` and `ca_sha256`"), "{said}");
    }
    for name in [
        "%any",
        "*.example",
        "vpn1",
        "a b.example",
        "@#0a0b.c",
        "C=JP, O=x.y",
        "-a.example",
    ] {
        let wrong = IKEV2.replace("vpn1.mihon-city.example", name);
        let said = complaint(&last(&wrong));
        assert!(said.contains("not a name"), "{name}: {said}");
    }
    let said = complaint(&last(&IKEV2.replace("113.10\"", "113.10:500\"")));
    assert!(said.contains("has no port"), "{said}");
    let on_lan = IKEV2.replace("address =", "lan_address = \"10.12.0.2:500\"\naddress =");
    let said = complaint(&last(&on_lan));
    assert!(said.contains("always 4500"), "{said}");
    let right = last(&on_lan.replace(":500", ":4500"));
    let draft = Draft::parse("policy.toml", right.as_bytes()).unwrap();
    let gateway = draft.policy().vpn.gateway.last().unwrap();
    assert_eq!(gateway.lan_address, Some("10.12.0.2:4500".parse().unwrap()));
}

#[test]
fn an_ikev2_gateway_says_how_the_laptop_proves_itself_and_whether_lists_are_needed() {
    let last = |gateway: &str| with("\n[onprem]", &format!("\n{gateway}[onprem]"));
    let protocol = |text: &str| {
        let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
        let gateway = draft.policy().vpn.gateway.last().unwrap();
        match gateway.protocol {
            GatewayProtocol::Ikev2 {
                auth, revocation, ..
            } => (auth, revocation),
            _ => panic!("an ikev2 gateway"),
        }
    };
    let usual = (IkeAuth::Certificate, Revocation::Relaxed);
    assert_eq!(protocol(&last(IKEV2)), usual);
    let keys = "auth = \"eap-tls\"\nrevocation = \"strict\"\nuplinks";
    let other = last(&IKEV2.replace("uplinks", keys));
    assert_eq!(protocol(&other), (IkeAuth::EapTls, Revocation::Strict));

    for wrong in [
        IKEV2.replace("uplinks", "auth = \"psk\"\nuplinks"),
        IKEV2.replace("uplinks", "auth = \"eap-mschapv2\"\nuplinks"),
        IKEV2.replace("uplinks", "revocation = \"off\"\nuplinks"),
        TLS.replace("uplinks", "revocation = \"strict\"\nuplinks"),
    ] {
        assert!(Draft::parse("policy.toml", last(&wrong).as_bytes()).is_err());
    }
}
