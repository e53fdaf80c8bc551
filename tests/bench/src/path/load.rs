//! Load: TCP between the kernels of both ends, made and judged by iperf3.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::Value;

use super::world::{PORT, World};
use crate::{BenchError, program::run};

/// How long one contender is loaded, in seconds. TCP has found its pace after a few milliseconds
/// on a wire this short.
pub(super) const SECONDS: u32 = 3;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the guest to the sink.
    Up,
    /// From the sink to the guest.
    Down,
}

impl Way {
    /// For tables.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What one load showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    /// Payload that arrived, in bits a second.
    pub(super) goodput: f64,
    /// Full packets that it was carried in.
    pub(super) packets: f64,
    /// Segments that TCP had to send again.
    pub(super) retransmits: f64,
    /// How long it was loaded.
    pub(super) time: Duration,
}

/// Loads the way to `target`.
pub(super) fn carry(world: &World, target: Ipv4Addr, way: Way) -> Result<Carried, BenchError> {
    let _server = world.serve()?;
    let mut client = world.near.command("iperf3");
    client
        .args(["-c", &target.to_string(), "-p", &PORT.to_string()])
        .args([
            "-t",
            &SECONDS.to_string(),
            "-J",
            "--connect-timeout",
            "5000",
        ]);
    if way == Way::Down {
        client.arg("-R");
    }
    let said = run(&mut client)?;
    judged(&said).ok_or_else(|| BenchError::Program {
        program: "iperf3".to_owned(),
        said,
    })
}

pub(super) fn judged(said: &str) -> Option<Carried> {
    let report: Value = serde_json::from_str(said).ok()?;
    let received = &report["end"]["sum_received"];
    let segment = report["start"]["tcp_mss_default"].as_f64()?;
    Some(Carried {
        goodput: received["bits_per_second"].as_f64()?,
        packets: received["bytes"].as_f64()? / segment,
        retransmits: report["end"]["sum_sent"]["retransmits"].as_f64()?,
        time: Duration::try_from_secs_f64(received["seconds"].as_f64()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let said = r#"{"start":{"tcp_mss_default":1368},"end":{
            "sum_sent":{"retransmits":3},
            "sum_received":{"seconds":2.0,"bytes":2736000,"bits_per_second":10944000.0}}}"#;
        let carried = judged(said).unwrap();
        assert_eq!(carried.packets.to_bits(), 2000.0_f64.to_bits());
        assert_eq!(carried.retransmits.to_bits(), 3.0_f64.to_bits());
        assert_eq!(carried.time, Duration::from_secs(2));
        assert!(judged(r#"{"error":"unable to connect"}"#).is_none());
    }
}
