//! Tables of which some values decide about others, as they are written, and what they come to. What has
//! no meaning ends here.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{
    Beacon, Direct, Direction, Flow, Gateway, GatewayProtocol, IkeAuth, Onprem, OverQuota, Peers,
    Revocation, SecondFactor,
};
use crate::dot1x::{self, Dot1x};
use crate::quantity::Rate;
use crate::value::{self, Pin, PortRange, PublicKey, RemoteId};
use crate::{Place, UplinkKind};

/// `[[flow]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowTable {
    id: String,
    to: Option<Peers>,
    from: Option<Peers>,
    #[serde(default)]
    tcp: Vec<PortRange>,
    #[serde(default)]
    udp: Vec<PortRange>,
    #[serde(default)]
    icmp: bool,
    #[serde(default = "value::every_place")]
    places: Vec<Place>,
    #[serde(default = "value::every_uplink")]
    uplinks: Vec<UplinkKind>,
    bandwidth: Option<String>,
}

impl<'de> Deserialize<'de> for Flow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = FlowTable::deserialize(deserializer)?;
        let (direction, peers) = match (table.to, table.from) {
            (Some(peers), None) => (Direction::Out, peers),
            (None, Some(peers)) => (Direction::In, peers),
            _ => {
                return Err(serde::de::Error::custom(format_args!(
                    "flow `{}` needs one of `to` and `from`, and not both",
                    table.id
                )));
            }
        };
        Ok(Self {
            id: table.id,
            direction,
            peers,
            tcp: table.tcp,
            udp: table.udp,
            icmp: table.icmp,
            places: table.places,
            uplinks: table.uplinks,
            bandwidth: table.bandwidth,
        })
    }
}

/// `[onprem]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnpremTable {
    uplinks: Vec<UplinkKind>,
    dot1x: Option<dot1x::Method>,
    radius: Option<dot1x::Radius>,
    direct: Option<Direct>,
    #[serde(default)]
    wake_on_lan: bool,
    beacon: Beacon,
    #[serde(
        default = "value::default_recheck",
        deserialize_with = "value::duration"
    )]
    recheck: Duration,
}

impl<'de> Deserialize<'de> for Onprem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = OnpremTable::deserialize(deserializer)?;
        Ok(Self {
            uplinks: table.uplinks,
            dot1x: Dot1x::of(table.dot1x, table.radius).map_err(serde::de::Error::custom)?,
            direct: table.direct,
            wake_on_lan: table.wake_on_lan,
            beacon: table.beacon,
            recheck: table.recheck,
        })
    }
}

/// `over_quota` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverQuotaTable {
    action: OverQuotaAction,
    rate: Option<Rate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OverQuotaAction {
    Throttle,
    Refuse,
}

impl<'de> Deserialize<'de> for OverQuota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = OverQuotaTable::deserialize(deserializer)?;
        match (table.action, table.rate) {
            (OverQuotaAction::Throttle, Some(rate)) => Ok(Self::Throttle { rate }),
            (OverQuotaAction::Refuse, None) => Ok(Self::Refuse),
            (OverQuotaAction::Throttle, None) => Err(serde::de::Error::custom(
                "\"throttle\" needs a `rate` such as \"256kbit/s\"",
            )),
            (OverQuotaAction::Refuse, Some(_)) => {
                Err(serde::de::Error::custom("\"refuse\" has no `rate`"))
            }
        }
    }
}

/// `kind` of a gateway.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum GatewayKind {
    Wireguard,
    Tls,
    Ikev2,
}

/// UDP port of IKE and ESP where NATs are on the way (RFC 3948); the only one that is spoken to.
pub(crate) const NAT_T: u16 = 4500;

/// `[[vpn.gateway]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayTable {
    name: String,
    kind: GatewayKind,
    #[serde(deserialize_with = "value::gateway_address")]
    address: String,
    #[serde(default, deserialize_with = "value::optional_socket_address")]
    lan_address: Option<SocketAddrV4>,
    public_key: Option<PublicKey>,
    spki_sha256: Option<Pin>,
    remote_id: Option<RemoteId>,
    ca_sha256: Option<Pin>,
    auth: Option<IkeAuth>,
    revocation: Option<Revocation>,
    uplinks: Vec<UplinkKind>,
    second_factor: Option<SecondFactor>,
}

impl<'de> Deserialize<'de> for Gateway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = GatewayTable::deserialize(deserializer)?;
        let only_ike = table.auth.is_some() || table.revocation.is_some();
        if only_ike && !matches!(table.kind, GatewayKind::Ikev2) {
            return Err(serde::de::Error::custom(format_args!(
                "gateway `{}` is not of kind `ikev2`: it has neither `auth` nor `revocation`",
                table.name
            )));
        }
        let proof = (
            table.public_key,
            table.spki_sha256,
            table.remote_id,
            table.ca_sha256,
        );
        let protocol = match (table.kind, proof) {
            (GatewayKind::Wireguard, (Some(public_key), None, None, None)) => {
                GatewayProtocol::Wireguard { public_key }
            }
            (GatewayKind::Tls, (None, Some(spki_sha256), None, None)) => {
                GatewayProtocol::Tls { spki_sha256 }
            }
            (GatewayKind::Ikev2, (None, None, Some(remote_id), Some(ca_sha256))) => {
                GatewayProtocol::Ikev2 {
                    remote_id,
                    ca_sha256,
                    auth: table.auth.unwrap_or_default(),
                    revocation: table.revocation.unwrap_or_default(),
                }
            }
            _ => {
                return Err(serde::de::Error::custom(format_args!(
                    "gateway `{}` needs `public_key` if it is of kind `wireguard`, `spki_sha256` \
                     if it is of kind `tls`, `remote_id` and `ca_sha256` if it is of kind `ikev2`, \
                     and none of the others",
                    table.name
                )));
            }
        };
        let address = match &protocol {
            GatewayProtocol::Ikev2 { .. } => table
                .address
                .parse()
                .map(|address| SocketAddrV4::new(address, NAT_T))
                .map_err(|_| {
                    serde::de::Error::custom(format_args!(
                        "`{}` is not an IPv4 address such as \"203.0.113.10\": a gateway of kind \
                         `ikev2` has no port, it is always 4500",
                        table.address
                    ))
                })?,
            _ => value::parse_socket_address(&table.address)?,
        };
        Ok(Self {
            name: table.name,
            protocol,
            address,
            lan_address: table.lan_address,
            uplinks: table.uplinks,
            second_factor: table.second_factor,
        })
    }
}
