//! The state machine: frames and time go in, frames and leases come out. No socket, no clock.

use std::{net::Ipv4Addr, time::Duration};

use sekisho_control::LanMember;

use super::packet::{Reply, ReplyKind, Request, RequestKind, read, write};

/// Shortest lease that is kept to. One below this is treated as this long: whoever hands out
/// seconds wants to keep us busy, and holding an address some seconds too long harms only us.
const MIN_LEASE: Duration = Duration::from_mins(1);
/// Longest: a lease without end is looked after once a day all the same.
const MAX_LEASE: Duration = Duration::from_hours(24);
/// First pause between two sendings; doubles up to [`MAX_PAUSE`] (RFC 2131 §4.1 asks for 4 s and
/// 64 s; a person waits for this one).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(16);
/// An offer is asked for this often before it is given up.
const SELECT_TRIES: u32 = 3;
/// Shortest pause between two renewals of the same lease.
const MIN_RENEW_PAUSE: Duration = Duration::from_secs(10);
/// Pause after an address that somebody else has (RFC 2131, section 3.1, point 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);
/// Replies that are named as ignored between two of our own sendings; the rest of a flood is
/// dropped in silence.
const REPORTS_PER_SENDING: u32 = 3;

/// What a port may use, and until when is not its business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The port's address.
    pub(crate) address: Ipv4Addr,
    /// Length of the on-link prefix that the server told, 32 if none. Told to the person, not
    /// used: no on-link prefix is ever set.
    pub(crate) prefix: u8,
    /// The next hop.
    pub(crate) router: Ipv4Addr,
    /// The server that granted it.
    pub(crate) server: Ipv4Addr,
}

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this frame.
    Send(Vec<u8>),
    /// Set up the port with this lease; replaces an earlier one.
    Bound(Lease),
    /// The lease is no longer ours.
    Lost,
    /// The network of the lease says that it has a captive portal.
    Portal,
    /// Something was ignored, in the field's own words.
    Ignored(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Looking for an offer.
    Selecting,
    /// Took up an offer.
    Requesting { offer: Lease, mac: [u8; 6] },
    /// Has a lease; quiet until T1, then asks its server, from T2 on anybody.
    Bound {
        lease: Lease,
        mac: [u8; 6],
        rebind_at: Duration,
        expires_at: Duration,
        asking: bool,
    },
}

/// The DHCP client of one port. Times are since any fixed point of a clock that also counts sleep.
#[derive(Debug)]
pub(crate) struct Client {
    mac: [u8; 6],
    member: Option<LanMember>,
    random: Random,
    state: State,
    /// The current transaction; a new one for each exchange.
    xid: u32,
    began: Duration,
    /// Sendings in this transaction.
    sent: u32,
    /// Exchanges that came to nothing since the last lease.
    failures: u32,
    /// When to act next.
    due: Duration,
    reports_left: u32,
    /// Options that were reported for the current lease.
    reported: Vec<u8>,
}

/// Where the client's randomness comes from.
pub(crate) type Random = fn() -> u32;

/// Tells whether an address is one of the policy's endpoints, which no lease may claim.
pub(crate) type Claimed<'a> = &'a dyn Fn(Ipv4Addr) -> bool;

impl Client {
    /// A client for a port whose carrier just came; its first frame is due at once.
    pub(crate) fn new(mac: [u8; 6], now: Duration, random: Random) -> Self {
        let xid = random();
        Self {
            mac,
            member: None,
            random,
            state: State::Selecting,
            xid,
            began: now,
            sent: 0,
            failures: 0,
            due: now,
            reports_left: REPORTS_PER_SENDING,
            reported: Vec::new(),
        }
    }

    /// The same, which says of itself what a member of the LAN does.
    pub(crate) fn for_member(self, member: Option<LanMember>) -> Self {
        Self { member, ..self }
    }

