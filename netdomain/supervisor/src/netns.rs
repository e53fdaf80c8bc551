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
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with,
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

/// The controller of generic netlink, its `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and
/// `CTRL_ATTR_FAMILY_NAME` (`linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NL80211_CMD_SET_WIPHY_NETNS`, `NL80211_ATTR_IFINDEX`, `NL80211_ATTR_NETNS_FD`
/// (`linux/nl80211.h`).
const MOVE_RADIO: u8 = 49;
const RADIO_INTERFACE: u16 = 3;
const RADIO_NAMESPACE: u16 = 219;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

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
    let moved = ask(None, &request(port, namespace.as_fd().as_raw_fd()));
    match moved {
        // A radio's interfaces go with the radio, and not by themselves.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            move_radio(port, namespace)
        }
        other => other.map(|_| ()),
    }
}

/// Moves the radio that an interface is of, with all its interfaces.
fn move_radio(port: &str, namespace: &OwnedFd) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(socket_of(None)?, port)?;
    let mut find = generic(CONTROLLER, GET_FAMILY);
    attribute(&mut find, FAMILY_NAME, b"nl80211\0");
    let answer = ask(Some(netlink::GENERIC), &finished(find))?;
    let family = answer
        .get(HEADER + GENERIC_HEADER..)
        .and_then(|attributes| value_of(attributes, FAMILY_ID))
        .ok_or_else(|| io::Error::other("an unknown answer of generic netlink"))?;
    let mut request = generic(family, MOVE_RADIO);
    attribute(&mut request, RADIO_INTERFACE, &index.to_ne_bytes());
    let namespace = namespace.as_fd().as_raw_fd();
    attribute(&mut request, RADIO_NAMESPACE, &namespace.to_ne_bytes());
    ask(Some(netlink::GENERIC), &finished(request)).map(|_| ())
}

/// The first attribute of a kind, as the 16 bits that it holds.
fn value_of(mut attributes: &[u8], wanted: u16) -> Option<u16> {
    let number = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 2)?;
        Some(u16::from_ne_bytes(field.try_into().ok()?))
    };
    loop {
        let length = usize::from(number(attributes, 0)?);
        if number(attributes, 2)? == wanted {
            return number(attributes, 4);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn socket_of(protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends a request and gives the first answer: an acknowledgement, or what was asked for.
fn ask(protocol: Option<rustix::net::Protocol>, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket_of(protocol)?;
    sendto(
        &socket,
        request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    // The kernel has answered by the time that `sendto` returns.
    let mut answer = [0; 8192];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    let answer = &answer[..length];
    let kind = answer
        .get(4..6)
        .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, code) {
        (Some(ERROR), Some(code)) if code != 0 => {
            Err(Errno::from_raw_os_error(code.saturating_neg()).into())
        }
        (Some(_), _) => Ok(answer.to_vec()),
        (None, _) => Err(io::Error::other("an unknown answer of netlink")),
    }
}

fn generic(family: u16, command: u8) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    message.extend([command, 1, 0, 0]);
    message
}

fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a few short attributes");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn request(port: &str, namespace: i32) -> Vec<u8> {
    let mut message = vec![0; HEADER + LINK_HEADER];
    message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    attribute(&mut message, NAME, &[port.as_bytes(), &[0]].concat());
    attribute(&mut message, NAMESPACE, &namespace.to_ne_bytes());
    finished(message)
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("interface names are short");
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}
