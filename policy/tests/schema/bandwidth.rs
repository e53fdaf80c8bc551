//! Limits and classes of bandwidth.

use sekisho_policy::Draft;

use super::{SAMPLE, with};

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
