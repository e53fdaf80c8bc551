//! T34: the policy is missing, empty, truncated, unreadable, or signed by a stranger at boot.
//! Everything is denied, no frame leaves, and the log says why in words.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{LaptopFiles, NetLaptop, Setup};

/// Refused at rest.
struct Case {
    name: &'static str,
    tamper: fn(&LaptopFiles),
    /// What the message must name.
    names: &'static str,
}

const fn case(name: &'static str, tamper: fn(&LaptopFiles), names: &'static str) -> Case {
    Case {
        name,
        tamper,
        names,
    }
}

const CASES: [Case; 6] = [
    case(
        "missing",
        |files| must(std::fs::remove_file(&files.policy)),
        "policy.toml",
    ),
    case(
        "empty",
        |files| must(std::fs::write(&files.policy, "")),
        "signature",
    ),
    case("truncated", truncate, "signature"),
    case("unreadable", unreadable, "policy.toml"),
    case("signed by a stranger", foreign_signature, "signature"),
    case(
        "without a signature",
        |files| must(std::fs::remove_file(&files.signature)),
        "policy.toml.sig",
    ),
];

fn truncate(files: &LaptopFiles) {
    let text = must(std::fs::read(&files.policy));
    must(std::fs::write(&files.policy, &text[..text.len() / 2]));
}

fn unreadable(files: &LaptopFiles) {
    must(std::fs::remove_file(&files.policy));
    must(std::fs::create_dir(&files.policy));
}

fn foreign_signature(files: &LaptopFiles) {
    let signature = must(std::fs::read_to_string(&files.signature));
    // Another signature of the right form: its first bytes are changed.
    let at = signature.find("\"sig\": \"").map_or(0, |at| at + 8);
    let other = if &signature[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &signature[..at], &signature[at + 1..]);
    must(std::fs::write(&files.signature, forged));
}

#[test]
fn t34_without_a_good_policy_there_is_no_network() {
    for Case {
        name,
        tamper,
        names,
    } in CASES
    {
        let Some(scene) = Scene::cafe() else { return };
        let setup = Setup {
            tamper: Some(tamper),
            ..Setup::default()
        };
        let laptop = must(NetLaptop::start(&scene.lab, &setup));
        for part in ["gate", "uplink"] {
            must(laptop.wait_event(
                0,
                "the end of a process",
                Duration::from_secs(15),
                |event| event.is("supervisor", "died") && event.text("process") == part,
            ));
        }
        let message = must(
            laptop
                .log()
                .wait_for("ERROR", Duration::from_secs(5), |line| {
                    line.contains("ERROR").then(|| line.to_owned())
                }),
        );
        assert!(message.to_lowercase().contains(names), "{name}: {message}");
        eprintln!("{name}: {message}");
        scene.holds(&laptop, Expects::Silent);
    }
}
