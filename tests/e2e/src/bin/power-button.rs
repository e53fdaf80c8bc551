//! Starts a VMM and is its supervisor: each line on standard input presses the power button. Ends as the
//! VMM ends.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd as _;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use rustix::io::FdFlags;
use sekisho_control::{Channel, Command as Order, Report};

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("power-button: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let program = words.next().ok_or("power-button VMM run ARGUMENTS")?;
    let (ours, theirs) = sekisho_control::pair()?;
    let supervisor: Channel<Order, Report> = Channel::from_fd(ours)?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    let control = format!("fd:{}", theirs.as_raw_fd());
    let mut vmm = Command::new(program);
    // Its serial port would take the lines that are for us.
    let mut vmm = vmm
        .args(words)
        .args(["--control", &control])
        .stdin(Stdio::null())
        .spawn()?;
    drop(theirs);
    thread::spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            if let Err(error) = supervisor.send(&Order::PowerButton, &[]) {
                eprintln!("power-button: {error}");
            }
        }
        // A supervisor that is gone switches off.
        thread::park();
    });
    let status = vmm.wait()?.code().ok_or("the VMM was killed")?;
    Ok(u8::try_from(status)?)
}
