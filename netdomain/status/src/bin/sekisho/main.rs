//! `sekisho status`, `sekisho doctor`: what the laptop says of itself, for the person and for IT; and
//! `sekisho answer`: what the person gives where a gateway asks for it.
#![forbid(unsafe_code)]

mod answer;
mod typed;
mod view;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use sekisho_status::{
    Outcome, SOCKET, Status,
    client::{Client, ClientError},
    words::Lang,
};

/// What the laptop says of itself.
#[derive(Debug, Parser)]
#[command(name = "sekisho", version)]
struct Cli {
    /// Language of the answer; that of the environment without it.
    #[arg(long, global = true)]
    lang: Option<Language>,
    /// The supervisor's status socket.
    #[arg(long, global = true, default_value = SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Ja,
    En,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whether it is connected, over what, since when, and what was refused.
    Status {
        /// Stay, and show each change; in a terminal in place.
        #[arg(long)]
        watch: bool,
        /// For programs: one JSON object a line, as the Varlink interface describes it.
        #[arg(long)]
        json: bool,
    },
    /// Why is it not connected: a list from the cable to the page, with what to do.
    ///
    /// Ends with 1 if something on the list failed.
    Doctor {
        /// For programs: one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Give the one-time password or PIN that a gateway asks for.
    ///
    /// In a terminal it is asked for and not shown; else the first line of the input is taken. Ends
    /// with 1 if there is nothing to answer, or the answer was not taken.
    Answer,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let lang = match cli.lang {
        Some(Language::Ja) => Lang::Ja,
        Some(Language::En) => Lang::En,
        None => Lang::of_environment(|name| std::env::var(name).ok()),
    };
    match run(&cli, lang) {
        Ok(code) => code,
        // Whoever reads our output has enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("sekisho: {}", failure.text(lang));
            ExitCode::from(2)
        }
    }
}

/// Why there is nothing to show.
enum Failure {
    Client(ClientError),
    Output(io::Error),
    Refused(&'static str),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    fn text(&self, lang: Lang) -> String {
        let (what, error): (_, &dyn std::fmt::Display) = match self {
            Self::Refused(why) => return (*why).to_owned(),
            Self::Client(error @ ClientError::Connect { .. }) => (
                lang.of(
                    "端末の状態を聞けません。Sekisho が動いているか、権限があるかを確かめてください",
                    "the laptop cannot be asked; does Sekisho run, and may you ask it?",
                ),
                error,
            ),
            Self::Client(error) => (
                lang.of("端末が答えません", "the laptop does not answer"),
                error,
            ),
            Self::Output(error) => (lang.of("表示できません", "cannot be shown"), error),
        };
        format!("{what} ({error})")
    }
}

fn run(cli: &Cli, lang: Lang) -> Result<ExitCode, Failure> {
    let connect = || Client::connect(&cli.socket);
    match cli.command {
        Command::Answer => answer::run(connect, lang),
        Command::Status { watch: true, json } => watch(&mut connect()?, json, lang),
        Command::Status { json, .. } => {
            let status = connect()?.status()?;
            show(&status, json, lang)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { json } => {
            let checks = connect()?.diagnose()?;
            let failed = checks
                .iter()
                .any(|check| matches!(check.outcome, Outcome::Failed { .. }));
            let mut out = io::stdout().lock();
            if json {
                line(&mut out, &checks)?;
            } else {
                out.write_all(view::doctor(&checks, lang).as_bytes())?;
            }
            Ok(ExitCode::from(u8::from(failed)))
        }
    }
}

fn show(status: &Status, json: bool, lang: Lang) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        line(&mut out, status)
    } else {
        out.write_all(view::status(status, lang).as_bytes())
    }
}

fn line<T: serde::Serialize>(out: &mut impl io::Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// In a terminal the picture is drawn anew so often though nothing changed: ages grow.
const REDRAW: Duration = Duration::from_secs(1);
/// To the upper left, and everything below it erased (ECMA-48, CUP and ED).
const HOME: &str = "\x1b[H\x1b[J";
const ERASE_ALL: &str = "\x1b[2J";

fn watch(client: &mut Client, json: bool, lang: Lang) -> Result<ExitCode, Failure> {
    let live = !json && io::stdout().is_terminal();
    client.watch()?;
    let mut last: Option<(Status, Instant)> = None;
    if live {
        io::stdout().write_all(ERASE_ALL.as_bytes())?;
    }
    loop {
        let fresh = client.change(REDRAW)?;
        if let Some(status) = fresh {
            if !live {
                if last.is_some() && !json {
                    io::stdout().write_all(b"\n")?;
                }
                show(&status, json, lang)?;
            }
            last = Some((status, Instant::now()));
        }
        if live && let Some((status, at)) = &last {
            let text = view::status(&view::aged(status, at.elapsed()), lang);
            let mut out = io::stdout().lock();
            out.write_all(HOME.as_bytes())?;
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
    }
}
