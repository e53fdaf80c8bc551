//! `sekisho-netdomain gate | uplink | modem | tls | ike`: the processes of the network domain.
#![forbid(unsafe_code)]

use std::{alloc::System, process::ExitCode};

use clap::{Parser, Subcommand};
use sekisho_netdomain::{gate, ike, recycle::Recycling, tls, uplink};
use tracing_subscriber::EnvFilter;

/// No packet costs the system's allocator a call.
#[global_allocator]
static ALLOCATOR: Recycling<System> = Recycling(System);

/// The network domain of a Sekisho laptop.
#[derive(Parser)]
#[command(name = "sekisho-netdomain", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Decides about every frame of the work OS and holds the tunnel.
    Gate(gate::Args),
    /// Holds the network cards and hands connected sockets to the gate.
    Uplink(uplink::Args),
    /// Keeps the supplicant running; started by the uplink.
    #[command(hide = true)]
    Supplicant(uplink::KeeperArgs),
    /// Keeps the wired supplicants running; started by the uplink.
    #[command(hide = true)]
    Dot1x(uplink::Dot1xArgs),
    /// Asks ModemManager for the SIM's connection.
    Modem(uplink::ModemArgs),
    /// Keeps openconnect, the engine of a TLS tunnel.
    Tls(tls::Args),
    /// Keeps charon, the engine of an `IPsec` tunnel.
    Ike(ike::Args),
    /// Started by openconnect: hands its socket for packets to the keeper.
    #[command(hide = true)]
    Handover(tls::HandoverArgs),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let ended = match Cli::parse().role {
        Role::Gate(args) => gate::run(&args).map_err(|error| error.to_string()),
        Role::Uplink(args) => uplink::run(&args).map_err(|error| error.to_string()),
        Role::Supplicant(args) => uplink::keep(&args).map_err(|error| error.to_string()),
        Role::Dot1x(args) => uplink::keep_dot1x(&args).map_err(|error| error.to_string()),
        Role::Modem(args) => uplink::ask_modem(&args).map_err(|error| error.to_string()),
        Role::Tls(args) => tls::run(&args).map_err(|error| error.to_string()),
        Role::Ike(args) => ike::run(&args).map_err(|error| error.to_string()),
        Role::Handover(args) => tls::hand_over(&args).map_err(|error| error.to_string()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