    /// When [`Client::on_time`] wants to be called next.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Duration) -> Vec<Step> {
        if now < self.due {
            return Vec::new();
        }
        match self.state.clone() {
            State::Selecting => vec![self.send(now, RequestKind::Discover)],
            State::Requesting { .. } if self.sent >= SELECT_TRIES => {
                self.restart(now);
                Vec::new()
            }
            State::Requesting { offer, .. } => vec![self.select(now, &offer)],
            State::Bound { expires_at, .. } if now >= expires_at => {
                self.restart(now);
                vec![Step::Lost]
            }
            State::Bound {
                lease,
                mac,
                rebind_at,
                expires_at,
                asking,
            } => {
                if !asking {
                    self.begin(now);
                }
                let (kind, until) = if now < rebind_at {
                    let kind = RequestKind::Renew {
                        address: lease.address,
                        server: lease.server,
                        mac,
                    };
                    (kind, rebind_at)
                } else {
                    let kind = RequestKind::Rebind {
                        address: lease.address,
                    };
                    (kind, expires_at)
                };
                let step = self.send(now, kind);
                // RFC 2131 §4.4.5: half of the remaining time.
                let half = until.saturating_sub(now) / 2;
                self.due = (now + half.max(MIN_RENEW_PAUSE)).min(until.max(now + FIRST_PAUSE));
                self.state = State::Bound {
                    lease,
                    mac,
                    rebind_at,
                    expires_at,
                    asking: true,
                };
                vec![step]
            }
        }
    }

    /// Gives back the lease, whose address somebody else was found to have, and looks for another after a
    /// pause.
    pub(crate) fn decline(&mut self, now: Duration) -> Vec<Step> {
        let State::Bound { lease, .. } = self.state.clone() else {
            return Vec::new();
        };
        self.begin(now);
        let kind = RequestKind::Decline {
            address: lease.address,
            server: lease.server,
        };
        let step = self.send(now, kind);
        self.restart(now);
        self.due = self.due.max(now + DECLINE_PAUSE);
        vec![step]
    }

    /// Takes a frame that arrived on the port.
    pub(crate) fn on_frame(
        &mut self,
        now: Duration,
        frame: &[u8],
        claimed: Claimed<'_>,
    ) -> Vec<Step> {
        // Whoever does not know the transaction is not talking to us.
        let Some(reply) = read(frame, self.mac).filter(|reply| reply.xid == self.xid) else {
            return Vec::new();
        };
        match (self.state.clone(), reply.kind) {
            (State::Selecting, ReplyKind::Offer) if self.sent > 0 => {
                self.on_offer(now, &reply, claimed)
            }
            (State::Requesting { offer, .. }, ReplyKind::Ack) if reply.server == offer.server => {
                self.on_ack(now, &reply, None, claimed)
            }
            (State::Requesting { offer, .. }, ReplyKind::Nak) if reply.server == offer.server => {
                self.restart(now);
                Vec::new()
            }
            (
                State::Bound {
                    lease,
                    rebind_at,
                    asking: true,
                    ..
                },
                kind @ (ReplyKind::Ack | ReplyKind::Nak),
            ) if reply.server == lease.server || now >= rebind_at => {
                if kind == ReplyKind::Ack {
                    return self.on_ack(now, &reply, Some(&lease), claimed);
                }
                self.restart(now);
                vec![Step::Lost]
            }
            (State::Requesting { .. } | State::Bound { asking: true, .. }, kind) => {
                let what = format!("DHCP {kind:?} from {}, not our server", reply.server);
                // Several servers may offer; that is no news.
                match kind {
                    ReplyKind::Offer => Vec::new(),
                    ReplyKind::Ack | ReplyKind::Nak => self.report(what),
                }
            }
            _ => Vec::new(),
        }
    }

    fn on_offer(&mut self, now: Duration, reply: &Reply, claimed: Claimed<'_>) -> Vec<Step> {
        match lease(reply, claimed) {
            Ok(offer) => {
                self.sent = 0;
                let step = self.select(now, &offer);
                self.state = State::Requesting {
                    offer,
                    mac: reply.mac,
                };
                vec![step]
            }
            Err(why) => self.report(format!("DHCP offer from {}: {why}", reply.server)),
        }
    }

    fn on_ack(
        &mut self,
        now: Duration,
        reply: &Reply,
        held: Option<&Lease>,
        claimed: Claimed<'_>,
    ) -> Vec<Step> {
        let granted = match lease(reply, claimed) {
            Ok(granted) => granted,
            Err(why) => {
                return self.report(format!("DHCP lease from {}: {why}", reply.server));
            }
        };
        let length = reply
            .lease
            .map_or(MIN_LEASE, |seconds| Duration::from_secs(seconds.into()))
            .clamp(MIN_LEASE, MAX_LEASE);
        // T1 and T2 are ours (RFC 2131 §4.4.5), whatever options 58 and 59 say.
        self.due = now + length / 2;
        self.failures = 0;
        self.state = State::Bound {
            lease: granted.clone(),
            mac: reply.mac,
            rebind_at: now + length / 8 * 7,
            expires_at: now + length,
            asking: false,
        };
        let mut steps = Vec::new();
        if reply.ignored != self.reported {
            self.reported.clone_from(&reply.ignored);
            steps.extend(reply.ignored.iter().map(|code| {
                Step::Ignored(format!(
                    "DHCP option {code} ({}) from {}",
                    option_name(*code),
                    reply.server
                ))
            }));
        }
        if held != Some(&granted) {
            steps.push(Step::Bound(granted));
            // Told with each new lease, and not with each renewal.
            if reply.portal {
                steps.push(Step::Portal);
            }
        }
        steps
    }

    fn select(&mut self, now: Duration, offer: &Lease) -> Step {
        self.send(
            now,
            RequestKind::Select {
                address: offer.address,
                server: offer.server,
            },
        )
    }

    /// Back to looking for an offer, after a pause that grows with each failure.
    fn restart(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Selecting;
        self.reported.clear();
        self.begin(now);
        self.due = now + self.pause(self.failures - 1);
    }

    fn begin(&mut self, now: Duration) {
        self.xid = (self.random)();
        self.began = now;
        self.sent = 0;
    }

    fn send(&mut self, now: Duration, kind: RequestKind) -> Step {
        let secs = now.saturating_sub(self.began).as_secs();
        let request = Request {
            kind,
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
        };
        self.due = now + self.pause(self.sent);
        self.sent = self.sent.saturating_add(1);
        self.reports_left = REPORTS_PER_SENDING;
        Step::Send(write(&request, self.mac, self.member.as_ref()))
    }

    /// `FIRST_PAUSE` doubled `doublings` times, at most `MAX_PAUSE`, up to a quarter longer so that
    /// a hall of laptops after a power cut does not speak in chorus.
    fn pause(&mut self, doublings: u32) -> Duration {
        let pause = FIRST_PAUSE
            .saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(MAX_PAUSE);
        pause + pause * ((self.random)() % 256) / 1024
    }

    fn report(&mut self, what: String) -> Vec<Step> {
        if self.reports_left == 0 {
            return Vec::new();
        }
        self.reports_left -= 1;
        vec![Step::Ignored(what)]
    }
}

