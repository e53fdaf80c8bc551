//! The kernel's tables for the wire of a proven port: which way packets of a device go, and who
//! answers ARP for the address behind it. Layout: `linux/nexthop.h`, `linux/fib_rules.h`,
//! `linux/neighbour.h`, `linux/if_link.h`.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::{
    NetlinkError, Routing, failed,
    route::{
        AF_INET, NEW_LINK, NEW_ROUTE, NEXT_HOP_ON_LINK, PROTOCOL_STATIC, ROUTE_DESTINATION,
        ROUTE_DEVICE, ROUTE_PRIORITY, SCOPE_LINK, SCOPE_UNIVERSE, TABLE_MAIN, TYPE_UNICAST,
    },
    wire::{CREATE, REPLACE, Writer},
};

/// `RTM_*`.
const DELETE_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const NEW_NEXT_HOP: u16 = 104;
const DELETE_NEXT_HOP: u16 = 105;
/// `NLM_F_EXCL`.
const EXCLUSIVE: u16 = 0x200;

/// `IFLA_MTU`, `IFLA_AF_SPEC`, `IFLA_INET_CONF`, `IPV4_DEVCONF_FORWARDING`,
/// `IPV4_DEVCONF_SRC_VMARK`.
const LINK_MTU: u16 = 4;
const LINK_FAMILIES: u16 = 26;
const LINK_INET_CONF: u16 = 1;
const CONF_FORWARDING: u16 = 1;
const CONF_SOURCE_MARK: u16 = 24;
/// `FRA_IIFNAME`, `FRA_PRIORITY`, `FRA_FWMARK`, and `FR_ACT_TO_TBL`.
const RULE_FROM_DEVICE: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TO_TABLE: u8 = 1;
/// `NHA_ID`, `NHA_OIF`, `NHA_GATEWAY`, and `RTA_NH_ID`.
const HOP_ID: u16 = 1;
const HOP_DEVICE: u16 = 5;
const HOP_GATEWAY: u16 = 6;
const ROUTE_HOP: u16 = 30;
/// `NDA_DST`, `NTF_PROXY`.
const NEIGHBOUR_ADDRESS: u16 = 1;
const PROXY: u8 = 0x08;

/// `RTN_BLACKHOLE`.
const TYPE_BLACKHOLE: u8 = 6;

/// The table that only the wire's device looks into, and the one nexthop object in it.
const TABLE: u8 = 51;
const HOP: u32 = 51;
/// Before the main table (32766), after the machine's own addresses (0).
const PRIORITY: u32 = 100;

/// The mark of what comes for the work OS, or from it, where its address is the port's own; the table
/// that only such packets look into, and the nexthop object of the LAN itself.
pub(crate) const MARK: u32 = 52;
const MEMBER_TABLE: u8 = 52;
const LAN_HOP: u32 = 52;
/// Marked packets look into their table before the machine's own addresses, which therefore move
/// down from 0.
const MARK_PRIORITY: u32 = 10;
const LOCAL_PRIORITY: u32 = 20;
const TABLE_LOCAL: u8 = 255;

/// A device that is joined to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steer {
    /// The device's interface index.
    pub(crate) device: u32,
    /// The port's.
    pub(crate) port: u32,
    /// The port's next hop, to which everything goes.
    pub(crate) router: Ipv4Addr,
    /// The address behind the device, for which the port answers ARP.
    pub(crate) address: Ipv4Addr,
    /// Where the address is the port's own as well: the LAN's prefix.
    pub(crate) lan: Option<u8>,
}

