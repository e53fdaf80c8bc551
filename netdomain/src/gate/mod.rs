//! The gate: the one process that decides about every frame of the work OS.

pub mod admit;
pub mod counters;
pub mod device;
pub mod edge;
pub mod packet;
pub mod path;
pub mod plan;
pub mod situation;

use thiserror::Error;

/// Command line of `sekisho-netdomain gate`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Why the gate ended.
#[derive(Debug, Error)]
pub enum GateError {}

/// Runs the gate until it is told to end.
pub fn run(_args: &Args) -> Result<(), GateError> {
    Ok(())
}
