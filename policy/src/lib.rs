//! The signed policy: schema, checks, verification, admission.
//!
//! A policy is a TOML file that IT writes and signs as the exact bytes that were reviewed. The
//! laptop checks the signature before it parses ([`verify`]); what comes out, [`Verified`], is the
//! only thing that the network domain takes. [`Admission`] answers for each connection whether it
//! may be opened, and by which rule. No policy, no network.
//!
//! ```no_run
//! use sekisho_policy::{Admission, Clock, Floor, Place, Probe, Trust, UplinkKind, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::parse(&std::fs::read_to_string("trust.pem")?)?;
//! let policy = verify(
//!     &std::fs::read("policy.toml")?,
//!     &std::fs::read("policy.toml.sig")?,
//!     &trust,
//!     &Clock::system(Floor::default()),
//! )?;
//! let admission = Admission::compile(&policy);
//! let probe: Probe = "tcp 10.12.10.5:443".parse()?;
//! let decision = admission.decide(&probe.at(Place::Remote, UplinkKind::Wired));
//! println!("{}: {}", decision.is_allowed(), admission.name(decision.rule()));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod address;
mod admission;
mod bandwidth;
mod check;
mod dot1x;
mod draft;
mod fault;
mod floor;
mod network;
mod quantity;
mod query;
mod schema;
mod source;
mod trust;
mod value;
mod verify;

pub use address::Peer;
pub use admission::{Admission, Decision, RuleId};
pub use bandwidth::{Bandwidth, ClassId, MAX_CLASSES, Rates};
pub use dot1x::{Dot1x, Radius, ServerName};
pub use draft::{Draft, Explanation};
pub use fault::{Fault, Lang, PolicyError, Problem};
pub use floor::{FloorError, FloorFile};
pub use network::{Apn, Plmn, SsidGlob};
pub use quantity::Rate;
pub use query::{Probe, ProbeError, Protocol, Query};
pub use schema::{
    Beacon, CaptivePortal, Direct, Direction, Flow, Forbidden, Gateway, GatewayProtocol, IkeAuth,
    KillSwitch, Logging, Meta, Ncsi, Onprem, OverQuota, Peers, Policy, Quota, Record, Retry,
    Revocation, SCHEMA, SecondFactor, Segment, Test, TestFrom, Uplink, Vpn, WifiSecurity,
};
pub use sekisho_control::{Place, UplinkKind};
pub use source::MAX_POLICY;
pub use trust::{KeyId, MAX_SIGNATURE, PrivateKey, Signature, Trust, TrustError};
pub use value::{Pin, PortRange, PublicKey, RemoteId};
pub use verify::{Clock, Floor, Verified, VerifyError, verify};
