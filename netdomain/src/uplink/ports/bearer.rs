//! The SIM's ports, where policy says what the SIM must be: one has an address only while the
//! process that asks ModemManager vouches for its bearer.

use sekisho_control::{Bearer, BearerAddress, Report, UplinkKind};

use super::{Action, Lease, Link, Ports, State};

/// The longest packet of a tunnel, in bytes: the usual inner MTU of 1,420, and what `WireGuard`, UDP
/// and IPv4 add. A bearer that says that it carries less is used all the same, and told of: whether it
/// does carry more, only packets show. Where it does not, the inner MTU has to be less, which is the
/// device file's. Setting the link's own would have the kernel drop what is too long, both ways.
const LONGEST: u16 = 1480;

impl Ports {
    /// Whether a link can be a port of this kind at all. Without frames there is no DHCP of ours,
    /// so such a link is a SIM's whose bearer says its address, or nobody's.
    pub(super) fn carries(&self, link: &Link, kind: UplinkKind) -> bool {
        link.ethernet || (kind == UplinkKind::Sim && self.endpoints.mobile.is_some())
    }

    /// There is another bearer, or none.
    pub(super) fn on_bearer(&mut self, bearer: Option<Bearer>, actions: &mut Vec<Action>) {
        if self.endpoints.mobile.is_none() || self.bearer == bearer {
            return;
        }
        self.bearer = bearer;
        let sims: Vec<(u32, bool)> = self
            .by_index
            .iter()
            .filter(|(_, port)| port.kind == UplinkKind::Sim)
            .map(|(index, port)| (*index, port.carrier))
            .collect();
        for (index, carrier) in sims {
            self.darken(index, actions);
            if carrier && !self.asleep {
                self.light(index, actions);
            }
        }
    }

    /// The SIM's link has a carrier: it is used if its bearer says so, as its bearer says.
    pub(super) fn light_bearer(&mut self, index: u32, actions: &mut Vec<Action>) {
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let bearer = self.bearer.as_ref();
        let Some(bearer) = bearer.filter(|bearer| bearer.interface == port.name) else {
            return;
        };
        if !matches!(port.state, State::Dark) {
            return;
        }
        let lease = match bearer.address {
            BearerAddress::Dhcp if port.ethernet => None,
            BearerAddress::Dhcp => Some(Err("DHCP without frames")),
            BearerAddress::Static {
                address,
                prefix,
                router,
            } => {
                let claimed = |address| self.endpoints.names(address);
                let prefix = prefix.min(32);
                Some(Lease::checked(address, prefix, router, router, &claimed))
            }
        };
        if let Some(Err(why)) = lease {
            return actions.push(Action::Report(Report::Ignored {
                what: format!("the SIM's connection over {}: {why}", port.name),
            }));
        }
        port.state = State::Lit;
        actions.push(port.report("carrier"));
        if let Some(mtu) = bearer.mtu.filter(|mtu| *mtu < LONGEST) {
            actions.push(Action::Report(Report::Ignored {
                what: format!("MTU {mtu} of the SIM's connection, less than {LONGEST}"),
            }));
        }
        match lease {
            Some(Ok(lease)) => self.on_lease(index, lease, actions),
            _ => actions.push(Action::StartDhcp(index, port.mac)),
        }
    }
}

#[cfg(test)]
mod tests;
