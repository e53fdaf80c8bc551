//! The remote framebuffer protocol (RFC 6143), as far as bytes go: the viewer's messages in, updates
//! out. For development, and for support by who sits at the same machine or is let in by other means:
//! there is no authentication and no encryption in it.

mod encode;
pub mod keysym;
mod message;
mod pixel;
pub mod scancode;
mod session;

pub use message::RfbError;
pub use session::{Event, Session};
