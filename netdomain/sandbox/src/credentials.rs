//! User, group and capabilities.

use rustix::{
    io::Errno,
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, capabilities,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
        set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::sandbox::{SandboxError, step};

/// Which capabilities a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(CapabilitySet::empty());
    /// Tunnels, addresses and routes of its network namespace, without raw sockets: an `IPsec` engine.
    pub const TUNNELS: Self = Self(CapabilitySet::NET_ADMIN);
    /// Interfaces, addresses, routes and raw sockets of its network namespace: the uplink.
    pub const NETWORK: Self = Self(CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW));
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Becomes `user` and keeps exactly `keep`, so that nothing can be gained again: the bounding set is
/// empty, and uid 0 means nothing any more. A program that is started later has no capability, or
/// exactly `keep` where `pass_on` says so.
pub(crate) fn drop_to(
    user: Option<User>,
    keep: Capabilities,
    pass_on: bool,
) -> Result<(), SandboxError> {
    let keep = keep.0;
    step(
        "clearing ambient capabilities",
        clear_ambient_capability_set(),
    )?;
    let inheritable = if pass_on {
        keep
    } else {
        CapabilitySet::empty()
    };
    if pass_on {
        // While the bounding set still lets it.
        let now = step("reading the capabilities", capabilities(None))?;
        step(
            "making capabilities inheritable",
            set_capabilities(None, CapabilitySets { inheritable, ..now }),
        )?;
    }
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            refused => step("shrinking the bounding set", refused)?,
        }
    }
    let mut locked = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    if !pass_on {
        locked |= CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE;
    }
    step(
        "locking the secure bits",
        set_capabilities_secure_bits(locked),
    )?;

    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        step("keeping capabilities", set_keep_capabilities(true))?;
        step("leaving all groups", set_thread_groups(&[]))?;
        step("changing the group", set_thread_res_gid(gid, gid, gid))?;
        step("changing the user", set_thread_res_uid(uid, uid, uid))?;
        step("keeping capabilities", set_keep_capabilities(false))?;
    }
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable,
    };
    step("dropping capabilities", set_capabilities(None, sets))?;
    if pass_on {
        for one in keep.iter() {
            step(
                "passing a capability on",
                configure_capability_in_ambient_set(one, true),
            )?;
        }
    }
    Ok(())
}
