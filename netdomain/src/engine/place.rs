//! Where an engine lives: a network of its own, and a root with little in it but programs.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use sekisho_sandbox::{Demand, Filter, Landlock, Network, Rule, Sandbox};

use super::EngineError;

/// Programs of the distribution, and how it finds their libraries.
const SHOWN: &[&str] = &["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"];

/// Makes a network namespace and lets `make` furnish it from inside; the namespace, and what `make`
/// made.
pub(crate) fn in_network<T: Send + 'static>(
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<(OwnedFd, T), EngineError> {
    // A thread of its own, which is gone before the sandbox is entered: only it changes networks.
    thread::spawn(move || {
        #[allow(unsafe_code)]
        // SAFETY: NEWNET does not touch memory or descriptors; the namespace of this thread alone
        // changes, and it ends right after.
        unsafe {
            unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        let furniture = make()?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), furniture))
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    .map_err(EngineError::Network)
}

/// Closes the keeper in, and with it every program that it will start: these system calls and no other,
/// the programs of the distribution, and what `furnish` adds for this engine.
pub(crate) fn close_in(
    namespace: OwnedFd,
    user: Option<u32>,
    (name, calls): (&'static str, &[&[Rule]]),
    furnish: impl FnOnce(Sandbox) -> Sandbox,
) -> Result<(), EngineError> {
    let filter = Filter::new(name, calls)?;
    let sandbox = Sandbox::closed()
        .network(Network::Join(namespace))
        .landlock(Demand::BestEffort)
        .show_null();
    let mut sandbox = furnish(sandbox);
    for path in SHOWN {
        if Path::new(path).symlink_metadata().is_ok() {
            sandbox = sandbox.show(path, path.trim_start_matches('/'));
        }
    }
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    let enforced = sandbox.enter()?;
    if enforced.landlock == Landlock::Absent {
        tracing::warn!("this kernel has no Landlock; the other walls stand alone");
    }
    Ok(filter.install()?)
}
