//! The little of D-Bus that a caller of one service needs (D-Bus specification 0.43).
//!
//! Not `zbus`, which the rest of the world would take: it allocates as much as a message says that
//! it is long, up to 128 MiB, and runs threads of its own for its sockets and timers. Here a message
//! has a bound that is argued, is read where it lies, and the process stays one poll loop whose
//! filter of system calls knows no thread.
//!
//! | module | what |
//! |---|---|
//! | `read` | values of a message, by their signature |
//! | `write` | values into a message |
//! | `message` | one message: its header and its body |
//! | `bus` | the connection: signing in, messages in and out |

pub(super) mod bus;
mod message;
mod read;
mod write;

pub(super) use bus::Bus;
pub(super) use message::{Kind, Message, Method};
pub(super) use read::{Malformed, Reader};
pub(super) use write::{Value, Writer};

#[cfg(test)]
pub(super) use message::tests as examples;
