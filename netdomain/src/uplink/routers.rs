//! Whether the router of each lease answers ARP: for `sekisho doctor`. Nothing is decided by it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::netlink::Neighbour;

/// A router that is waited for.
#[derive(Debug)]
struct Router {
    address: Ipv4Addr,
    answers: Option<bool>,
}

/// The routers of all ports with a lease, by interface index.
#[derive(Debug, Default)]
pub(super) struct Routers {
    by_index: BTreeMap<u32, Router>,
}

impl Routers {
    /// The port has a lease with this router.
    pub(super) fn leased(&mut self, index: u32, address: Ipv4Addr) {
        let answers = None;
        self.by_index.insert(index, Router { address, answers });
    }

    /// The lease is gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.by_index.remove(&index);
    }

    /// What the kernel knows of a neighbour; the event to report if that is news.
    pub(super) fn on(&mut self, neighbour: &Neighbour) -> Option<&'static str> {
        let router = self
            .by_index
            .get_mut(&neighbour.index)
            .filter(|router| router.address == neighbour.address)?;
        let news = router.answers.replace(neighbour.answers) != Some(neighbour.answers);
        news.then_some(if neighbour.answers {
            "router"
        } else {
            "router-silent"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_news_once() {
        let neighbour = |index, last, answers| Neighbour {
            index,
            address: Ipv4Addr::new(192, 168, 11, last),
            answers,
        };
        let mut routers = Routers::default();
        assert_eq!(routers.on(&neighbour(2, 1, true)), None);
        routers.leased(2, Ipv4Addr::new(192, 168, 11, 1));
        assert_eq!(routers.on(&neighbour(2, 7, true)), None, "another host");
        assert_eq!(routers.on(&neighbour(3, 1, true)), None, "another port");
        assert_eq!(routers.on(&neighbour(2, 1, true)), Some("router"));
        assert_eq!(routers.on(&neighbour(2, 1, true)), None);
        assert_eq!(routers.on(&neighbour(2, 1, false)), Some("router-silent"));
        routers.leased(2, Ipv4Addr::new(192, 168, 11, 1));
        assert_eq!(routers.on(&neighbour(2, 1, true)), Some("router"));
        routers.forget(2);
        assert_eq!(routers.on(&neighbour(2, 1, false)), None);
    }
}
