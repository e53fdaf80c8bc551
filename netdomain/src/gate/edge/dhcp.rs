//! The DHCP server of the guest's network: a pure function of the device file, or of the LAN's lease
//! while the work OS is a member of an office LAN (RFC 2131).
//!
//! There is one client and one address, so there is nothing to remember: whoever asks gets the
//! same lease, before and after the gate was restarted.

use std::net::Ipv4Addr;

use sekisho_control::{HostName, VendorClass};
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

use super::reply::Reply;
use super::{Edge, Outcome};
use crate::gate::admit::Rule;

/// Port of a DHCP server.
pub(super) const SERVER: u16 = 67;
/// Port of a DHCP client.
pub(super) const CLIENT: u16 = 68;
/// A week: long enough that no renewal falls into a moment without a gate, short enough that a
/// changed device file arrives.
const LEASE_SECONDS: u32 = 7 * 24 * 3600;
/// On an office LAN: the work OS is told of each change by its cable, and a work OS that overlooked
/// that finds out soon.
const LAN_LEASE_SECONDS: u32 = 10 * 60;
/// Interface MTU (RFC 2132, section 5.1).
const OPTION_MTU: u8 = 26;
/// Host name and vendor class (RFC 2132, sections 3.14 and 9.13).
const OPTION_HOST: u8 = 12;
const OPTION_CLASS: u8 = 60;
/// Options of one message that are looked at; Windows sends some ten.
const MAX_OPTIONS: usize = 64;
/// The answer is well below this: fixed header, cookie and some forty bytes of options.
const MAX_ANSWER: usize = 320;

impl Edge {
    pub(super) fn dhcp(&mut self, payload: &[u8], reply: &mut Reply) -> Outcome {
        let Ok(packet) = DhcpPacket::new_checked(payload) else {
            return Outcome::Refused(Rule::Malformed);
        };
        let Ok(request) = DhcpRepr::parse(&packet) else {
            return Outcome::Refused(Rule::Malformed);
        };
        if request.client_hardware_address != self.device.mac {
            return Outcome::Refused(Rule::AntiSpoof);
        }
        self.hear(&packet);
        let Some(kind) = self.verdict(&request) else {
            return Outcome::Done;
        };
        let mut bytes = [0; MAX_ANSWER];
        let Some(len) = self.write_answer(&request, kind, &mut bytes) else {
            return Outcome::Done;
        };
        self.send_answer(&request, kind, &bytes[..len], reply);
        Outcome::Done
    }

    /// Keeps what an office's DHCP server is told later. What is no name is none.
    fn hear(&mut self, packet: &DhcpPacket<&[u8]>) {
        for option in packet.options().take(MAX_OPTIONS) {
            match option.kind {
                OPTION_HOST => self.member.host = HostName::new(option.data),
                OPTION_CLASS => self.member.class = VendorClass::new(option.data),
                _ => {}
            }
        }
    }

    /// What the client's message is answered with; `None`: nothing.
    fn verdict(&self, request: &DhcpRepr<'_>) -> Option<DhcpMessageType> {
        let ours = |address: Ipv4Addr| address == self.place.address;
        match request.message_type {
            DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
            DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
            DhcpMessageType::Request => {
                let elsewhere = request
                    .server_identifier
                    .is_some_and(|server| server != self.device.router);
                if elsewhere {
                    return None;
                }
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                let answer = if ours(wanted) {
                    DhcpMessageType::Ack
                } else {
                    DhcpMessageType::Nak
                };
                Some(answer)
            }
            // A release frees nothing, a decline changes nothing: there is no other address.
            _ => None,
        }
    }

    fn write_answer(
        &self,
        request: &DhcpRepr<'_>,
        kind: DhcpMessageType,
        bytes: &mut [u8; MAX_ANSWER],
    ) -> Option<usize> {
        let nak = kind == DhcpMessageType::Nak;
        let inform = request.message_type == DhcpMessageType::Inform;
        let lease = !nak && !inform;
        let mtu = self.device.mtu.to_be_bytes();
        let options = [DhcpOption {
            kind: OPTION_MTU,
            data: &mtu,
        }];
        let answer = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: self.device.mac,
            client_ip: if nak {
                Ipv4Addr::UNSPECIFIED
            } else {
                request.client_ip
            },
            your_ip: if lease {
                self.place.address
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: (!nak).then_some(self.place.router),
            subnet_mask: (!nak).then_some(self.netmask),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.device.router),
            parameter_request_list: None,
            dns_servers: (!nak).then(|| [self.device.router].into_iter().collect()),
            max_size: None,
            lease_duration: lease.then_some(if self.place == self.home() {
                LEASE_SECONDS
            } else {
                LAN_LEASE_SECONDS
            }),
            renew_duration: None,
            rebind_duration: None,
            additional_options: if nak { &[] } else { &options },
        };
        let len = answer.buffer_len();
        let mut packet = DhcpPacket::new_unchecked(bytes.get_mut(..len)?);
        answer.emit(&mut packet).ok()?;
        Some(len)
    }

    /// RFC 2131, section 4.1: to the client's address if it has one, else to everybody if it asks
    /// for that, else to the address that it is about to have. A NAK always goes to everybody.
    fn send_answer(
        &self,
        request: &DhcpRepr<'_>,
        kind: DhcpMessageType,
        payload: &[u8],
        reply: &mut Reply,
    ) {
        let bound = !request.client_ip.is_unspecified() && kind != DhcpMessageType::Nak;
        let everybody = !bound && (request.broadcast || kind == DhcpMessageType::Nak);
        let to = if everybody {
            Ipv4Addr::BROADCAST
        } else {
            self.place.address
        };
        reply.udp(
            &self.ethernet,
            (self.device.router, SERVER),
            (to, CLIENT),
            payload,
        );
        if everybody {
            reply.broadcast();
        }
    }
}
