//! The uplink's network namespace: made and held here, so that it outlives the uplink, and the
//! network cards in it with it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink, recv, sendto, socket_with,
    },
    thread::{UnshareFlags, unshare_unsafe},
};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `NLMSG_ERROR`, `IFLA_IFNAME`, `IFLA_NET_NS_FD`
/// (rtnetlink(7)).
const NEW_LINK: u16 = 16;
const REQUEST_ACK: u16 = 0x5;
const ERROR: u16 = 2;
const NAME: u16 = 3;
const NAMESPACE: u16 = 28;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;

/// Makes a namespace that nothing is in.
pub(crate) fn make() -> io::Result<OwnedFd> {
    let maker = thread::spawn(|| {
        #[allow(unsafe_code)]
        // SAFETY: NEWNET does not touch memory or descriptors; the namespace of this thread alone
        // changes, and it ends right after.
        unsafe {
            unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
    });
    maker.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that makes a namespace panicked",
        ))
    })
}

/// Opens a namespace that somebody else made.
pub(crate) fn named(name: &str) -> io::Result<OwnedFd> {
    Ok(File::open(Path::new("/run/netns").join(name))?.into())
}

/// Moves an interface from the supervisor's own namespace to another. The kernel takes it down on
/// the way.
pub(crate) fn move_port(port: &str, namespace: &OwnedFd) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let request = request(port, namespace.as_fd().as_raw_fd());
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    // The kernel has answered by the time that `sendto` returns.
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    let kind = answer[..length]
        .get(4..6)
        .map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let code = answer[..length]
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
        _ => Err(io::Error::other("an unknown answer of rtnetlink")),
    }
}

fn request(port: &str, namespace: i32) -> Vec<u8> {
    let mut message = vec![0; HEADER + LINK_HEADER];
    message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    attribute(&mut message, NAME, &[port.as_bytes(), &[0]].concat());
    attribute(&mut message, NAMESPACE, &namespace.to_ne_bytes());
    let length = u32::try_from(message.len()).expect("two short attributes");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("interface names are short");
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}
