//! Carriers: a port is used from the one that comes to the one that goes, a new network card or
//! authentication included, and the SIM's only while its quota lasts.

use sekisho_control::{UplinkKind, UplinkToGate};

use super::{Action, At, MAX_PORTS, Port, Ports, State};
use crate::uplink::{
    dot1x::Standing,
    netlink::{Link, PortSet},
    quota::Allowance,
};

impl Ports {
    pub(super) fn on_link(&mut self, link: &Link, actions: &mut Vec<Action>) {
        if self.is_stale(link) {
            return;
        }
        if self
            .by_index
            .get(&link.index)
            .is_some_and(|known| known.name != link.name || known.mac != link.mac)
        {
            // Sets and sockets know a port by its name, its leases by its MAC.
            self.darken(link.index, actions);
            self.by_index.remove(&link.index);
            self.guises.remove(&link.index);
        }
        if !self.by_index.contains_key(&link.index) {
            let kind = self.endpoints.kind(&link.name, link.radio);
            if !self.wanted(&link.name, kind) || !self.carries(link, kind) {
                return;
            }
            self.by_index.insert(
                link.index,
                Port {
                    name: link.name.clone(),
                    mac: link.mac,
                    ethernet: link.ethernet,
                    kind,
                    losses: link.losses,
                    carrier: false,
                    standing: None,
                    state: State::Dark,
                },
            );
            // Whatever an earlier process left there.
            actions.push(Action::Flush(link.index));
            if kind == UplinkKind::Wired && link.ethernet {
                actions.push(Action::Wake(link.index, false));
            }
            self.found(link, actions);
            if self.guises.contains_key(&link.index) {
                return;
            }
            if !link.up && !self.asleep {
                actions.push(Action::Up(link.index));
            }
        }

        let port = self
            .by_index
            .get_mut(&link.index)
            .expect("it is there by now");
        let carrier = link.carrier && (link.operational || port.kind != UplinkKind::Wifi);
        port.carrier = carrier;
        let lost = std::mem::replace(&mut port.losses, link.losses) != link.losses;
        if !carrier || lost {
            self.darken(link.index, actions);
            if self.strip(link.index, actions) {
                return;
            }
        }
        if carrier && !self.asleep {
            self.settle(link.index);
            self.light(link.index, actions);
        }
    }

    pub(super) fn wanted(&self, name: &str, kind: UplinkKind) -> bool {
        (self.only.is_empty() || self.only.iter().any(|only| only == name))
            && self.by_index.len() < MAX_PORTS
            && self.endpoints.rank(name, kind, 0).is_some()
    }

    /// The carrier is there.
    pub(super) fn light(&mut self, index: u32, actions: &mut Vec<Action>) {
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        if port.kind == UplinkKind::Sim && self.allowance == Allowance::Nothing {
            return;
        }
        if port.kind == UplinkKind::Sim && self.endpoints.mobile.is_some() {
            return self.light_bearer(index, actions);
        }
        if matches!(port.state, State::Dark) {
            port.state = State::Lit;
            actions.push(port.report("carrier"));
            // At the same time, and neither waits for the other: at home nobody answers.
            if self.endpoints.dot1x_for(port.kind).is_some() {
                port.standing = Some(Standing::Asking);
                let name = port.name.clone();
                actions.push(Action::BeginDot1x(At { index, name }));
            }
            actions.push(Action::StartDhcp(index, port.mac));
        }
    }

    /// The carrier is gone. The gate hears of it before anything else is done.
    pub(super) fn darken(&mut self, index: u32, actions: &mut Vec<Action>) {
        self.shut_wire(index, actions);
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let was = std::mem::replace(&mut port.state, State::Dark);
        if matches!(was, State::Dark) {
            return;
        }
        if self.gate {
            actions.push(Action::Tell(UplinkToGate::CarrierLost {
                port: port.name.clone(),
            }));
        }
        if let State::Leased { lease, paths, .. } = was {
            actions.extend(paths.iter().map(|path| Action::CutPath(path.id)));
            port.shut(index, &lease, actions);
        }
        actions.push(Action::StopDhcp(index));
        if port.standing.take().is_some() {
            actions.push(Action::EndDot1x(index));
        }
        actions.push(port.report("no-carrier"));
    }

    /// A port is authenticated, or is no longer. Behind it may now be another network (a switch
    /// moves it from one to the other), so it starts over as with another cable; and the gate hears
    /// that its proof has ended before anything else is done.
    pub(super) fn on_standing(
        &mut self,
        index: u32,
        standing: Standing,
        actions: &mut Vec<Action>,
    ) {
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let Some(was) = port.standing.replace(standing) else {
            // It lost its carrier meanwhile.
            port.standing = None;
            return;
        };
        let mac = port.mac;
        if (was == Standing::Authenticated) != (standing == Standing::Authenticated) {
            self.on_lease_lost(index, actions);
            actions.push(Action::StopDhcp(index));
            actions.push(Action::StartDhcp(index, mac));
        }
        if was != standing
            && let Some(port) = self.by_index.get(&index)
        {
            actions.push(port.report(standing.words()));
        }
        if (was, standing) == (Standing::Asking, Standing::Refused) {
            self.refused(index, actions);
        }
    }

    /// The quota of the SIM is spent, or begins anew.
    pub(super) fn on_allowance(&mut self, allowance: Allowance, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.allowance, allowance) == allowance {
            return;
        }
        let sims: Vec<(u32, bool)> = self
            .by_index
            .iter()
            .filter(|(_, port)| port.kind == UplinkKind::Sim)
            .map(|(index, port)| (*index, port.carrier))
            .collect();
        for (index, carrier) in sims {
            if allowance == Allowance::Nothing {
                self.darken(index, actions);
                continue;
            }
            if let Some(port) = self.by_index.get(&index)
                && matches!(port.state, State::Leased { .. })
            {
                let name = port.name.clone();
                actions.push(match allowance {
                    Allowance::Slow => Action::Allow(name, PortSet::Slow),
                    Allowance::Full | Allowance::Nothing => Action::Forbid(name, PortSet::Slow),
                });
            }
            if carrier && !self.asleep {
                self.light(index, actions);
            }
        }
    }
}
