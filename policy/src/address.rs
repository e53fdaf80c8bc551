//! The two families of addresses, never mixed: each has tables of its own, and what is of one family
//! cannot be looked up in the other's.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::admission::{Admission, Decision};

/// An address as a number, whose order is that of the table's intervals.
pub(crate) trait Bits: Copy + Ord + Debug {
    /// The first address of the family.
    const FIRST: Self;

    /// The address behind this one; `None` behind the last.
    fn next(self) -> Option<Self>;

    /// First and last address of a prefix of this family.
    fn ends(prefix: IpNet) -> Option<(Self, Self)>;
}

impl Bits for u32 {
    const FIRST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn ends(prefix: IpNet) -> Option<(Self, Self)> {
        match prefix {
            IpNet::V4(prefix) => Some((prefix.network().to_bits(), prefix.broadcast().to_bits())),
            IpNet::V6(_) => None,
        }
    }
}

impl Bits for u128 {
    const FIRST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn ends(prefix: IpNet) -> Option<(Self, Self)> {
        match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(prefix) => Some((prefix.network().to_bits(), prefix.broadcast().to_bits())),
        }
    }
}

/// Where something begins or has ended: at an address, or behind the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge<B> {
    At(B),
    End,
}

/// Where a prefix begins and where it has ended; `None` if it is of the other family.
pub(crate) fn bounds<B: Bits>(prefix: IpNet) -> Option<(Edge<B>, Edge<B>)> {
    let (first, last) = B::ends(prefix)?;
    Some((Edge::At(first), last.next().map_or(Edge::End, Edge::At)))
}

/// An address that a policy can be asked about: one of IPv4, one of IPv6, or one of either.
pub trait Peer: Copy + sealed::Sealed {
    /// What the tables of its family say about this class and port.
    #[doc(hidden)]
    fn decide(self, admission: &Admission, class: usize, port: u16) -> Decision;
}

impl Peer for Ipv4Addr {
    #[inline]
    fn decide(self, admission: &Admission, class: usize, port: u16) -> Decision {
        admission.decide_v4(self, class, port)
    }
}

impl Peer for Ipv6Addr {
    #[inline]
    fn decide(self, admission: &Admission, class: usize, port: u16) -> Decision {
        admission.decide_v6(self, class, port)
    }
}

impl Peer for IpAddr {
    #[inline]
    fn decide(self, admission: &Admission, class: usize, port: u16) -> Decision {
        match self {
            Self::V4(address) => address.decide(admission, class, port),
            Self::V6(address) => address.decide(admission, class, port),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
    impl Sealed for std::net::IpAddr {}
}
