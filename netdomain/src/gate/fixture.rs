//! What the unit tests of the gate share: the papers of all tests, and a situation with a way out.

use std::time::Duration;

use sekisho_control::{PathId, Place, Side, UplinkKind};
use sekisho_policy::Admission;

pub(crate) use self::shared::packets::tcp;
pub(crate) use self::shared::packets_v6;
pub(crate) use self::shared::papers::{
    DNS as RESOLVER, GROUPWARE as SERVER, GROUPWARE_V6 as SERVER_V6, GUEST, GUEST_V6, Issue, MTU,
    WITH_IPV6,
};
use super::admit::{Gatekeeper, Terms};
use super::situation::{GatewayId, Situation};
use crate::moment::Moment;

#[path = "../../tests/fixture/mod.rs"]
mod shared;

pub(crate) fn gatekeeper() -> Gatekeeper {
    gatekeeper_under("")
}

/// With more in its policy.
pub(crate) fn gatekeeper_under(more: &'static str) -> Gatekeeper {
    let issue = Issue {
        more,
        ..Issue::default()
    };
    let terms = Terms {
        address: GUEST,
        v6: None,
        mtu: MTU,
        resolvers: vec![RESOLVER],
    };
    Gatekeeper::new(Admission::compile(&issue.verified()), terms, at(0))
}

/// With the networks of IPv6 that the tests name.
pub(crate) fn gatekeeper_v6() -> Gatekeeper {
    let issue = Issue {
        more: WITH_IPV6,
        ..Issue::default()
    };
    let terms = Terms {
        address: GUEST,
        v6: Some(GUEST_V6),
        mtu: MTU,
        resolvers: vec![RESOLVER],
    };
    Gatekeeper::new(Admission::compile(&issue.verified()), terms, at(0))
}

pub(crate) const fn tunnelled(place: Place) -> Situation {
    Situation::Tunnelled {
        gateway: GatewayId(0),
        path: PathId(1),
        kind: UplinkKind::Wired,
        side: Side::Outside,
        place,
    }
}

pub(crate) const fn at(seconds: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(seconds))
}
