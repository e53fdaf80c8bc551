//! `sekisho-supervisor --config supervisor.toml`: starts a laptop's domains.
#![forbid(unsafe_code)]

use std::{fs::OpenOptions, path::PathBuf, process::ExitCode};

use clap::Parser;
use sekisho_supervisor::{Config, run};
use tracing_subscriber::EnvFilter;

/// Starts the domains of a Sekisho laptop, restarts what dies, passes fresh sockets.
///
/// SIGTERM ends everything in order. The host's sleep hook sends SIGUSR1 before the laptop sleeps and
/// SIGUSR2 when it woke up.
#[derive(Parser)]
#[command(name = "sekisho-supervisor", version)]
struct Cli {
    /// What to start, and with which files.
    #[arg(long)]
    config: PathBuf,
    /// Write each event to this file, one JSON object a line.
    #[arg(long)]
    events: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let cli = Cli::parse();
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> Result<(), String> {
    let config = Config::read(&cli.config).map_err(|error| error.to_string())?;
    let events = match &cli.events {
        None => None,
        Some(path) => Some(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?,
        ),
    };
    run(&config, events).map_err(|error| error.to_string())
}
