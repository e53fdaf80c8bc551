//! What of the policy the uplink needs: where it may connect to, and over which kinds of uplink.
//!
//! The only file of the uplink that knows the policy's types.

use std::net::{Ipv4Addr, SocketAddrV4};

use sekisho_control::UplinkKind;
use sekisho_policy::{
    Direct, Dot1x, GatewayProtocol, OverQuota, Policy, Quota, Rate, SsidGlob, Verified,
    WifiSecurity,
};

use super::Wish;

/// Every address that the uplink may ever talk to, and over what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// The VPN gateways, in the order of the policy.
    pub gateways: Vec<Gateway>,
    /// The premises beacon, where the policy knows an office.
    pub beacon: Option<Beacon>,
    /// Kinds of uplink that may be used at all.
    pub uplinks: Vec<Uplink>,
    /// Which Wi-Fi networks may be joined, where the policy knows Wi-Fi.
    pub wifi: Option<Wifi>,
    /// What the SIM must be, where the policy says anything of that: then it is used only as
    /// ModemManager connects it.
    pub mobile: Option<Wish>,
    /// Whether, and how, the work OS's packets may go over a proven port without a tunnel.
    pub direct: Option<Direct>,
    /// Whether a magic packet may wake the laptop over a proven port.
    pub wake_on_lan: bool,
}

/// What a Wi-Fi network must and must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Protection; never empty.
    pub security: Vec<WifiSecurity>,
    /// Names that are never joined.
    pub denied: Vec<SsidGlob>,
    /// Names of radios; empty: any.
    pub interfaces: Vec<String>,
}

/// One VPN gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its name in the policy.
    pub name: String,
    /// What carries its tunnel.
    pub transport: Transport,
    /// Its address on the internet side.
    pub outside: SocketAddrV4,
    /// Its address on the office LAN.
    pub lan: Option<SocketAddrV4>,
    /// Kinds of uplink over which it may be reached.
    pub kinds: Vec<UplinkKind>,
}

/// What a gateway's tunnel travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
    /// Datagrams of an engine's, by a socket for each attempt.
    Esp,
}

/// The premises beacon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Where it listens on the office LAN.
    pub address: SocketAddrV4,
    /// Kinds of uplink over which it may prove anything.
    pub kinds: Vec<UplinkKind>,
    /// What a port must have agreed on by 802.1X before it is asked.
    pub dot1x: Option<Dot1x>,
}

/// A kind of uplink, as the policy ranks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The kind.
    pub kind: UplinkKind,
    /// Lower is preferred.
    pub rank: u32,
    /// Interface names that this entry is about; empty: all of the kind.
    pub interfaces: Vec<String>,
    /// How much may pass in a month.
    pub quota: Option<Quota>,
}

/// The rank of a path tells the policy's order first and the order of the ports' names second:
/// `policy rank * RANK_STEP + place of the port among all ports`. More ports than this on one
/// laptop share the last place.
const RANK_STEP: u32 = 256;

/// Whether a name is one that modems' interfaces are given: `wwan0` by the kernel, `wwp0s20f0u6` by
/// udev (systemd.net-naming-scheme(7)). Nobody on a network has a say in it.
pub(super) fn is_modems(name: &str) -> bool {
    name.starts_with("ww")
}

