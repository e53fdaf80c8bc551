//! Networks of IPv6 in a policy: what may be named, and what must be able to carry it.

use sekisho_policy::{Draft, Lang, Place, Probe, UplinkKind};

const SAMPLE: &str = include_str!("../../tests/lab/policy/policy.toml");
const V4: &str = r#"prefixes = ["10.12.0.0/16", "10.250.0.0/16"]"#;

/// The sample with this prefix in its segment.
fn naming(prefix: &str) -> String {
    let with = format!(r#"prefixes = ["10.12.0.0/16", "10.250.0.0/16", "{prefix}"]"#);
    assert!(SAMPLE.contains(V4));
    SAMPLE.replacen(V4, &with, 1)
}

fn complaints(text: &str) -> Vec<String> {
    match Draft::parse("policy.toml", text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let problems = error.problems().iter();
            problems.map(|p| p.fault.text(Lang::En)).collect()
        }
    }
}

#[test]
fn a_policy_has_ipv6_only_where_it_says_so() {
    let draft = Draft::parse("policy.toml", SAMPLE.as_bytes()).unwrap();
    assert!(!draft.policy().names_ipv6());
    let flow = "\n[[flow]]\nid = \"web6\"\n\
                to = { segment = \"lgwan\", hosts = [\"2001:db8:12:10::/64\"] }\ntcp = [443]\n";
    let text = naming("2001:db8:12::/48") + flow;
    let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
    assert!(draft.policy().names_ipv6());
    let probe: Probe = "tcp [2001:db8:12:10::5]:443".parse().unwrap();
    let answer = draft.explain(&probe.at(Place::Remote, UplinkKind::Wired));
    assert!(answer.decision.is_allowed());
    assert_eq!(answer.rule, "web6");
    let line = answer.line.and_then(|line| text.lines().nth(line - 1));
    assert_eq!(line, Some("[[flow]]"));
}

#[test]
fn only_networks_of_a_city_can_be_named() {
    for good in ["2001:db8:12::/48", "fd12:3456::/32", "2400::/20"] {
        assert_eq!(complaints(&naming(good)), [""; 0], "{good}");
    }
    for (bad, why) in [
        ("::/0", "no unicast network"),
        ("2000::/3", "is wider than /20"),
        ("2400::/16", "is wider than /20"),
        ("fc00::/7", "is wider than /20"),
        ("::1/128", "no unicast network"),
        ("::ffff:10.12.0.0/112", "no unicast network"),
        ("64:ff9b::/96", "no unicast network"),
        ("fe80::/64", "no unicast network"),
        ("ff02::/64", "no unicast network"),
        ("fec0::/48", "no unicast network"),
        ("2002:a0c::/32", "6to4 or Teredo"),
        ("2001::/32", "6to4 or Teredo"),
        ("2001:0:a0c::/48", "6to4 or Teredo"),
        ("2001::/20", "6to4 or Teredo"),
        ("2001:db8:12::1/48", "bits set after its 48 bits of prefix"),
        ("2001:db8:12::/129", "is not a prefix such as"),
        ("fe80::%eth0/64", "is not a prefix such as"),
    ] {
        let all = complaints(&naming(bad));
        assert!(all.iter().any(|text| text.contains(why)), "{bad}: {all:?}");
    }
}

#[test]
fn hosts_of_ipv6_lie_in_their_segment_and_outside_of_what_is_forbidden() {
    let flow = |host: &str| {
        format!(
            "{}\n[[flow]]\nid = \"web6\"\nto = {{ segment = \"lgwan\", hosts = [\"{host}\"] }}\ntcp = [443]\n",
            naming("2001:db8:12::/48").replace(
                r#"["10.99.0.0/16"]"#,
                r#"["10.99.0.0/16", "2001:db8:12:99::/64"]"#
            )
        )
    };
    assert_eq!(complaints(&flow("2001:db8:12:10::5/128")), [""; 0]);
    for (host, why) in [
        ("2001:db8:13::/64", "is not inside segment"),
        ("2001:db8:12:99::1/128", "which [forbidden] names"),
        ("2001:db8:12::/48", "which [forbidden] names"),
    ] {
        let all = complaints(&flow(host));
        assert!(all.iter().any(|text| text.contains(why)), "{host}: {all:?}");
    }
}

#[test]
fn what_carries_ipv4_only_is_named() {
    let with = naming("2001:db8:12::/48");
    let direct = |text: &str| {
        text.replace("round_trip = \"50ms\"", "round_trip = \"3ms\"")
            .replace(
                "recheck = \"30s\"",
                "recheck = \"30s\"\ndirect = \"routed\"",
            )
            .replace("lan_address = \"10.12.0.2:51820\"", "")
    };
    assert_eq!(complaints(&direct(SAMPLE)), [""; 0]);
    let [only] = &complaints(&direct(&with))[..] else {
        panic!("one complaint");
    };
    assert!(only.contains("`direct` carries IPv4 only"), "{only}");

    let gateway = "\n[[vpn.gateway]]\nname = \"reserve\"\nkind = \"tls\"\naddress = \"203.0.113.10:443\"\n\
                   spki_sha256 = \"dcfdf77451348647ade36aa7b4d22c0516103041e23bf8478c997b06d06846b9\"\n\
                   uplinks = [\"wired\"]\n";
    assert_eq!(complaints(&format!("{SAMPLE}{gateway}")), [""; 0]);
    let [only] = &complaints(&format!("{with}{gateway}"))[..] else {
        panic!("one complaint");
    };
    assert!(
        only.contains("`reserve`") && only.contains("IPv4 only"),
        "{only}"
    );
}

#[test]
fn a_probe_of_ipv6_has_its_address_in_brackets_where_a_port_follows() {
    for good in [
        "tcp [2001:db8:12::5]:443",
        "icmp 2001:db8:12::5",
        "from udp [2001:db8:12::5]:53",
    ] {
        let probe: Probe = good.parse().unwrap();
        assert_eq!(probe.to_string(), good);
    }
    for bad in [
        "tcp 2001:db8:12::5:443",
        "tcp [2001:db8:12::5]",
        "tcp [10.12.0.1]:443",
        "tcp [2001:db8:12::5:443",
        "icmp [2001:db8:12::5]",
        "tcp [fe80::1%eth0]:443",
        "tcp [2001:db8:12::5]:0",
    ] {
        assert!(bad.parse::<Probe>().is_err(), "{bad}");
    }
}
