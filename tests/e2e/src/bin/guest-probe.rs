//! The probe's command line; it runs inside the work OS.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sekisho_e2e::probe;

#[derive(Parser)]
#[command(about = "Sends marked traffic from inside the work OS and reports what became of it")]
struct Arguments {
    /// Text that every packet with a payload carries.
    #[arg(long)]
    canary: String,
    /// How long to wait for an answer, in milliseconds.
    #[arg(long, default_value_t = 1500)]
    patience: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Connect by TCP.
    Tcp { target: SocketAddr },
    /// Send one datagram.
    Udp { target: SocketAddr },
    /// Ask a resolver for a name.
    Dns { server: SocketAddr, name: String },
    /// Resolve a name and fetch its first page.
    Page { resolver: SocketAddr, name: String },
    /// One ICMP echo.
    Ping { target: IpAddr },
    /// Fetch a path by HTTP and time the longest silence.
    Download {
        server: SocketAddr,
        path: String,
        /// Only so many bytes from its beginning.
        #[arg(long)]
        bytes: Option<u64>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let patience = Duration::from_millis(arguments.patience);
    let canary = arguments.canary.as_str();
    let outcome = match arguments.what {
        What::Tcp { target } => probe::tcp(target, canary, patience),
        What::Udp { target } => probe::udp(target, canary, patience),
        What::Dns { server, name } => probe::dns(server, &name, patience),
        What::Page { resolver, name } => probe::page(resolver, &name, canary, patience),
        What::Ping { target } => probe::ping(target, canary, patience),
        What::Download {
            server,
            path,
            bytes,
        } => {
            let done = probe::download(server, &path, bytes, canary, patience);
            return print(&done);
        }
    };
    print(&outcome)
}

fn print(document: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string(document) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write the outcome: {error}");
            ExitCode::FAILURE
        }
    }
}
