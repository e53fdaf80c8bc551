//! The judges of the tables are ACPICA's own programs: `iasl` disassembles each and compiles the result,
//! `acpiexec` loads them as an operating system does and runs their methods.

use std::path::Path;
use std::process::Command;

use super::tests::hardware;
use super::{Hardware, Placed, build};

/// Whether the judge is there; where not, says so.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("-v").output().is_ok();
    let why = format!("{program} is not installed (Debian package acpica-tools)");
    !sekisho_skip::skip_unless(there, &why)
}

fn laptop() -> Hardware {
    Hardware {
        laptop: true,
        ..hardware(2, true)
    }
}

#[test]
fn iasl_finds_no_error() {
    if !has("iasl") {
        return;
    }
    let with_tpm = Hardware {
        tpm: true,
        ..hardware(2, false)
    };
    for hardware in [hardware(1, false), hardware(4, true), with_tpm, laptop()] {
        let folder = tempfile::tempdir().unwrap();
        for table in build(&hardware).unwrap() {
            // iasl reads no table without a standard header.
            if table.name != "RSDP" {
                check(folder.path(), &table);
            }
        }
    }
}

fn check(folder: &Path, table: &Placed) {
    let (binary, source) = (format!("{}.dat", table.name), format!("{}.dsl", table.name));
    std::fs::write(folder.join(&binary), &table.bytes).unwrap();
    for arguments in [["-d", &binary], ["-ve", &source]] {
        let output = Command::new("iasl")
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{}: {text}", table.name);
        let complaint = text.lines().find(|line| {
            let line = line.to_lowercase();
            line.contains("invalid")
                || line.contains("incorrect")
                || line.starts_with("error")
                || line.contains("warning  ")
        });
        assert_eq!(complaint, None, "{}: {text}", table.name);
    }
}

/// Loads the tables of `hardware` with these values in the window, runs `commands`, and gives what was
/// said. Nothing may be complained of.
fn executed(hardware: &Hardware, values: &str, commands: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for table in build(hardware).unwrap() {
        // What is no table of AML or FADT it makes itself.
        if ["DSDT", "FACP"].contains(&table.name) {
            let name = format!("{}.dat", table.name);
            std::fs::write(folder.path().join(&name), &table.bytes).unwrap();
            names.push(name);
        }
    }
    std::fs::write(folder.path().join("values"), values).unwrap();
    let output = Command::new("acpiexec")
        .args(["-fi", "values", "-b", commands])
        .args(&names)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    // Its tests of itself want a register for bus masters and 128 events, which the FADT does not name.
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("(aetests-"))
        .collect();
    let said = said.join("\n");
    for complaint in ["Error", "Warning", "AE_", "failed"] {
        assert!(!said.contains(complaint), "{complaint}: {said}");
    }
    said
}

/// The integers and strings that a method gave.
fn given(said: &str, method: &str) -> Vec<String> {
    let start = format!("Evaluation of {method} returned object");
    let (_, behind) = said.split_once(&start).unwrap_or_else(|| panic!("{said}"));
    let lines = behind.lines().skip(1).map(str::trim);
    lines
        .take_while(|line| line.starts_with('['))
        .filter_map(|line| line.split_once("] ")?.1.split_once("= "))
        .map(|(_, value)| match u64::from_str_radix(value, 16) {
            Ok(number) => number.to_string(),
            Err(_) => value.to_owned(),
        })
        .collect()
}

#[test]
fn acpiexec_runs_the_methods_of_battery_adapter_and_lid() {
    if !has("acpiexec") {
        return;
    }
    let values = "\\ACON 1\n\\LIDO 0\n\\BATP 1\n\\BSTT 2\n\\BRTE 6921\n\\BCAP 31060\n\\BVOL 11934\n\
        \\BDES 50450\n\\BFUL 47310\n\\BDVO 11520\n\\BWRN 4731\n\\BLOW 2365\n\\BCYC 42\n";
    let methods = [
        "ADP1._PSR",
        "LID0._LID",
        "BAT0._STA",
        "BAT0._BST",
        "BAT0._BIX",
        "BAT0._BIF",
    ];
    let commands: String = methods
        .map(|method| format!("execute \\_SB.{method};"))
        .concat();
    let said = executed(&laptop(), values, &commands);
    let of = |method: &str| given(&said, &format!("\\_SB.{method}"));
    assert_eq!(of("ADP1._PSR"), ["1"]);
    assert_eq!(of("LID0._LID"), ["0"]);
    assert_eq!(of("BAT0._STA"), ["31"]);
    assert_eq!(of("BAT0._BST"), ["2", "6921", "31060", "11934"]);
    let extended = of("BAT0._BIX");
    let numbers = [
        "0", "0", "50450", "47310", "1", "11520", "4731", "2365", "42", "95000", "2000", "2000",
        "2000", "2000", "10", "10",
    ];
    assert_eq!(extended[..16], numbers, "{said}");
    assert_eq!(extended.len(), 20);
    let information = of("BAT0._BIF");
    let numbers = [
        "0", "50450", "47310", "1", "11520", "4731", "2365", "10", "10",
    ];
    assert_eq!(information[..9], numbers, "{said}");
    assert_eq!(information.len(), 13);

    // No battery in its place, and nothing known of one.
    let said = executed(&laptop(), "\\BATP 0\n", "execute \\_SB.BAT0._STA;");
    assert_eq!(given(&said, "\\_SB.BAT0._STA"), ["15"]);
}

#[test]
fn acpiexec_is_notified_of_each_event() {
    if !has("acpiexec") {
        return;
    }
    for (number, device, value) in [
        (1, "ADP1", 0x80),
        (2, "BAT0", 0x80),
        (3, "BAT0", 0x81),
        (4, "LID0", 0x80),
        (5, "SLPB", 0x80),
    ] {
        let said = executed(&laptop(), "", &format!("execute \\_GPE._E{number:02X};"));
        let told = said.lines().any(|line| {
            line.contains(&format!("Notify on [{device}]"))
                && line.contains(&format!("Value 0x{value:02X}"))
        });
        assert!(told, "{number}: {said}");
    }
}
