//! Varlink services on a Unix socket, whose clients are not trusted with anything but being told
//! (varlink.org).
//!
//! Why not the crate `zlink` (0.8.0 was looked at): its server is a future that needs an executor,
//! awaits the write of a reply before it looks at the next client, so that one that stops reading
//! stops all, and lets each client grow a buffer to 100 MB. Our processes are loops over their
//! descriptors that nothing may hold up; what they need of the protocol is this crate.
//!
//! | module | what |
//! |---|---|
//! | `message` | calls and replies, each one JSON object that ends with a NUL |
//! | `service` | what answers calls, and the interface of every service |
//! | `server` | all connections, without a socket: bounds of number, size, rate and patience |
//! | `listening` | the socket, and the thin shell around the server |
//! | `client` | the other end |
#![forbid(unsafe_code)]

mod bucket;
pub mod client;
mod listening;
mod message;
mod server;
mod service;

pub use listening::Listening;
pub use message::{Call, END, Reply, encode, take_message};
pub use server::{
    ACCEPTS, Dropped, Interest, MAX_CALL, MAX_OUTPUT, MAX_PEERS, MAX_PER_USER, PeerId, Server,
};
pub use service::{About, Answer, SERVICE, SERVICE_DESCRIPTION, Service, invalid, takes_nothing};
