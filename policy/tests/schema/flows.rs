//! Segments, flows, and the rules between values.

use sekisho_policy::{Draft, Fault};

use super::{SAMPLE, with};

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
