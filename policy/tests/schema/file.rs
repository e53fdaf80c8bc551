//! The file itself: keys, versions, forms, and how a problem is shown.

use sekisho_policy::{Draft, Fault, Lang, MAX_POLICY};

use super::{refused, with};

#[test]
fn there_is_no_way_to_switch_the_kill_switch_off() {
    let text = with("\"always\"", "\"off\"");
    refused(&text, "\"off\"", "unknown variant `off`, expected `always`");
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
