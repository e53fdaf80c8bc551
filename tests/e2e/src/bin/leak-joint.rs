//! The positive control's way round: a second NIC for the work OS that nobody guards.
//!
//! It waits on a path for the VMM to connect, then becomes the lab's tap joint with that
//! connection: the guest's frames come out of a tap of the laptop. Only `cargo xtask demo --leak`
//! starts it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

#[derive(Parser)]
struct Arguments {
    /// Where to wait for the VMM.
    #[arg(long)]
    listen: PathBuf,
    /// Name of the tap.
    #[arg(long)]
    tap: String,
    /// The tap joint's program.
    #[arg(long)]
    joint: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match accept(&arguments.listen) {
        Ok(link) => {
            let error = Command::new(&arguments.joint)
                .args([
                    "--tap",
                    &arguments.tap,
                    "--netns",
                    "/proc/self/ns/net",
                    "--link",
                ])
                .arg(format!("fd:{}", link.as_raw_fd()))
                .exec();
            eprintln!(
                "error: cannot become {}: {error}",
                arguments.joint.display()
            );
        }
        Err(error) => eprintln!("error: nobody connected: {error}"),
    }
    ExitCode::FAILURE
}

fn accept(path: &PathBuf) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 1)?;
    println!("listening");
    let link = rustix::net::accept(&socket)?;
    // The program that this one becomes is to have it.
    fcntl_setfd(&link, FdFlags::empty())?;
    Ok(link)
}
