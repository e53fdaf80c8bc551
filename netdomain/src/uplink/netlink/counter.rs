//! Reads a counter of the packet filter. Layout: `linux/netfilter/nf_tables.h`.

use rustix::net::netlink;

use super::{
    NetlinkError, Requests, failed,
    sets::{FAMILY_INET, NFTABLES, generic, zero_ended},
    wire::{ACK, REQUEST, Writer, attributes},
};
use crate::uplink::rules::TABLE;

const NEW_OBJECT: u16 = (NFTABLES << 8) | 0x12;
const GET_OBJECT: u16 = (NFTABLES << 8) | 0x13;
/// `NFTA_OBJ_*`.
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`, in network byte order as everything here.
const COUNTER: u32 = 1;
/// `NFTA_COUNTER_PACKETS`.
const PACKETS: u16 = 2;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// A named counter of the packet filter.
#[derive(Debug)]
pub(crate) struct Counter {
    requests: Requests,
    name: &'static str,
}

impl Counter {
    /// Opens the netlink socket, in the caller's network namespace.
    pub(crate) fn open(name: &'static str) -> Result<Self, NetlinkError> {
        Ok(Self {
            requests: Requests::open(Some(netlink::NETFILTER))?,
            name,
        })
    }

    /// Packets since the rules were loaded.
    pub(crate) fn packets(&mut self) -> Result<u64, NetlinkError> {
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        request.message(GET_OBJECT, REQUEST | ACK, sequence, |message| {
            message.raw(&generic(FAMILY_INET, 0));
            message.attribute(OBJECT_TABLE, &zero_ended(TABLE));
            message.attribute(OBJECT_NAME, &zero_ended(self.name));
            message.attribute(OBJECT_TYPE, &COUNTER.to_be_bytes());
        });
        let mut packets = 0;
        self.requests
            .collect(&request, sequence, |message| {
                if message.kind == NEW_OBJECT
                    && let Some(rest) = message.body.get(HEADER..)
                    && let Some((_, data)) = attributes(rest).find(|(kind, _)| *kind == OBJECT_DATA)
                    && let Some((_, value)) = attributes(data).find(|(kind, _)| *kind == PACKETS)
                    && let Ok(value) = value.try_into()
                {
                    packets = u64::from_be_bytes(value);
                }
            })
            .map_err(failed("read a counter of the packet filter"))?;
        Ok(packets)
    }
}
