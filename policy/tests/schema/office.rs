//! The proof of the office, and what is allowed there without a tunnel.

use sekisho_policy::{Direct, Draft};

use super::{SAMPLE, refused, with};

#[test]
fn only_a_cable_proves_the_office() {
    let text = SAMPLE.replace(
        "[onprem]                                    # 庁内の証明: 有線 + 固定した鍵のビーコン\nuplinks = [\"wired\"]",
        "[onprem]\nuplinks = [\"wired\", \"wifi\"]",
    );
    refused(
        &text,
        "[\"wired\", \"wifi\"]",
        "only a cable proves the office",
    );
}

/// The sample for a city whose LAN has no inner gateway.
fn direct() -> String {
    with(
        "round_trip = \"50ms\" }",
        "round_trip = \"3ms\" }\ndirect = \"routed\"",
    )
}

#[test]
fn direct_is_for_offices_without_an_inner_gateway() {
    let text = direct().replace("10.12.0.2:51820", "10.12.0.3:51820");
    let (mark, message) = (
        "\"10.12.0.3:",
        "`lan_address` and `direct` exclude each other",
    );
    refused(&text, mark, message);
    let alone: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("lan_address"))
        .collect();
    let draft = Draft::parse("policy.toml", alone.as_bytes()).unwrap();
    let onprem = draft.policy().onprem.as_ref().unwrap();
    assert_eq!(onprem.direct, Some(Direct::Routed));
    let plain = Draft::parse("policy.toml", SAMPLE.as_bytes()).unwrap();
    let onprem = plain.policy().onprem.as_ref().unwrap();
    assert_eq!((onprem.direct, onprem.wake_on_lan), (None, false));
    let bridged = alone.replace("\"routed\"", "\"bridged\"\nwake_on_lan = true");
    let draft = Draft::parse("policy.toml", bridged.as_bytes()).unwrap();
    let onprem = draft.policy().onprem.as_ref().unwrap();
    assert_eq!(onprem.direct, Some(Direct::Bridged));
    assert!(onprem.wake_on_lan);
}

#[test]
fn direct_needs_a_proof_that_no_relay_fits_into() {
    let slack = direct().replace("\"3ms\"", "\"6ms\"");
    refused(&slack, "\"6ms\"", "`round_trip` must be 5ms or shorter");
    let other = direct().replace("\"routed\"", "\"open\"");
    refused(&other, "\"open\"", "unknown variant `open`");
}

#[test]
fn a_port_is_authenticated_by_eap_tls_with_a_server_that_is_named_and_pinned() {
    const PIN: &str = "5f1d3c0c5b0e8b6a6c7f0c2f4f8d3f0a1f7f2b7d0a9c4e5d6b8a7c9e0f1a2b3c";
    let lines = |lines: &str| {
        with(
            "recheck = \"30s\"\n",
            &format!("recheck = \"30s\"\n{lines}\n"),
        )
    };
    let radius = |name: &str| {
        format!("dot1x = \"eap-tls\"\nradius = {{ name = \"{name}\", ca_sha256 = \"{PIN}\" }}")
    };
    let text = lines(&radius("radius.mihon-city.example"));
    Draft::parse("policy.toml", text.as_bytes()).expect("all that is needed");
    let alone = |text: &str, message: &str| {
        let error = Draft::parse("policy.toml", lines(text).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    };
    alone("dot1x = \"eap-tls\"", "`dot1x` needs `radius");
    alone(
        &radius("r").replace("dot1x = \"eap-tls\"\n", ""),
        "`radius` needs `dot1x",
    );
    for weak in ["eap-md5", "peap", "mab"] {
        let line = format!("dot1x = \"{weak}\"");
        refused(&lines(&line), &format!("\"{weak}\""), "`eap-tls`");
    }
    for name in ["", "*.mihon-city.example", "-a", "a..b", "a\\\" b"] {
        alone(&radius(name), "not the name of a server");
    }
}
