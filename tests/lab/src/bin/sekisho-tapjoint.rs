//! `sekisho-tapjoint --tap NAME --netns PATH --link fd:N [--control fd:N]`: a tap in the guest's
//! place. See [`sekisho_lab::tapjoint`].

use std::process::ExitCode;

use clap::Parser;
use sekisho_lab::tapjoint::{Args, run};

/// Joins a tap device with a frame link: a namespace plays the guest.
#[derive(Parser)]
#[command(name = "sekisho-tapjoint", version)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    match run(&Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekisho-tapjoint: {error}");
            ExitCode::FAILURE
        }
    }
}
