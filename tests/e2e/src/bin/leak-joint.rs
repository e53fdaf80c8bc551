//! The positive control's way round: a second NIC for the work OS that nobody guards.
//!
//! It waits on a path for the VMM to connect. Told a process id on standard input, it enters that
//! process's network namespace and passes frames between the NIC and `eth0` as they are, past all
//! rules of the kernel. Only `cargo xtask demo --leak` starts it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
};
use sekisho_lab::Netns;
use sekisho_lab::packet::PacketSocket;

/// The `virtio_net_hdr` in front of each frame of a frame link.
const HEADER: [u8; 12] = [0; 12];

#[derive(Parser)]
struct Arguments {
    /// Where to wait for the VMM.
    #[arg(long)]
    listen: PathBuf,
    /// The interface that leads outside.
    #[arg(long)]
    interface: String,
}

fn main() -> ExitCode {
    match open(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open(arguments: &Arguments) -> io::Result<()> {
    let link = accept(&arguments.listen)?;
    let mut pid = String::new();
    io::stdin().read_line(&mut pid)?;
    Netns::join_path(Path::new(&format!("/proc/{}/ns/net", pid.trim())))?;
    let wire = PacketSocket::open(&Netns::here()?, &arguments.interface)?;
    println!("open");
    pass(&link, &wire)
}

fn accept(path: &PathBuf) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 1)?;
    println!("listening");
    Ok(rustix::net::accept(&socket)?)
}

/// Passes frames both ways until the VMM is gone.
fn pass(link: &OwnedFd, wire: &PacketSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_600];
    loop {
        let mut ready = [
            PollFd::new(link, PollFlags::IN),
            PollFd::new(wire, PollFlags::IN),
        ];
        poll(&mut ready, None)?;
        let [from_guest, from_wire] = ready.map(|source| !source.revents().is_empty());
        if from_guest {
            let (length, _) = recv(link, &mut buffer[..], RecvFlags::empty())?;
            if length == 0 {
                return Ok(());
            }
            // What the wire cannot carry is of no interest: one frame is a leak.
            let _ = buffer
                .get(HEADER.len()..length)
                .map(|frame| wire.send(frame));
        }
        if from_wire {
            let (head, frame) = buffer.split_at_mut(HEADER.len());
            head.copy_from_slice(&HEADER);
            let length = rustix::io::read(wire, frame)?;
            let _ = send(link, &buffer[..HEADER.len() + length], SendFlags::DONTWAIT);
        }
    }
}
