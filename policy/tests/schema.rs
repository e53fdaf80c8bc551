//! The file format: what is refused, where the error points, and what it says.

use sekisho_policy::{
    Direct, Draft, Fault, GatewayProtocol, IkeAuth, Lang, MAX_POLICY, OverQuota, Revocation,
    SecondFactor,
};

const SAMPLE: &str = include_str!("../../tests/lab/policy/policy.toml");

/// The sample with one piece of text replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(
        SAMPLE.matches(old).count(),
        1,
        "`{old}` must be in the sample once"
    );
    SAMPLE.replace(old, new)
}

/// Parses; gives `LINE:COLUMN MESSAGE` of the first problem, and checks that the place is that of
/// `mark` in the text.
#[track_caller]
fn refused(text: &str, mark: &str, message: &str) {
    let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
    let first = error.problems()[0].fault.text(Lang::En);
    assert!(first.contains(message), "expected `{message}` in: {first}");
    // The mark may stand elsewhere too: look from the first line that was changed.
    let same: usize = text
        .split_inclusive('\n')
        .zip(SAMPLE.split_inclusive('\n'))
        .take_while(|(ours, sample)| ours == sample)
        .map(|(line, _)| line.len())
        .sum();
    let offset = same + text[same..].find(mark).expect("the mark is in the text");
    let line = text[..offset].matches('\n').count() + 1;
    let column = text[..offset]
        .chars()
        .rev()
        .take_while(|&c| c != '\n')
        .count()
        + 1;
    assert_eq!(error.positions().next(), Some((line, column)), "{error}");
    assert!(
        error
            .to_string()
            .starts_with(&format!("policy.toml:{line}:{column}: "))
    );
}

#[test]
fn the_sample_is_correct_and_its_tests_hold() {
    let draft = Draft::parse("policy.toml", SAMPLE.as_bytes()).unwrap();
    assert_eq!(draft.run_tests().unwrap(), 4);
    assert_eq!(draft.policy().flow.len(), 4);
}

#[test]
fn there_is_no_way_to_switch_the_kill_switch_off() {
    let text = with("\"always\"", "\"off\"");
    refused(&text, "\"off\"", "unknown variant `off`, expected `always`");
}

#[test]
fn unsafe_wifi_has_no_name() {
    for kind in ["wep", "open", "wpa-tkip", "wpa-personal"] {
        let text =
            format!("{SAMPLE}\n[[uplink]]\nkind = \"wifi\"\nrank = 2\nsecurity = [\"{kind}\"]\n");
        refused(&text, &format!("\"{kind}\"]"), "expected one of `wpa3-sae`");
    }
}

const RADIOS: &str = r#"
[[uplink]]
kind = "wifi"
rank = 2
security = ["wpa3-sae", "wpa2-personal"]
captive_portal = "refuse"
deny_ssids = ["*-Free-*", "*_Free_*"]

[[uplink]]
kind = "sim"
rank = 3
apn = "mihon.closed.example"
plmn = ["44010"]
monthly_quota = "5GiB"
quota_resets = 1
warn_percent = [80, 95]
over_quota = { action = "throttle", rate = "256kbit/s" }
"#;

#[test]
fn radios_are_read_as_they_are_written() {
    let text = format!("{SAMPLE}{RADIOS}");
    let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
    let [_, wifi, sim] = &draft.policy().uplink[..] else {
        panic!("three uplinks");
    };
    assert!(wifi.deny_ssids[0].matches(b"Shop-Free-Wifi") && wifi.quota().is_none());
    assert_eq!(sim.apn.as_ref().unwrap().as_str(), "mihon.closed.example");
    assert_eq!(sim.plmn[0].as_str(), "44010");
    assert!(!sim.roaming, "not unless it is written");
    let quota = sim.quota().unwrap();
    assert_eq!((quota.monthly, quota.resets), (5 << 30, 1));
    assert_eq!(quota.warn_percent, [80, 95]);
    let OverQuota::Throttle { rate } = quota.over else {
        panic!("{:?}", quota.over);
    };
    assert_eq!(rate.bits_per_second().get(), 256_000);
}

