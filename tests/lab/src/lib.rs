//! The world outside the laptop, in network namespaces on this machine: a cafe with an attacker's
//! seat, an internet of decoys and a sink, the municipality's gateway, its LGWAN side, the My Number
//! network, the office; captures on every wire, and the oracle that says whether the laptop leaked.
//!
//! ```no_run
//! use sekisho_lab::{Lab, Options};
//!
//! let lab = Lab::start(Options::default())?;
//! let page = lab.run("lgwan", &["curl", "-s", "http://10.12.10.5/"])?;
//! println!("{}", page.stdout);
//! # Ok::<(), sekisho_lab::LabError>(())
//! ```
//!
//! Nothing of a lab outlives its process: the namespaces have no names, and every child is killed
//! by the kernel when the process that started it ends, whatever it ends of.

pub mod address;
mod capture;
pub mod dot1x;
mod draw;
mod error;
mod events;
mod lab;
mod layout;
mod namespace;
mod netlaptop;
pub mod oracle;
pub mod packet;
mod papers;
mod prober;
mod process;
mod service;
mod tap;
pub mod tapjoint;
pub mod topology;

pub use capture::{Direction, Recording};
pub use draw::{draw, draw_svg};
pub use error::LabError;
pub use events::{Event, Events};
pub use lab::{Direct, Lab, Options, Recordings, Seat, missing_programs};
pub use namespace::{Netns, hand_over};
pub use netlaptop::{NetLaptop, Part, Setup, UP_LIMIT, Who, programs};
pub use oracle::{Canary, Leak};
pub use papers::{IkePapers, LaptopFiles, Papers, ServerIdentity, TlsPapers, WireGuardKey};
pub use prober::Prober;
pub use process::{Output, Process};
pub use service::{Esp, Guestbook, Visit, esp};
pub use topology::{Cafe, PUBLIC_ONLY, Topology, Wall};
