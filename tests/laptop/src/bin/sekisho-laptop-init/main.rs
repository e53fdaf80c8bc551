//! PID 1 of the test bed's two machines: the QEMU laptop and the work OS in it.
//!
//! As the laptop it puts the build machine's own tree under itself and serves commands; as the
//! work OS it brings up the network by DHCP, starts the guest agent and serves commands on the
//! test-only port. One static program, no shell scripts on the way: under emulation each process
//! start costs tens of milliseconds.

mod laptop;
mod machine;
mod ports;
mod power;
mod services;
mod work;

use std::fs::OpenOptions;
use std::process::ExitCode;

use rustix::process::{Pid, Signal};
use sekisho_laptop::config::{Config, PATH, Role};
use sekisho_laptop::exec;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("serve"), Some(port)) => serve(&port),
        _ if rustix::process::getpid().is_init() => init(),
        _ => Err("this is the init of the test machines; `serve PORT` serves commands".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whatever ends a step: shown on the console, then PID 1 ends and the kernel panics, which ends
/// the machine (`panic=-1`).
type Failure = Box<dyn std::error::Error>;

fn init() -> Result<(), Failure> {
    let born = uptime();
    machine::mount_kernel_filesystems()?;
    let config: Config = serde_json::from_slice(&std::fs::read(PATH)?)?;
    say(&format!("init began at {born:.3} s"));
    machine::load_modules(&config.modules)?;
    let beside = machine::load_modules_beside(config.modules_beside);
    match config.role {
        Role::Laptop {
            modules_dir,
            at_boot,
        } => laptop::run(&modules_dir, at_boot.as_ref(), beside),
        Role::Work => work::run(beside),
    }
}

fn serve(port: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().read(true).write(true).open(port)?;
    exec::serve(file, &|| {
        // As `poweroff` of busybox does it; PID 1 is ours and listens.
        let _ = rustix::process::kill_process(Pid::INIT, Signal::USR2);
    })?;
    Ok(())
}

/// Prints one line on the console.
fn say(text: &str) {
    println!("[{:9.3}] sekisho-init: {text}", uptime());
}

/// Seconds since the kernel started.
fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    #[allow(clippy::cast_precision_loss)] // Only shown.
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    seconds
}
