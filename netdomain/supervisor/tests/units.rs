//! The units that are shipped, looked at by systemd's own tools.

use std::{fs, path::Path, process::Command};

use sekisho_skip::skip_unless;
use sekisho_supervisor::Config;

const SERVICE: &str = include_str!("../systemd/sekisho.service");
const SLEEP: &str = include_str!("../systemd/sekisho-sleep.service");
const SYSUSERS: &str = include_str!("../systemd/sekisho.sysusers");
const TMPFILES: &str = include_str!("../systemd/sekisho.tmpfiles");
const CONFIG: &str = include_str!("../systemd/supervisor.toml");
/// Exposure of the supervisor in `systemd-analyze security`, times ten. It is root with
/// `CAP_SYS_ADMIN`, which alone makes half of it: it builds everybody else's sandbox.
const SUPERVISOR_EXPOSURE: &str = "50";
const SLEEP_EXPOSURE: &str = "15";

/// The units where systemd looks at them, with the program where Cargo put it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_sekisho-supervisor");
    let service = SERVICE.replace("/usr/lib/sekisho/sekisho-supervisor", program);
    assert_ne!(service, SERVICE);
    for (name, text) in [
        ("sekisho.service", &*service),
        ("sekisho-sleep.service", SLEEP),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

/// What a tool says, and whether it is content.
fn ask(program: &str, words: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(words).output().expect(program);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn without(program: &str) -> bool {
    skip_unless(
        Path::new("/usr/bin").join(program).exists(),
        "systemd's tools are not installed",
    )
}

#[test]
fn systemd_understands_every_line() {
    if without("systemd-analyze") {
        return;
    }
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (service, sleep) = (path("sekisho.service"), path("sekisho-sleep.service"));
    let verify = |unit: &str| ask("systemd-analyze", &["verify", "--man=no", unit]);
    for unit in [&service, &sleep] {
        let (content, said) = verify(unit);
        assert!(content && said.is_empty(), "{unit}: {said}");
    }
    // The control: what it does not understand it says.
    let text = fs::read_to_string(&sleep).expect("read");
    fs::write(&sleep, text.replace("ProtectClock", "ProtectKlock")).expect("written");
    assert!(verify(&sleep).1.contains("ProtectKlock"));
}

#[test]
fn the_units_are_closed_in_as_far_as_they_can_be() {
    if without("systemd-analyze") {
        return;
    }
    let folder = folder();
    let security = |unit: &str, threshold: &str| {
        let unit = folder.path().join(unit);
        let threshold = format!("--threshold={threshold}");
        let words = [
            "security",
            "--offline=true",
            &threshold,
            &unit.to_string_lossy(),
        ];
        ask("systemd-analyze", &words)
    };
    for (unit, threshold) in [
        ("sekisho.service", SUPERVISOR_EXPOSURE),
        ("sekisho-sleep.service", SLEEP_EXPOSURE),
    ] {
        let (content, said) = security(unit, threshold);
        assert!(content, "{unit}: {said}");
    }
    let (content, _) = security("sekisho.service", "10");
    assert!(!content, "the tool is content with anything");
}

#[test]
fn users_and_folders_are_those_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("supervisor.toml", CONFIG), ("device.toml", "")] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let config = Config::read(&folder.path().join("supervisor.toml")).expect("the shipped sample");
    let users = &config.users;
    let group = config.status.as_ref().and_then(|status| status.group);
    for (line, id) in [
        ("u sekisho-gate", users.gate),
        ("u sekisho-uplink", users.uplink),
        ("u sekisho-vmm", users.vmm),
        ("u sekisho-tls", users.tls),
        ("g sekisho-status", group),
    ] {
        let id = id.expect("it is named").to_string();
        let mut lines = SYSUSERS.lines().filter(|text| text.starts_with(line));
        let words = lines.next().expect(line).split_whitespace();
        assert_eq!(words.clone().nth(2), Some(&*id), "{line}");
    }
    for path in [Some(&config.state), config.usage.as_ref()] {
        let path = path.expect("it is named").to_string_lossy().into_owned();
        let named = |line: &str| line.split_whitespace().nth(1) == Some(&path);
        assert!(TMPFILES.lines().any(named), "{path}");
    }

    if without("systemd-sysusers") {
        return;
    }
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("etc")).expect("made");
    let at = format!("--root={}", root.display());
    for (tool, options, name, text) in [
        ("systemd-sysusers", &[][..], "users.conf", SYSUSERS),
        ("systemd-tmpfiles", &["--create"], "files.conf", TMPFILES),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("written");
        let file = file.to_string_lossy();
        let words = [&[&*at], options, &[&*file]].concat();
        let (content, said) = ask(tool, &words);
        assert!(content, "{tool}: {said}");
    }
    let passwd = fs::read_to_string(root.join("etc/passwd")).expect("made");
    assert!(passwd.contains("sekisho-gate:x:64017:64017:"), "{passwd}");
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let gate = fs::metadata(root.join("var/lib/sekisho/gate")).expect("made");
        assert_eq!((gate.uid(), gate.mode() & 0o777), (64017, 0o700));
    }
}
