//! Whether a link is a radio's, as nl80211 knows it. A Wi-Fi card that passed for a cable could
//! prove the office; so it is the kernel that is asked, not the interface's name.

use rustix::{io::Errno, net::netlink::GENERIC};

use super::{
    NetlinkError, Requests, failed,
    wire::{ACK, REQUEST, Writer, attributes, read_u16},
};

/// The controller's own family, and its commands and attributes (`linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NL80211_CMD_GET_INTERFACE`, `NL80211_ATTR_IFINDEX` (`linux/nl80211.h`).
const GET_INTERFACE: u8 = 5;
const INTERFACE_INDEX: u16 = 3;
/// `struct genlmsghdr`: command, version, two bytes of nothing.
const HEADER: usize = 4;

/// Asks nl80211.
#[derive(Debug)]
pub(crate) struct Wireless {
    requests: Requests,
    /// Its number, once the kernel has it: drivers may come later than we.
    family: Option<u16>,
}

impl Wireless {
    /// Opens the netlink socket, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            requests: Requests::open(Some(GENERIC))?,
            family: None,
        })
    }

    /// Whether the link with this index is a radio's. One that is gone is not.
    pub(crate) fn has(&mut self, index: u32) -> Result<bool, NetlinkError> {
        let Some(family) = self.family()? else {
            return Ok(false);
        };
        let answer = self.ask(family, GET_INTERFACE, |m| {
            m.attribute(INTERFACE_INDEX, &index.to_ne_bytes());
        });
        match answer {
            Ok(()) => Ok(true),
            Err(Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(failed("ask whether a link is a radio's")(errno)),
        }
    }

    fn family(&mut self) -> Result<Option<u16>, NetlinkError> {
        if self.family.is_none() {
            // None while no driver of a radio is loaded.
            self.family = find_family(&mut self.requests, b"nl80211\0")?;
        }
        Ok(self.family)
    }

    fn ask(
        &mut self,
        family: u16,
        command: u8,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), Errno> {
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        request.message(family, REQUEST | ACK, sequence, |m| {
            m.raw(&[command, 1, 0, 0]);
            body(m);
        });
        self.requests.collect(&request, sequence, |_| {})
    }
}

/// The number of a family of generic netlink, by its name with the zero at its end. `None` where the
/// kernel has none of that name.
pub(super) fn find_family(
    requests: &mut Requests,
    name: &[u8],
) -> Result<Option<u16>, NetlinkError> {
    let sequence = requests.next_sequence();
    let mut request = Writer::default();
    request.message(CONTROLLER, REQUEST | ACK, sequence, |m| {
        m.raw(&[GET_FAMILY, 1, 0, 0]);
        m.attribute(FAMILY_NAME, name);
    });
    let mut id = None;
    let answer = requests.collect(&request, sequence, |message| {
        if message.kind == CONTROLLER
            && let Some(rest) = message.body.get(HEADER..)
        {
            id = attributes(rest)
                .find(|(kind, _)| *kind == FAMILY_ID)
                .and_then(|(_, value)| read_u16(value, 0));
        }
    });
    match answer {
        Ok(()) => Ok(id),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed("find a family of generic netlink")(errno)),
    }
}
