//! Steps that a person can follow: what is being done, how long it took, what it said.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Why a task could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("could not install {0}; is this Debian 12, and is its package source reachable?")]
    Packages(String),
    #[error("cannot run {0}: {1}")]
    Start(String, #[source] io::Error),
    #[error("{0} failed; its words are above")]
    Step(String),
}

/// Says what begins now.
pub(crate) fn say(what: &str) -> Instant {
    eprintln!("── {what}");
    Instant::now()
}

/// Says that it is over.
pub(crate) fn done(started: Instant) {
    eprintln!("   done in {:.1} s", started.elapsed().as_secs_f64());
}

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || workspace().join("target"),
        |folder| workspace().join(folder),
    )
}

/// Cargo, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // This program was itself started by cargo: what that set for it is not meant for others.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text == "CARGO_MANIFEST_DIR" {
            command.env_remove(&name);
        }
    }
    command
}

/// `cargo build` with cargo's own progress.
pub(crate) fn build(arguments: &[&str]) -> Result<(), Failure> {
    let started = say(&format!("building ({})", arguments.join(" ")));
    let status = wait(cargo().arg("build").args(arguments), "cargo")?;
    if !status.success() {
        return Err(Failure::Step("cargo build".to_owned()));
    }
    done(started);
    Ok(())
}

/// Where the workspace's program of this name is once it is built.
pub(crate) fn built(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// A program of the workspace.
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    pub(crate) fn built(name: &str) -> Self {
        Self {
            path: built(name),
            arguments: Vec::new(),
        }
    }

    pub(crate) fn built_for_speed(name: &str) -> Self {
        Self {
            path: target().join("release").join(name),
            arguments: Vec::new(),
        }
    }

    pub(crate) fn flag(&mut self, flag: &str, set: bool) -> &mut Self {
        if set {
            self.arguments.push(flag.into());
        }
        self
    }

    pub(crate) fn arguments(&mut self, arguments: &[String]) -> &mut Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }
}

/// Runs a program with this terminal and passes its exit status on.
pub(crate) fn run(program: &mut Program) -> Result<ExitCode, Failure> {
    let name = program.path.display().to_string();
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).current_dir(workspace());
    let status = wait(&mut command, &name)?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Starts and waits. Ctrl-C reaches the program too: it cleans up, and this waits for it.
pub(crate) fn wait(command: &mut Command, name: &str) -> Result<ExitStatus, Failure> {
    let failure = |error| Failure::Start(name.to_owned(), error);
    let pressed = Arc::new(AtomicBool::new(false));
    let handler =
        signal_hook::flag::register(signal_hook::consts::SIGINT, pressed).map_err(failure)?;
    let status = command.status().map_err(failure);
    signal_hook::low_level::unregister(handler);
    status
}