impl From<&Verified<Policy>> for Endpoints {
    fn from(policy: &Verified<Policy>) -> Self {
        Self {
            gateways: policy
                .vpn
                .gateway
                .iter()
                .map(|gateway| Gateway {
                    name: gateway.name.clone(),
                    transport: match gateway.protocol {
                        GatewayProtocol::Wireguard { .. } => Transport::Udp,
                        GatewayProtocol::Tls { .. } => Transport::Tcp,
                        GatewayProtocol::Ikev2 { .. } => Transport::Esp,
                    },
                    outside: gateway.address,
                    lan: gateway.lan_address,
                    kinds: gateway.uplinks.clone(),
                })
                .collect(),
            beacon: policy.onprem.as_ref().map(|onprem| Beacon {
                address: onprem.beacon.address,
                kinds: onprem.uplinks.clone(),
                dot1x: onprem.dot1x.clone(),
            }),
            direct: policy.onprem.as_ref().and_then(|onprem| onprem.direct),
            wake_on_lan: policy
                .onprem
                .as_ref()
                .is_some_and(|onprem| onprem.wake_on_lan),
            uplinks: policy
                .uplink
                .iter()
                .map(|uplink| Uplink {
                    kind: uplink.kind,
                    rank: uplink.rank,
                    interfaces: uplink.interfaces.clone(),
                    quota: uplink.quota(),
                })
                .collect(),
            wifi: policy
                .uplink
                .iter()
                .find(|uplink| uplink.kind == UplinkKind::Wifi)
                .map(|uplink| Wifi {
                    security: uplink.security.clone(),
                    denied: uplink.deny_ssids.clone(),
                    interfaces: uplink.interfaces.clone(),
                }),
            mobile: policy
                .uplink
                .iter()
                .filter(|uplink| uplink.kind == UplinkKind::Sim)
                .find(|uplink| uplink.apn.is_some() || !uplink.plmn.is_empty())
                .map(|uplink| Wish {
                    apn: uplink.apn.as_ref().map(|apn| apn.as_str().to_owned()),
                    networks: uplink.plmn.iter().map(ToString::to_string).collect(),
                    roaming: uplink.roaming,
                    interfaces: uplink.interfaces.clone(),
                }),
        }
    }
}

impl Endpoints {
    /// The kind of a port. A radio is Wi-Fi, whatever the policy calls it: over a cable the office
    /// can be proven. Else an entry that names the port decides; and a modem's interface, which its
    /// name tells, is the SIM's where the policy names none.
    pub fn kind(&self, name: &str, radio: bool) -> UplinkKind {
        if radio {
            return UplinkKind::Wifi;
        }
        self.uplinks
            .iter()
            .find(|uplink| uplink.interfaces.iter().any(|i| i == name))
            .map_or_else(|| self.unnamed(name), |uplink| uplink.kind)
    }

    fn unnamed(&self, name: &str) -> UplinkKind {
        let sim = |uplink: &Uplink| uplink.kind == UplinkKind::Sim && uplink.interfaces.is_empty();
        if is_modems(name) && self.uplinks.iter().any(sim) {
            UplinkKind::Sim
        } else {
            UplinkKind::Wired
        }
    }

    /// The monthly quota of the SIM.
    pub fn quota(&self) -> Option<&Quota> {
        self.uplinks
            .iter()
            .filter(|uplink| uplink.kind == UplinkKind::Sim)
            .find_map(|uplink| uplink.quota.as_ref())
    }

    /// How fast the SIM is once its quota is spent.
    pub fn slow(&self) -> Option<Rate> {
        match self.quota()?.over {
            OverQuota::Throttle { rate } => Some(rate),
            OverQuota::Refuse => None,
        }
    }

    /// The rank of a port, or `None` where the policy allows no such uplink. `order` is the place
    /// of the port's name among the names of all ports.
    pub fn rank(&self, name: &str, kind: UplinkKind, order: usize) -> Option<u32> {
        let entry = self
            .uplinks
            .iter()
            .filter(|uplink| uplink.kind == kind)
            .filter(|uplink| {
                uplink.interfaces.is_empty() || uplink.interfaces.iter().any(|i| i == name)
            })
            .map(|uplink| uplink.rank)
            .min()?;
        let order = u32::try_from(order).unwrap_or(u32::MAX).min(RANK_STEP - 1);
        Some(entry.saturating_mul(RANK_STEP).saturating_add(order))
    }

