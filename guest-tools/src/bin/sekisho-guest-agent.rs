//! The agent in the work OS (Linux).
//!
//! It shows notices, shuts down cleanly after a countdown, says that it lives. It runs no
//! commands and opens no files for the host.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::PollFd;
use sekisho_guest_tools::port::{Arrived, Port, now, random, wait};
use sekisho_guest_tools::{AgentOutput, AgentSession};

const HELP: &str = "\
The agent of Sekisho in the work OS: shows notices, shuts down cleanly.

Usage: sekisho-guest-agent --port PORT [--notices FILE] [--power-off PROGRAM]

  --port PORT          the console port, e.g. /dev/virtio-ports/jp.sekisho.agent.0;
                       `-` is standard input, opened for reading and writing
  --notices FILE       where notices are written to [default: /dev/console]
  --power-off PROGRAM  what shuts the system down [default: poweroff]
  --help               this text
";

/// Pause before a port whose other end is closed is tried again: it has no event for "open".
const CLOSED_PAUSE: Duration = Duration::from_millis(200);

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}\n\n{HELP}")]
    Usage(String),
    #[error("cannot open {0}: {1}; does the virtual machine have this console port?")]
    Open(String, std::io::Error),
    #[error("the port failed: {0}")]
    Port(#[from] rustix::io::Errno),
}

struct Options {
    port: String,
    notices: String,
    power_off: String,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| options.map_or(Ok(()), |o| run(&o)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sekisho-guest-agent: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// `None` if the person only wanted help.
fn options(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, Failure> {
    let mut port = None;
    let mut notices = "/dev/console".to_owned();
    let mut power_off = "poweroff".to_owned();
    while let Some(word) = words.next() {
        if word == "--help" {
            print!("{HELP}");
            return Ok(None);
        }
        let mut value = || {
            words
                .next()
                .ok_or_else(|| Failure::Usage(format!("{word} needs a value")))
        };
        match word.as_str() {
            "--port" => port = Some(value()?),
            "--notices" => notices = value()?,
            "--power-off" => power_off = value()?,
            _ => return Err(Failure::Usage(format!("unknown option {word}"))),
        }
    }
    let port = port.ok_or_else(|| Failure::Usage("--port is missing".into()))?;
    Ok(Some(Options {
        port,
        notices,
        power_off,
    }))
}

fn run(options: &Options) -> Result<(), Failure> {
    let mut port = Port::new(open(&options.port)?)?;
    let (mut session, first) = AgentSession::new(random()?, now());
    perform(first, &mut port, options)?;
    loop {
        let interest = port.interest();
        wait(
            &mut [PollFd::new(&port, interest)],
            Some(session.next_tick()),
        )?;
        match port.read()? {
            Arrived::Bytes(bytes) => perform(session.received(&bytes, now()), &mut port, options)?,
            // A socket stays closed; a console port may be opened again.
            Arrived::Closed if options.port == "-" => return Ok(()),
            Arrived::Closed => thread::sleep(CLOSED_PAUSE),
        }
        flush(&mut port)?;
        perform(session.tick(now()), &mut port, options)?;
    }
}

fn open(port: &str) -> Result<OwnedFd, Failure> {
    let failed = |error| Failure::Open(port.to_owned(), error);
    if port == "-" {
        return std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed);
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(port)
        .map(Into::into)
        .map_err(failed)
}

fn perform(outputs: Vec<AgentOutput>, port: &mut Port, options: &Options) -> Result<(), Failure> {
    for output in outputs {
        match output {
            AgentOutput::Send(bytes) => {
                port.send(&bytes).or_else(ignore_closed)?;
            }
            AgentOutput::Show { ja, en } => show(&options.notices, &ja, &en),
            AgentOutput::ShutDown => shut_down(&options.power_off),
        }
    }
    Ok(())
}

fn flush(port: &mut Port) -> Result<(), Failure> {
    port.flush().or_else(ignore_closed)?;
    Ok(())
}

/// The next read says the same.
fn ignore_closed(error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
    use rustix::io::Errno;
    if matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NODEV) {
        Ok(())
    } else {
        Err(error)
    }
}

fn show(notices: &str, ja: &str, en: &str) {
    let opened = OpenOptions::new().append(true).create(true).open(notices);
    let shown = opened
        .and_then(|mut file| file.write_all(format!("\n[関所] {ja}\n[Sekisho] {en}\n").as_bytes()));
    if let Err(error) = shown {
        eprintln!("sekisho-guest-agent: cannot show a notice in {notices}: {error}");
    }
}

fn shut_down(program: &str) {
    // It ends this agent too, so nobody waits for it.
    if let Err(error) = Command::new(program).stdin(Stdio::null()).spawn() {
        eprintln!("sekisho-guest-agent: cannot run {program}: {error}");
    }
}