/// Checks what a server offers or grants.
fn lease(reply: &Reply, claimed: Claimed<'_>) -> Result<Lease, &'static str> {
    let prefix = match reply.mask.map(u32::from) {
        None => 32,
        Some(mask) if mask.leading_ones() + mask.trailing_zeros() >= 32 && mask != 0 => {
            u8::try_from(mask.leading_ones()).unwrap_or(32)
        }
        Some(_) => return Err("the mask is no prefix"),
    };
    let router = reply.router.ok_or("no router")?;
    Lease::checked(reply.address, prefix, router, reply.server, claimed)
}

impl Lease {
    /// A lease, if a port can have this address and this next hop; else why not.
    pub(crate) fn checked(
        address: Ipv4Addr,
        prefix: u8,
        router: Ipv4Addr,
        server: Ipv4Addr,
        claimed: Claimed<'_>,
    ) -> Result<Self, &'static str> {
        if !usable(address) {
            return Err("the address is no host's");
        }
        if !usable(router) || router == address {
            return Err("the router is no neighbour");
        }
        if claimed(address) {
            return Err("the address is a gateway's");
        }
        Ok(Self {
            address,
            prefix,
            router,
            server,
        })
    }
}

/// Whether an address can be a host's on a LAN: not `0/8`, loopback, link-local, multicast, class E
/// or broadcast.
fn usable(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
}

/// The option's name in the IANA registry, for those that an attacker would reach for.
fn option_name(code: u8) -> &'static str {
    match code {
        2 => "time offset",
        4 | 42 => "time server",
        5 | 6 => "resolver",
        12 => "host name",
        15 => "domain name",
        26 => "interface MTU",
        31 => "router discovery",
        33 => "static routes",
        43 => "vendor information",
        66 | 67 | 150 => "boot server",
        108 => "IPv6-only",
        119 => "search domains",
        121 | 249 => "classless static routes",
        252 => "proxy configuration",
        _ => "not asked for",
    }
}

#[cfg(test)]
mod tests;
