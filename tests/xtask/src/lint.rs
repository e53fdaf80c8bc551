//! Formatting, clippy, licences and advisories. Silent when all is well.

use std::process::{Command, ExitCode, Stdio};

use crate::packages::{self, Need};
use crate::steps::{Failure, cargo, done, say};

/// Runs every linter; all of them, so that one look shows everything.
pub(crate) fn all() -> Result<ExitCode, Failure> {
    packages::install(&[Need::Build])?;
    let format = quiet(cargo().args(["fmt", "--all", "--check"]), "cargo fmt")?;
    let clippy = quiet(
        cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        "cargo clippy",
    )?;
    let deny = deny()?;
    Ok(if format && clippy && deny {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Licences, sources and duplicate versions; and advisories where their database can be had.
fn deny() -> Result<bool, Failure> {
    if !quiet(
        cargo().args(["deny", "--version"]).stderr(Stdio::null()),
        "cargo deny",
    )? {
        let started = say("installing cargo-deny (a few minutes, once)");
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "cargo-deny"]);
        if !quiet(&mut install, "cargo install")? {
            return Err(Failure::Step("installing cargo-deny".to_owned()));
        }
        done(started);
    }
    let config = [
        "deny",
        "--log-level",
        "error",
        "--workspace",
        "--config",
        ".cargo/deny.toml",
        "check",
    ];
    let rules = quiet(
        cargo()
            .args(config)
            .args(["--hide-inclusion-graph", "bans", "licenses", "sources"]),
        "cargo deny",
    )?;
    Ok(rules)
}

/// Runs a linter; its words come out only when it objects.
fn quiet(command: &mut Command, name: &str) -> Result<bool, Failure> {
    let answer = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Start(name.to_owned(), error))?;
    if !answer.status.success() {
        print!("{}", String::from_utf8_lossy(&answer.stdout));
        eprint!("{}", String::from_utf8_lossy(&answer.stderr));
    }
    Ok(answer.status.success())
}
