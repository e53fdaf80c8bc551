//! What the load inside a guest and the benchmark outside say to each other: one line each way.

mod run;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use run::run;

/// What the program says when it takes orders.
pub const READY: &str = "LOAD-READY";
/// What an answer begins with, where all went well.
pub const RAN: &str = "LOAD-RAN ";

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// Where the next block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Anywhere.
    Random,
    /// Behind the last one.
    Sequential,
}

/// A load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The disk's device, without blanks.
    pub device: String,
    /// Which way.
    pub direction: Direction,
    /// Where.
    pub order: Order,
    /// Bytes of a request, a multiple of 4096.
    pub block: u32,
    /// Requests under way at once.
    pub depth: u32,
    /// For how long.
    pub time: Duration,
}

/// What a load has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Requests that completed.
    pub requests: u64,
    /// In what time.
    pub time: Duration,
}

impl Ran {
    /// Requests a second.
    #[expect(clippy::cast_precision_loss, reason = "requests are far below 2^52")]
    pub fn rate(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

/// A line that says something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such load or answer: {0}")]
pub struct Unknown(String);

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let order = match self.order {
            Order::Random => "random",
            Order::Sequential => "sequential",
        };
        let (device, block, depth) = (&self.device, self.block, self.depth);
        let time = self.time.as_millis();
        write!(out, "{device} {direction} {order} {block} {depth} {time}")
    }
}

impl FromStr for Load {
    type Err = Unknown;

    fn from_str(line: &str) -> Result<Self, Unknown> {
        let parse = || {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [device, direction, order, block, depth, time] = *words.as_slice() else {
                return None;
            };
            Some(Self {
                device: device.to_owned(),
                direction: match direction {
                    "read" => Direction::Read,
                    "write" => Direction::Write,
                    _ => return None,
                },
                order: match order {
                    "random" => Order::Random,
                    "sequential" => Order::Sequential,
                    _ => return None,
                },
                block: block.parse().ok()?,
                depth: depth.parse().ok()?,
                time: Duration::from_millis(time.parse().ok()?),
            })
        };
        parse().ok_or_else(|| Unknown(line.to_owned()))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{RAN}{} {}", self.requests, self.time.as_micros())
    }
}

impl FromStr for Ran {
    type Err = Unknown;

    /// Takes the line behind [`RAN`].
    fn from_str(rest: &str) -> Result<Self, Unknown> {
        let parse = || {
            let (requests, time) = rest.trim().split_once(' ')?;
            Some(Self {
                requests: requests.parse().ok()?,
                time: Duration::from_micros(time.parse().ok()?),
            })
        };
        parse().ok_or_else(|| Unknown(rest.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_understand_each_other() {
        let load = Load {
            device: "/dev/vda".to_owned(),
            direction: Direction::Write,
            order: Order::Sequential,
            block: 1 << 20,
            depth: 4,
            time: Duration::from_millis(500),
        };
        assert_eq!(load.to_string().parse(), Ok(load));
        let ran = Ran {
            requests: 17,
            time: Duration::from_micros(500_123),
        };
        let line = ran.to_string();
        assert_eq!(line.strip_prefix(RAN).unwrap().parse(), Ok(ran));
        for wrong in [
            "",
            "/dev/vda read random 4096 1",
            "/dev/vda look random 4096 1 9",
        ] {
            assert!(wrong.parse::<Load>().is_err(), "{wrong}");
        }
    }
}