    /// Every address that a port of this kind needs a route to.
    pub fn destinations(&self, kind: UplinkKind) -> Vec<Ipv4Addr> {
        let gateways = self
            .gateways
            .iter()
            .filter(|gateway| gateway.kinds.contains(&kind))
            .flat_map(|gateway| [Some(gateway.outside), gateway.lan]);
        let beacon = self.beacon_for(kind).map(|beacon| beacon.address);
        let beacon = beacon.or_else(|| self.beacon_as_door(kind));
        let mut addresses: Vec<Ipv4Addr> = gateways
            .chain([beacon])
            .flatten()
            .map(|address| *address.ip())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The beacon, if a port of this kind may prove the premises.
    pub fn beacon_for(&self, kind: UplinkKind) -> Option<&Beacon> {
        self.beacon
            .as_ref()
            .filter(|beacon| beacon.kinds.contains(&kind))
    }

    /// Where it is asked who answers over a port of this kind when no gateway does: at a gateway that takes
    /// connections over it, whose address and port the tunnel itself goes to; else at the beacon's.
    pub fn door_for(&self, kind: UplinkKind) -> Option<SocketAddrV4> {
        let mut gateways = self.gateways.iter().filter(|g| g.kinds.contains(&kind));
        gateways
            .find(|gateway| gateway.transport == Transport::Tcp)
            .map(|gateway| gateway.outside)
            .or_else(|| self.beacon_as_door(kind))
    }

    /// The beacon's address, where it is that door: over this kind nothing is proven by it, and no gateway
    /// takes connections.
    pub fn beacon_as_door(&self, kind: UplinkKind) -> Option<SocketAddrV4> {
        let mut gateways = self.gateways.iter().filter(|g| g.kinds.contains(&kind));
        let first = gateways.next()?;
        let connects = |gateway: &Gateway| gateway.transport == Transport::Tcp;
        if self.beacon_for(kind).is_some() || connects(first) || gateways.any(connects) {
            return None;
        }
        self.beacon.as_ref().map(|beacon| beacon.address)
    }

    /// What a port of this kind must have agreed on before it may prove the premises.
    pub fn dot1x_for(&self, kind: UplinkKind) -> Option<&Dot1x> {
        self.beacon_for(kind)?.dot1x.as_ref()
    }

    /// Whether an address is one of ours to connect to; a lease may not claim it.
    pub fn names(&self, address: Ipv4Addr) -> bool {
        self.gateways
            .iter()
            .flat_map(|gateway| [Some(gateway.outside), gateway.lan])
            .chain([self.beacon.as_ref().map(|beacon| beacon.address)])
            .flatten()
            .any(|known| *known.ip() == address)
    }
}

/// The lab's addresses, for tests of this crate.
#[cfg(test)]
pub(crate) fn sample() -> Endpoints {
    Endpoints {
        gateways: vec![Gateway {
            name: "honcho-1".into(),
            transport: Transport::Udp,
            outside: "203.0.113.10:51820".parse().unwrap(),
            lan: Some("10.12.0.2:51820".parse().unwrap()),
            kinds: vec![UplinkKind::Wired, UplinkKind::Wifi],
        }],
        beacon: Some(Beacon {
            address: "10.12.0.200:8443".parse().unwrap(),
            kinds: vec![UplinkKind::Wired],
            dot1x: None,
        }),
        uplinks: vec![Uplink {
            kind: UplinkKind::Wired,
            rank: 1,
            interfaces: Vec::new(),
            quota: None,
        }],
        wifi: None,
        mobile: None,
        direct: None,
        wake_on_lan: false,
    }
}

/// A SIM with a quota, as the policy's example has it.
#[cfg(test)]
pub(crate) fn sample_sim() -> Uplink {
    Uplink {
        kind: UplinkKind::Sim,
        rank: 3,
        interfaces: vec!["wwan9".into()],
        quota: Some(Quota {
            monthly: 5 << 30,
            resets: 1,
            warn_percent: vec![80, 95],
            over: OverQuota::Throttle {
                rate: "256kbit/s".parse().expect("a rate"),
            },
        }),
    }
}

#[cfg(test)]
mod tests;