#[test]
fn radios_that_cannot_be_meant_are_refused() {
    let cases = [
        (
            "\"refuse\"",
            "\"accept\"",
            "unknown variant `accept`, expected `refuse`",
        ),
        ("\"44010\"", "\"4401x\"", "not a mobile network"),
        (
            "\"mihon.closed.example\"",
            "\"mihon closed\"",
            "not an access point name",
        ),
        ("\"5GiB\"", "\"5 GiB\"", "not an amount"),
        ("\"256kbit/s\"", "\"256k\"", "not a rate"),
        (
            "\"throttle\", rate = \"256kbit/s\"",
            "\"throttle\"",
            "\"throttle\" needs a `rate`",
        ),
        (
            "\"throttle\", rate",
            "\"refuse\", rate",
            "\"refuse\" has no `rate`",
        ),
        (
            "quota_resets = 1",
            "quota_resets = 32",
            "a day of the month",
        ),
        ("[80, 95]", "[95, 80]", "`warn_percent` rises"),
        ("[80, 95]", "[80, 100]", "`warn_percent` rises"),
        ("monthly_quota = \"5GiB\"\n", "", "needs `monthly_quota`"),
        (
            "over_quota = { action = \"throttle\", rate = \"256kbit/s\" }\n",
            "",
            "beyond the quota",
        ),
        (
            "kind = \"sim\"",
            "kind = \"wired\"",
            "belongs to SIM uplinks",
        ),
        (
            "rank = 2\n",
            "rank = 2\nroaming = true\n",
            "`roaming` belongs to SIM uplinks",
        ),
        (
            "[\"*-Free-*\", \"*_Free_*\"]",
            "[\"\"]",
            "a pattern for SSIDs",
        ),
    ];
    for (old, new, complaint) in cases {
        assert!(RADIOS.contains(old), "{old}");
        let text = format!("{SAMPLE}{}", RADIOS.replacen(old, new, 1));
        let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
    let two = format!("{SAMPLE}{RADIOS}{}", RADIOS.replace("rank = ", "rank = 1"));
    let error = Draft::parse("policy.toml", two.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("one for the SIM"), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_the_choices() {
    let cases = [
        ("kill_switch =", "killswitch  ="),
        ("places =", "place ="),
        ("lan_address", "lan_addr   "),
        ("recheck =", "rechecks ="),
    ];
    for (old, new) in cases {
        let text = with(old, new);
        refused(&text, new.trim_end_matches([' ', '=']), "unknown field");
    }
    // A key of a later schema is not ignored: ignoring it could widen the rule.
    let text = with("tcp    = [445]", "tcp = [445]\ngroups = [\"kaikei\"]");
    refused(&text, "groups", "unknown field `groups`, expected one of");
}

#[test]
fn a_schema_of_another_version_is_named_as_such() {
    let text = with("schema = 1", "schema = 2");
    refused(&text, "2\n", "understands `schema = 1` only");
}

#[test]
fn values_of_the_wrong_form_say_the_right_one() {
    let cases = [
        (
            "\"10.12.30.0/24\"",
            "\"10.12.30.7/24\"",
            "write \"10.12.30.0/24\" or \"10.12.30.7/32\"",
        ),
        (
            "\"10.12.30.0/24\"",
            "\"fileserver\"",
            "is not a prefix such as",
        ),
        ("[445]", "[0]", "a port (1 to 65535)"),
        ("[445]", "[70000]", "a port (1 to 65535)"),
        ("\"49152-65535\"", "\"65535-49152\"", "is not a port"),
        ("\"30s\"", "\"30 seconds\"", "is not a duration"),
        (
            "\"203.0.113.10:51820\"",
            "\"vpn.mihon-city.example:51820\"",
            "names are not looked up",
        ),
        (
            "\"2026-11-20T09:00:00+09:00\"",
            "\"yesterday\"",
            "is not an instant such as",
        ),
        (
            "\"tcp 10.12.10.5:22\"",
            "\"ssh 10.12.10.5\"",
            "is not a connection",
        ),
    ];
    for (old, new, message) in cases {
        let text = with(old, new);
        refused(&text, new.trim_matches(['[', ']']), message);
    }
    // Whether an address has a port depends on the gateway's kind, so the gateway is marked.
    let text = with("\"203.0.113.10:51820\"", "\"203.0.113.10\"");
    let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
    let first = error.problems()[0].fault.text(Lang::En);
    assert!(first.contains("with a port"), "{first}");
    let gateway = text.lines().position(|line| line == "[[vpn.gateway]]");
    let line = gateway.expect("there is a gateway") + 1;
    assert_eq!(error.positions().next(), Some((line, 1)), "{error}");
}

#[test]
fn rules_between_values_hold() {
    let cases = [
        (
            "\"10.12.30.0/24\"",
            "\"10.13.30.0/24\"",
            "is not inside segment `lgwan`",
        ),
        (
            "[\"10.12.0.53\"]",
            "[\"10.13.0.53\"]",
            "is not inside segment `lgwan`",
        ),
        (
            "[\"10.99.0.0/16\"]",
            "[\"10.12.30.128/25\"]",
            "overlaps 10.12.30.128/25",
        ),
        (
            "\"2027-02-28T00:00:00+09:00\"",
            "\"2026-02-28T00:00:00+09:00\"",
            "later than `issued`",
        ),
        (
            "id     = \"files\"",
            "id     = \"groupware-web\"",
            "is used twice",
        ),
        (
            "id     = \"files\"",
            "id     = \"forbidden\"",
            "and not `default-deny` or `forbidden`",
        ),
        ("\"10.12.0.0/16\"", "\"0.0.0.0/0\"", "wider than /8"),
        ("\"10.12.0.0/16\"", "\"224.0.0.0/8\"", "no unicast network"),
        ("[\"onprem\"]", "[]", "never applies"),
        ("\"60s\"", "\"10ms\"", "shorter than `first`"),
        ("\"50ms\"", "\"5s\"", "between 1ms and 1s"),
        (
            "\"lgwan.example\"",
            "\"mihon-city.example\"",
            "already belongs",
        ),
        ("[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth0\"]", "named once"),
    ];
    for (old, new, message) in cases {
        let text = with(old, new);
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err(message);
        assert!(
            error.to_string().contains(message),
            "expected `{message}` in:\n{error}"
        );
        let (line, _) = error.positions().next().unwrap();
        let changed = text
            .lines()
            .zip(SAMPLE.lines())
            .position(|(a, b)| a != b)
            .unwrap()
            + 1;
        // Forbidding a flow's host is told at the flow.
        assert!(
            line == changed || message.starts_with("overlaps"),
            "line {line}, not {changed}"
        );
    }
}

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

#[test]
fn a_flow_has_one_direction() {
    let text = with(
        "to     = {",
        "from = { segment = \"lgwan\", hosts = [] }\nto = {",
    );
    let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
    assert!(
        error.to_string().contains("one of `to` and `from`"),
        "{error}"
    );
}

#[test]
fn a_failing_test_is_a_problem_at_its_probe() {
    let text = with("\"tcp 10.12.10.5:22\"", "\"tcp 10.12.10.5:80\"").replace(
        "\"tcp 10.12.10.5:443\", \"tcp 10.12.10.5:80\",",
        "\"tcp 10.12.10.5:443\",",
    );
    let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
    let error = draft.run_tests().unwrap_err();
    assert!(matches!(error.problems(), [problem]
        if matches!(&problem.fault, Fault::TestFails { rule, .. } if rule == "groupware-web")));
    let (line, _) = error.positions().next().unwrap();
    assert!(
        text.lines().nth(line - 1).unwrap().contains("deny   = "),
        "line {line}"
    );
}

#[test]
fn hostile_files_are_refused_early() {
    let parse = |text: &[u8]| Draft::parse("policy.toml", text).unwrap_err();
    let fault = |text: &[u8]| parse(text).problems()[0].fault.clone();
    assert_eq!(fault(&vec![b'#'; MAX_POLICY + 1]), Fault::TooLong);
    assert_eq!(fault(b"schema = 1\n# \xff"), Fault::NotUtf8);
    assert_eq!(
        fault(format!("a = {}", "[".repeat(500_000)).as_bytes()),
        Fault::TooDeep
    );
    assert_eq!(
        fault(format!("a{} = 1", ".a".repeat(500_000)).as_bytes()),
        Fault::TooDeep
    );
    assert_eq!(
        fault("a = { b = ".repeat(100_000).as_bytes()),
        Fault::TooDeep
    );
    // Dots in strings and comments are no nesting.
    let dots = format!("# {}\nschema = \"{}\"", ".".repeat(100), ".".repeat(100));
    assert_eq!(fault(dots.as_bytes()), Fault::UnknownSchema);
    assert!(matches!(fault(b"schema = 1\nschema = 1"), Fault::Syntax(_)));
    assert!(matches!(fault(b""), Fault::Type { .. }));
}

#[test]
fn flows_that_overlap_without_end_are_refused() {
    let flow = |index: usize| {
        let ports: Vec<String> = (0..40).map(|port| (port * 2 + 1).to_string()).collect();
        format!(
            "[[flow]]\nid = \"f{index}\"\nto = {{ segment = \"lgwan\", hosts = [\"10.12.0.0/16\", \"10.12.{}.{}/32\"] }}\ntcp = [{}]\n",
            index / 200,
            index % 200,
            ports.join(",")
        )
    };
    let text = format!("{SAMPLE}\n{}", (0..2000).map(flow).collect::<String>());
    let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
    assert!(
        error.to_string().contains("overlap each other too often"),
        "{error}"
    );
}

#[test]
fn problems_are_shown_with_their_line_and_a_caret() {
    let text = with("\"always\"", "\"off\"");
    let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
    let shown = error.render(Lang::Ja);
    assert!(
        shown.contains("policy.toml:") && shown.contains("kill_switch = \"off\""),
        "{shown}"
    );
    assert!(shown.contains("vpn.kill_switch の誤り"), "{shown}");
}

const BANDWIDTH: &str = r#"
[bandwidth]
total = { up = "10Mbit/s", down = "20Mbit/s" }
bulk  = { up = "2Mbit/s",  down = "4Mbit/s" }
"#;

/// The sample with limits, its files in class `bulk`, and one piece of that replaced.
fn limited(old: &str, new: &str) -> String {
    let sample = with("tcp    = [445]\n", "tcp    = [445]\nbandwidth = \"bulk\"\n");
    let text = format!("{sample}{BANDWIDTH}");
    assert_eq!(text.matches(old).count(), 1, "`{old}` once");
    text.replace(old, new)
}

#[test]
fn limits_and_classes_of_bandwidth_are_read() {
    let draft = Draft::parse("policy.toml", limited("\nbulk", "\nbulk").as_bytes()).unwrap();
    let bandwidth = &draft.policy().bandwidth;
    let total = bandwidth.total.unwrap();
    assert_eq!(total.up.to_string(), "10Mbit/s");
    assert_eq!(total.down.to_string(), "20Mbit/s");
    assert_eq!(bandwidth.classes["bulk"].up.to_string(), "2Mbit/s");
    assert_eq!(draft.policy().flow[1].bandwidth.as_deref(), Some("bulk"));
    // Without the table nothing is limited.
    let plain = Draft::parse("policy.toml", SAMPLE.as_bytes()).unwrap();
    assert_eq!(
        plain.policy().bandwidth,
        sekisho_policy::Bandwidth::default()
    );
}

#[test]
fn limits_that_cannot_hold_are_refused_at_their_place() {
    let refused_here = |old: &str, new: &str, mark: &str, message: &str| {
        let text = limited(old, new);
        let error = Draft::parse("policy.toml", text.as_bytes()).expect_err(message);
        let (line, column) = error.positions().next().unwrap();
        assert!(error.to_string().contains(message), "{message}: {error}");
        let at = text.lines().nth(line - 1).unwrap();
        let rest: String = at.chars().skip(column - 1).collect();
        assert!(rest.starts_with(mark), "{message} is told at `{rest}`");
    };
    for (old, new, mark, message) in [
        ("\"2Mbit/s\"", "\"0Mbit/s\"", "\"0Mbit/s\"", "is not a rate"),
        ("\"4Mbit/s\"", "\"4MB/s\"", "\"4MB/s\"", "is not a rate"),
        (
            "\"2Mbit/s\"",
            "\"11Mbit/s\"",
            "\"11Mbit/s\"",
            "more than the 10Mbit/s of `total`",
        ),
        (
            "\"4Mbit/s\"",
            "\"21Mbit/s\"",
            "\"21Mbit/s\"",
            "more than the 20Mbit/s of `total`",
        ),
        (
            "= \"bulk\"",
            "= \"slow\"",
            "\"slow\"",
            "there is no class `slow` in [bandwidth]; there is `bulk`",
        ),
        (
            "= \"bulk\"",
            "= \"total\"",
            "\"total\"",
            "holds for every flow already",
        ),
        ("\nbulk  =", "\n\"a b\"  =", "{ up", "a class's name"),
        (
            "{ up = \"2Mbit/s\",  down = \"4Mbit/s\" }",
            "{ up = \"2Mbit/s\" }",
            "{ up",
            "missing field `down`",
        ),
        (
            "{ up = \"2Mbit/s\",",
            "{ burst = \"2Mbit/s\",",
            "burst",
            "unknown field `burst`",
        ),
    ] {
        refused_here(old, new, mark, message);
    }
}

#[test]
fn more_classes_than_the_gate_counts_are_refused() {
    let class = |number| format!("c{number} = {{ up = \"1Mbit/s\", down = \"1Mbit/s\" }}");
    let classes = (0..9).map(class).collect::<Vec<_>>().join("\n");
    let text = format!("{SAMPLE}\n[bandwidth]\n{classes}");
    let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("more than 8 classes"), "{error}");
}

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
