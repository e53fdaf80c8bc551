//! A tunnel whose engine is a process of its own: packets as they are, over a descriptor.
//!
//! The engine (openconnect, say) proves the gateway, seals and opens, and holds its own keys. What
//! is kept here is only whether it said that its tunnel is up; packets that are asked for before are
//! lost, as on any link that is down. The descriptor is the path's socket, among those of
//! [`Sockets`](crate::gate::sockets::Sockets).

use super::{Form, SealError, SegBatch, Tunnel};
use crate::gate::family::Family;
use crate::gate::path::Segment;
use crate::moment::Moment;

/// A tunnel of an engine's.
#[derive(Debug, Default)]
pub struct IpFd {
    up: bool,
}

impl IpFd {
    /// The engine said that its tunnel is up, or that it is not.
    pub const fn set_up(&mut self, up: bool) {
        self.up = up;
    }
}

impl Tunnel for IpFd {
    const FORM: Form = Form::Plain;
    const OVERHEAD: usize = 0;

    fn sealed_len<A: Family>(&self, segment: &Segment<'_, A>) -> usize {
        segment.len()
    }

    fn seal<A: Family>(
        &mut self,
        segment: &Segment<'_, A>,
        out: &mut SegBatch,
        _now: Moment,
    ) -> Result<(), SealError> {
        if !self.up {
            return Err(SealError::NoSession);
        }
        let (headers, payload) = segment.parts();
        out.push_parts(headers, payload);
        Ok(())
    }
}
