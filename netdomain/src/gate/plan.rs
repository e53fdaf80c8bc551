//! What the gate takes from policy besides admission, in the shape in which it is used.

use std::net::SocketAddrV4;
use std::time::Duration;

use sekisho_control::{Factor, Side, UplinkKind};
use sekisho_policy::{Direct, GatewayProtocol, Policy, SecondFactor, Verified};

use super::edge::Domains;
use super::situation::{GatewayId, Proof, Timings};

/// A gateway.
#[derive(Debug, Clone)]
pub struct GatewayPlan {
    /// Its name.
    pub name: String,
    /// Outside address.
    pub outside: SocketAddrV4,
    /// Address on the office LAN.
    pub lan: Option<SocketAddrV4>,
    /// What it speaks.
    pub tunnel: TunnelPlan,
    /// Uplinks that may carry its tunnel.
    pub uplinks: Vec<UplinkKind>,
    /// What it demands of the person at each connection.
    pub factor: Option<Factor>,
}

/// What a gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelPlan {
    /// `WireGuard`, with this public key.
    WireGuard([u8; 32]),
    /// What an engine speaks, which knows how the gateway proves itself.
    Engine(EngineKind),
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// openconnect.
    Tls,
    /// charon.
    Ike,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tls, Self::Ike];
}

impl TunnelPlan {
    /// How such a gateway proves itself.
    pub const fn proof(self) -> Proof {
        match self {
            Self::WireGuard(_) => Proof::Handshake,
            Self::Engine(_) => Proof::Engine,
        }
    }
}

/// How premises are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeaconPlan {
    /// SHA-256 of the beacon's public key information.
    pub spki_sha256: [u8; 32],
    /// Longest time from request to answer.
    pub round_trip: Duration,
    /// Where it listens.
    pub address: SocketAddrV4,
}

/// The plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name and number of the policy.
    pub policy: (String, u64),
    /// Gateways in the order of policy; a [`GatewayId`] is a place in here.
    pub gateways: Vec<GatewayPlan>,
    /// The beacon, if there is one.
    pub beacon: Option<BeaconPlan>,
    /// Times.
    pub timings: Timings,
    /// How long a second factor is waited for.
    pub answer_within: Duration,
    /// Whether, and how, packets may go onto a proven wire without a tunnel.
    pub direct: Option<Direct>,
    /// Domains and their DNS servers.
    pub domains: Domains,
    /// Whether the work OS is told that it has a network while it has one.
    pub probes: bool,
    /// Rules of admission, built-in ones not counted.
    pub rules: usize,
}

/// Gateways that a gate serves; more are not needed and would only cost memory.
const MAX_GATEWAYS: usize = 8;
/// Rules of admission that are no flow: `default-deny` and `forbidden`.
const FIXED_RULES: usize = 2;

impl Plan {
    /// Takes what the gate needs, beside what the supervisor says.
    pub fn new(policy: &Verified<Policy>, healthy_after: Duration) -> Self {
        let gateways = policy.vpn.gateway.iter().take(MAX_GATEWAYS);
        Self {
            policy: (policy.policy.id.clone(), policy.policy.version),
            gateways: gateways
                .map(|gateway| GatewayPlan {
                    name: gateway.name.clone(),
                    outside: gateway.address,
                    lan: gateway.lan_address,
                    tunnel: match gateway.protocol {
                        GatewayProtocol::Wireguard { public_key } => {
                            TunnelPlan::WireGuard(public_key.0)
                        }
                        GatewayProtocol::Tls { .. } => TunnelPlan::Engine(EngineKind::Tls),
                        GatewayProtocol::Ikev2 { .. } => TunnelPlan::Engine(EngineKind::Ike),
                    },
                    uplinks: gateway.uplinks.clone(),
                    factor: gateway.second_factor.map(factor),
                })
                .collect(),
            beacon: policy.onprem.as_ref().map(|onprem| BeaconPlan {
                spki_sha256: onprem.beacon.spki_sha256.0,
                round_trip: onprem.beacon.round_trip,
                address: onprem.beacon.address,
            }),
            timings: Timings {
                up_within: policy.vpn.up_within,
                dead_after: policy.vpn.dead_after,
                retry_first: policy.vpn.retry.first,
                retry_max: policy.vpn.retry.max,
                recheck: policy
                    .onprem
                    .as_ref()
                    .map_or(Duration::from_secs(30), |onprem| onprem.recheck),
                prefer_first_after: policy.vpn.prefer_first_after,
                healthy_after,
            },
            answer_within: policy.vpn.answer_within,
            direct: policy.onprem.as_ref().and_then(|onprem| onprem.direct),
            domains: Domains::new(policy),
            probes: policy.ncsi.answer,
            rules: policy.flow.len() + FIXED_RULES,
        }
    }

    /// Gateways that demand a second factor.
    pub fn factors(&self) -> impl Iterator<Item = (GatewayId, Factor)> {
        (0u8..).zip(&self.gateways).filter_map(|(index, gateway)| {
            let factor = gateway.factor?;
            Some((GatewayId(index), factor))
        })
    }

    /// The gateways whose engine can take its tunnel from path to path.
    pub fn roaming(&self) -> impl Iterator<Item = GatewayId> {
        let ids = self.gateways.iter().zip(0..);
        ids.filter(|(gateway, _)| gateway.tunnel == TunnelPlan::Engine(EngineKind::Ike))
            .map(|(_, id)| GatewayId(id))
    }

    /// The gateway that a path may lead to: its name, proof, side, peer and uplink must all be
    /// policy's.
    pub fn gateway(
        &self,
        name: &str,
        proof: Proof,
        side: Side,
        peer: SocketAddrV4,
        kind: UplinkKind,
    ) -> Option<GatewayId> {
        let index = self
            .gateways
            .iter()
            .position(|gateway| gateway.name == name)?;
        let gateway = &self.gateways[index];
        let address = match side {
            Side::Outside => Some(gateway.outside),
            Side::Lan => gateway.lan,
        };
        let right = address == Some(peer)
            && gateway.uplinks.contains(&kind)
            && gateway.tunnel.proof() == proof;
        right.then(|| GatewayId(u8::try_from(index).unwrap_or(u8::MAX)))
    }
}

const fn factor(factor: SecondFactor) -> Factor {
    match factor {
        SecondFactor::Otp => Factor::Otp,
        SecondFactor::Pin => Factor::Pin,
    }
}
