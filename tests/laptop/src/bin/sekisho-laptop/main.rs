//! Boots the QEMU laptop and runs a command in it, or gives a shell: `cargo xtask laptop`.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sekisho_laptop::exec::{Said, Start, Terminal};
use sekisho_laptop::{Laptop, Options, Running, Share};

/// What ends the run early: a sentence for the person.
type Failure = Box<dyn std::error::Error>;

/// Boot the QEMU laptop and run a command in it, or get a shell.
#[derive(Parser)]
struct Arguments {
    /// Memory in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    cpus: u8,
    /// A folder of this machine that the laptop may write to.
    #[arg(long, value_name = "FOLDER")]
    share: Vec<PathBuf>,
    /// Load the module that firmware guests need under emulation.
    #[arg(long)]
    cr8: bool,
    /// Seconds after which the command is killed; without it, it may run for ever.
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// The command and its arguments; without one, a shell.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let shares = arguments
        .share
        .iter()
        .map(|path| {
            Ok(Share {
                path: path.canonicalize()?,
                writable: true,
            })
        })
        .collect::<io::Result<_>>()?;
    let laptop = Laptop::start(Options {
        memory: arguments.memory,
        cpus: arguments.cpus,
        shares,
        cr8_workaround: arguments.cr8,
        ..Options::default()
    })?;
    eprintln!(
        "the laptop is up after {:.1} s; its folder: {}",
        laptop.boot_time().as_secs_f64(),
        laptop.folder().display()
    );
    let shell = arguments.command.is_empty();
    let argv = if shell {
        ["bash", "--login"].map(str::to_owned).to_vec()
    } else {
        arguments.command.clone()
    };
    let terminal = (shell && io::stdin().is_terminal()).then(terminal_size);
    let running = laptop.spawn_with(Start {
        argv,
        cwd: Some(std::env::current_dir()?),
        stdin: true,
        terminal,
        ..Start::default()
    })?;
    let raw = terminal.is_some().then(RawTerminal::enter).transpose()?;
    let code = follow(running, arguments.limit.map(Duration::from_secs));
    drop(raw);
    Ok(ExitCode::from(
        u8::try_from(code.map_err(|why| with_console(&why, &laptop))?).unwrap_or(1),
    ))
}

/// Passes input and output through until the command ends; gives its exit status.
fn follow(mut running: Running, limit: Option<Duration>) -> Result<i32, Failure> {
    let input = running.input();
    // Ends with the process: reading a terminal cannot be called off.
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut stdin = io::stdin();
        loop {
            let length = stdin.read(&mut bytes).unwrap_or(0);
            if length == 0 {
                // The command may have ended.
                let _ = input.end();
                return;
            }
            if input.write(&bytes[..length]).is_err() {
                return;
            }
        }
    });
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map_or(Duration::from_hours(1), |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        match running.next(left)? {
            Some(Said::Stdout(bytes)) => {
                io::stdout().write_all(&bytes)?;
                io::stdout().flush()?;
            }
            Some(Said::Stderr(bytes)) => io::stderr().write_all(&bytes)?,
            Some(Said::Ended(status)) => return Ok(status.shell_code()),
            None if limit.is_some() => return Err("the command took too long".into()),
            None => {}
        }
    }
}

fn with_console(why: &Failure, laptop: &Laptop) -> Failure {
    format!("{why}\n{}", laptop.console_tail()).into()
}

fn terminal_size() -> Terminal {
    tcgetwinsize(io::stdin()).map_or(
        Terminal {
            rows: 24,
            columns: 80,
        },
        |size| Terminal {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}

/// The person's terminal passes every key on while this lives.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing better can be done than to leave the terminal as it is.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