impl Routing {
    /// Sets the longest packet of a link, in bytes.
    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u16) -> Result<(), NetlinkError> {
        self.ask(NEW_LINK, 0, |m| {
            write_link(m, index);
            m.attribute(LINK_MTU, &u32::from(mtu).to_ne_bytes());
        })
        .map_err(failed("set the MTU of the wire's device"))
    }

    /// Lets what comes from this device look into the table of the wire, and nowhere else. For the life
    /// of the namespace: while there is no wire everything ends in the table, before the machine's own
    /// routes, of which those to a port's router come back with its carrier.
    pub(crate) fn steer_device(&mut self, device: &str) -> Result<(), NetlinkError> {
        self.ask(NEW_ROUTE, CREATE | REPLACE, |m| {
            write_route(m, 0, TABLE, (SCOPE_UNIVERSE, TYPE_BLACKHOLE));
            m.attribute(ROUTE_PRIORITY, &u32::MAX.to_ne_bytes());
        })
        .map_err(failed("end what has no wire"))?;
        let name = [device.as_bytes(), &[0]].concat();
        self.rule(TABLE, PRIORITY, |m| m.attribute(RULE_FROM_DEVICE, &name))
    }

    /// Lets what is marked as the work OS's look into its table, whose addresses the port has, too.
    /// For the life of the namespace, as above.
    pub(crate) fn steer_marked(&mut self) -> Result<(), NetlinkError> {
        self.rule(MEMBER_TABLE, MARK_PRIORITY, |m| {
            m.attribute(RULE_MARK, &MARK.to_ne_bytes());
        })?;
        self.rule(TABLE_LOCAL, LOCAL_PRIORITY, |_| {})?;
        let answer = self.ask(DELETE_RULE, 0, |m| {
            write_rule(m, TABLE_LOCAL);
            m.attribute(RULE_PRIORITY, &0u32.to_ne_bytes());
        });
        match answer {
            // An earlier process of ours.
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(failed("move the rule for the machine's own addresses")),
        }
    }

    fn rule(
        &mut self,
        table: u8,
        priority: u32,
        which: impl FnOnce(&mut Writer),
    ) -> Result<(), NetlinkError> {
        let answer = self.ask(NEW_RULE, CREATE | EXCLUSIVE, |m| {
            write_rule(m, table);
            m.attribute(RULE_PRIORITY, &priority.to_ne_bytes());
            which(m);
        });
        match answer {
            // An earlier process of ours.
            Err(Errno::EXIST) => Ok(()),
            other => other.map_err(failed("set the rule for the wire's table")),
        }
    }

    /// Sends what comes from the device to the port's next hop, and what comes from the port for the
    /// address to the device.
    ///
    /// The way out is a nexthop object: when the port loses its carrier, even for a moment, the
    /// kernel removes it with every route over it (`nexthop_flush_dev`), before anybody is told.
    pub(crate) fn steer(&mut self, steer: &Steer) -> Result<(), NetlinkError> {
        for index in [steer.device, steer.port] {
            self.configure(index, CONF_FORWARDING, true)?;
        }
        self.ask(NEW_NEXT_HOP, CREATE | REPLACE, |m| {
            m.raw(&[AF_INET, 0, PROTOCOL_STATIC, 0]);
            m.raw(&NEXT_HOP_ON_LINK.to_ne_bytes());
            m.attribute(HOP_ID, &HOP.to_ne_bytes());
            m.attribute(HOP_DEVICE, &steer.port.to_ne_bytes());
            m.attribute(HOP_GATEWAY, &steer.router.octets());
        })
        .map_err(failed("set the next hop of the wire"))?;
        self.ask(NEW_ROUTE, CREATE | REPLACE, |m| {
            write_route(m, 0, TABLE, (SCOPE_UNIVERSE, TYPE_UNICAST));
            m.attribute(ROUTE_HOP, &HOP.to_ne_bytes());
        })
        .map_err(failed("set the route of the wire"))?;
        if let Some(prefix) = steer.lan {
            return self.join_lan(steer, prefix);
        }
        self.ask(NEW_ROUTE, CREATE | REPLACE, |m| {
            write_inward(m, steer);
        })
        .map_err(failed("set the route to the wire"))?;
        self.ask(NEW_NEIGHBOUR, CREATE | REPLACE, |m| write_proxy(m, steer))
            .map_err(failed("answer ARP for the wire"))
    }

    /// The rest of it where the work OS is a member of the LAN: neighbours are reached by ARP for
    /// themselves, and marked packets for the address go to the device. What the device brings is
    /// marked as well, and the kernel asks for its source with that mark: it finds it there, and not
    /// among the machine's own addresses, from which nothing may come in.
    fn join_lan(&mut self, steer: &Steer, prefix: u8) -> Result<(), NetlinkError> {
        if prefix < 32 {
            self.ask(NEW_NEXT_HOP, CREATE | REPLACE, |m| {
                m.raw(&[AF_INET, 0, PROTOCOL_STATIC, 0]);
                m.raw(&0u32.to_ne_bytes());
                m.attribute(HOP_ID, &LAN_HOP.to_ne_bytes());
                m.attribute(HOP_DEVICE, &steer.port.to_ne_bytes());
            })
            .map_err(failed("set the way to the LAN's hosts"))?;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let net = Ipv4Addr::from(u32::from(steer.address) & mask);
            // Also among the machine's own: the kernel answers ARP to those only whom it could answer
            // in any other way. What it may say to them is the packet filter's.
            for table in [TABLE, TABLE_MAIN] {
                self.ask(NEW_ROUTE, CREATE | REPLACE, |m| {
                    write_route(m, prefix, table, (SCOPE_LINK, TYPE_UNICAST));
                    m.attribute(ROUTE_DESTINATION, &net.octets());
                    m.attribute(ROUTE_HOP, &LAN_HOP.to_ne_bytes());
                })
                .map_err(failed("set the route to the LAN's hosts"))?;
            }
        }
        self.configure(steer.device, CONF_SOURCE_MARK, true)?;
        self.ask(NEW_ROUTE, CREATE | REPLACE, |m| write_member(m, steer))
            .map_err(failed("set the route to the member of the LAN"))
    }

    /// Undoes [`Routing::steer`], whatever of it is there.
    pub(crate) fn unsteer(&mut self, steer: &Steer) -> Result<(), NetlinkError> {
        let answers = [
            self.ask(DELETE_NEXT_HOP, 0, |m| {
                m.raw(&[0; 8]);
                m.attribute(HOP_ID, &HOP.to_ne_bytes());
            }),
            self.ask(DELETE_ROUTE, 0, |m| write_inward(m, steer)),
            self.ask(DELETE_NEIGHBOUR, 0, |m| write_proxy(m, steer)),
            self.ask(DELETE_NEXT_HOP, 0, |m| {
                m.raw(&[0; 8]);
                m.attribute(HOP_ID, &LAN_HOP.to_ne_bytes());
            }),
            self.ask(DELETE_ROUTE, 0, |m| write_member(m, steer)),
        ];
        for answer in answers {
            match answer {
                // The kernel was faster, or the link is gone.
                Ok(()) | Err(Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO) => {}
                Err(errno) => return Err(failed("part the wire from its port")(errno)),
            }
        }
        for (index, what) in [
            (steer.device, CONF_FORWARDING),
            (steer.device, CONF_SOURCE_MARK),
            (steer.port, CONF_FORWARDING),
        ] {
            match self.configure(index, what, false) {
                Err(error) if error.errno() == Errno::NODEV => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether packets that a link receives may be forwarded at all (the packet filter says which), or
    /// whether their mark counts when their source is looked for.
    fn configure(&mut self, index: u32, what: u16, may: bool) -> Result<(), NetlinkError> {
        self.ask(NEW_LINK, 0, |m| {
            write_link(m, index);
            m.nested(LINK_FAMILIES, |families| {
                families.nested(AF_INET.into(), |inet| {
                    inet.nested(LINK_INET_CONF, |conf| {
                        conf.attribute(what, &u32::from(may).to_ne_bytes());
                    });
                });
            });
        })
        .map_err(failed("set whether a link forwards"))
    }
}

fn write_link(message: &mut Writer, index: u32) {
    message.raw(&[0; 4]);
    message.raw(&index.to_ne_bytes());
    message.raw(&[0; 8]);
}

fn write_route(message: &mut Writer, prefix: u8, table: u8, (scope, kind): (u8, u8)) {
    message.raw(&[AF_INET, prefix, 0, 0, table, PROTOCOL_STATIC, scope, kind]);
    message.raw(&0u32.to_ne_bytes());
}

fn write_rule(message: &mut Writer, table: u8) {
    message.raw(&[AF_INET, 0, 0, 0, table, 0, 0, RULE_TO_TABLE]);
    message.raw(&0u32.to_ne_bytes());
}

fn write_member(message: &mut Writer, steer: &Steer) {
    write_route(message, 32, MEMBER_TABLE, (SCOPE_LINK, TYPE_UNICAST));
    message.attribute(ROUTE_DESTINATION, &steer.address.octets());
    message.attribute(ROUTE_DEVICE, &steer.device.to_ne_bytes());
}

fn write_inward(message: &mut Writer, steer: &Steer) {
    write_route(message, 32, TABLE_MAIN, (SCOPE_LINK, TYPE_UNICAST));
    message.attribute(ROUTE_DESTINATION, &steer.address.octets());
    message.attribute(ROUTE_DEVICE, &steer.device.to_ne_bytes());
}

fn write_proxy(message: &mut Writer, steer: &Steer) {
    message.raw(&[AF_INET, 0, 0, 0]);
    message.raw(&steer.port.to_ne_bytes());
    message.raw(&[0, 0, PROXY, 0]);
    message.attribute(NEIGHBOUR_ADDRESS, &steer.address.octets());
}
