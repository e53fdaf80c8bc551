//! A board that is none, for drivers that poll: fuzzers and benchmarks.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use super::{MsiMessage, Platform, Vector};

/// A board without interrupts, and without doorbells in the kernel: vectors are numbers, a signal
/// is lost, and each notification reaches the device through its BAR.
pub struct Nowhere;

impl Platform for Nowhere {
    fn allocate_vectors(&self, count: u16) -> io::Result<Vec<Vector>> {
        Ok((0..count.into()).map(Vector).collect())
    }

    fn route(&self, _vector: Vector, _message: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }

    fn signal(&self, _vector: Vector) -> io::Result<()> {
        Ok(())
    }

    fn map_doorbell(&self, _address: u64, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn unmap_doorbell(&self, _address: u64, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }
}
