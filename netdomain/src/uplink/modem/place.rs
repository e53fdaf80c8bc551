//! Where the process lives: no network, and a root in which there is the bus's socket and nothing
//! else.
//!
//! It connects as its own user: what the bus and ModemManager's rules (polkit) let that user do is
//! all that a flaw here could do. As root it could ask systemd for anything.

use std::path::Path;

use sekisho_sandbox::{BARE, EVENTS, Filter, MESSAGES, Network, Sandbox};

use super::{ModemError, dbus::Bus};

/// The bus's socket in the new root.
const SOCKET: &str = "bus";

/// Closes the process in and connects to the bus; then no other socket can be made.
pub(super) fn close_in(bus: &Path, user: Option<u32>) -> Result<Bus, ModemError> {
    let filter = Filter::new("modem", &[BARE, EVENTS, MESSAGES])?;
    let mut sandbox = Sandbox::closed().network(Network::Empty).show(bus, SOCKET);
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    let enforced = sandbox.enter()?;
    tracing::debug!(?enforced, "closed in");
    let user = rustix::process::geteuid().as_raw();
    let bus = Bus::connect(&Path::new("/").join(SOCKET), user)?;
    filter.install()?;
    Ok(bus)
}
