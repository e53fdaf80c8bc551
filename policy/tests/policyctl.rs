//! The program that IT uses, run as a person runs it; OpenSSL as the second signer and judge.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SAMPLE: &str = include_str!("../../tests/lab/policy/policy.toml");

fn policyctl(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "C.UTF-8")
        .output()
        .expect("policyctl starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn works(dir: &Path, arguments: &[&str]) -> String {
    let output = policyctl(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// A folder with a policy that does not expire while this test lives.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let policy = SAMPLE.replace("\"2027-02-28T00:00:00+09:00\"", "\"2999-01-01T00:00:00Z\"");
    fs::write(dir.path().join("policy.toml"), policy).expect("the folder is ours");
    dir
}

#[test]
fn make_keys_sign_verify() {
    let dir = folder();
    let dir = dir.path();
    works(dir, &["keygen", "--out", "keys"]);
    let again = policyctl(dir, &["keygen", "--out", "keys"]);
    assert!(!again.status.success() && text(&again).contains("already there"));
    works(dir, &["sign", "--key", "keys/policy.key", "policy.toml"]);
    let verified = works(dir, &["verify", "--trust", "keys/trust.pem", "policy.toml"]);
    assert!(
        verified.contains("a laptop accepts it: jp.mihon-city version 1"),
        "{verified}"
    );

    let older = policyctl(
        dir,
        &[
            "verify",
            "--trust",
            "keys/trust.pem",
            "--floor",
            "2",
            "policy.toml",
        ],
    );
    assert_eq!(older.status.code(), Some(2));
    assert!(text(&older).contains("never goes back"), "{}", text(&older));

    let path = dir.join("policy.toml");
    let changed = fs::read_to_string(&path)
        .unwrap()
        .replace("最初の版", "最後の版");
    fs::write(&path, changed).unwrap();
    let refused = policyctl(dir, &["verify", "--trust", "keys/trust.pem", "policy.toml"]);
    assert!(
        text(&refused).contains("changed after signing"),
        "{}",
        text(&refused)
    );
}

#[test]
fn the_private_key_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    works(dir.path(), &["keygen", "--out", "."]);
    let mode = fs::metadata(dir.path().join("policy.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn nothing_wrong_is_signed() {
    let dir = folder();
    let dir = dir.path();
    works(dir, &["keygen", "--out", "."]);
    let path = dir.join("policy.toml");
    let wrong = fs::read_to_string(&path)
        .unwrap()
        .replace("deny = [\"tcp 10.99", "accept = [\"tcp 10.99");
    fs::write(&path, wrong).unwrap();
    let refused = policyctl(dir, &["sign", "--key", "policy.key", "policy.toml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!dir.join("policy.toml.sig").exists());
}

#[test]
fn an_expired_policy_is_checked_with_a_note() {
    let dir = folder();
    let path = dir.path().join("policy.toml");
    let old = fs::read_to_string(&path)
        .unwrap()
        .replace("2999-01-01T00:00:00Z", "2026-11-20T00:00:01Z");
    fs::write(&path, old).unwrap();
    let answer = works(dir.path(), &["check", "policy.toml"]);
    assert!(answer.contains("has expired"), "{answer}");
    let fresh = folder();
    assert!(!works(fresh.path(), &["check", "policy.toml"]).contains("note"));
}

#[test]
fn explain_names_rule_and_line_in_both_languages() {
    let dir = folder();
    let dir = dir.path();
    let ask = |arguments: &[&str]| {
        let output = policyctl(dir, &[&["explain"], arguments, &["policy.toml"]].concat());
        (output.status.code(), text(&output))
    };
    let line_of = |mark: &str| SAMPLE.lines().position(|line| line.contains(mark)).unwrap() + 1;

    let (code, answer) = ask(&["tcp 10.12.10.5:443", "--place", "remote"]);
    // The table's header stands one line above its id.
    let line = line_of("\"groupware-web\"") - 1;
    assert_eq!(code, Some(0), "{answer}");
    assert!(
        answer.contains(&format!("allowed by groupware-web (policy.toml:{line})")),
        "{answer}"
    );

    let (code, answer) = ask(&["tcp 10.12.30.4:445", "--place", "remote", "--uplink", "sim"]);
    assert_eq!(code, Some(1));
    assert!(answer.contains("refused by default-deny"), "{answer}");
    assert!(
        answer.contains("--place onprem") && answer.contains("files"),
        "{answer}"
    );

    let (code, answer) = ask(&["icmp 10.99.0.1", "--place", "onprem", "--lang", "ja"]);
    assert_eq!(code, Some(1));
    let line = line_of("[forbidden]");
    assert!(
        answer.contains(&format!("拒否。規則 forbidden (policy.toml:{line})")),
        "{answer}"
    );
    assert!(
        answer.contains("個人番号利用事務系には接続できません"),
        "{answer}"
    );

    let (code, answer) = ask(&["ssh somewhere", "--place", "remote"]);
    assert_eq!(code, Some(2));
    assert!(answer.contains("is not a connection"), "{answer}");
}

#[test]
fn the_environment_chooses_the_language() {
    let dir = folder();
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(["check", "policy.toml"])
        .current_dir(dir.path())
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "ja_JP.UTF-8")
        .output()
        .unwrap();
    assert!(
        text(&output).contains("問題ありません"),
        "{}",
        text(&output)
    );
}

/// Runs openssl; `None` where this machine has none that knows Ed25519 (`-rawin`: OpenSSL 3).
fn openssl(dir: &Path, arguments: &[&str]) -> Option<Output> {
    let version = Command::new("openssl").arg("version").output().ok()?;
    if !text(&version).starts_with("OpenSSL 3") {
        return None;
    }
    Some(
        Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .expect("openssl started a moment ago"),
    )
}

#[test]
fn openssl_accepts_our_signature_and_we_accept_its_keys() {
    let dir = folder();
    let dir = dir.path();
    let Some(made) = openssl(
        dir,
        &["genpkey", "-algorithm", "ed25519", "-out", "policy.key"],
    ) else {
        sekisho_skip::skip("there is no OpenSSL 3");
        return;
    };
    assert!(made.status.success(), "{}", text(&made));
    let public = openssl(
        dir,
        &["pkey", "-in", "policy.key", "-pubout", "-out", "trust.pem"],
    )
    .unwrap();
    assert!(public.status.success(), "{}", text(&public));
    works(dir, &["sign", "--key", "policy.key", "policy.toml"]);
    works(dir, &["verify", "--trust", "trust.pem", "policy.toml"]);

    let file: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("policy.toml.sig")).unwrap()).unwrap();
    fs::write(dir.join("sig.b64"), file["sig"].as_str().unwrap()).unwrap();
    let decoded = openssl(
        dir,
        &["base64", "-d", "-A", "-in", "sig.b64", "-out", "sig.bin"],
    )
    .unwrap();
    assert!(decoded.status.success(), "{}", text(&decoded));
    let arguments = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "trust.pem",
        "-rawin",
        "-in",
        "policy.toml",
        "-sigfile",
        "sig.bin",
    ];
    let judged = openssl(dir, &arguments).unwrap();
    assert!(judged.status.success(), "{}", text(&judged));
}
