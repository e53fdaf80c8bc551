//! Statistics as `OpenMetrics` text.
//!
//! Source: `OpenMetrics` 1.0, "Text Format".

use std::fmt::{Display, Write as _};

use super::{State, Statistics};

/// Writes what a machine is and what has happened to it. Names have a unit where there is one, counters end
/// in `_total`.
pub fn open_metrics(state: &State, all: &Statistics) -> String {
    let mut text = Text::default();
    let paused = u8::from(!state.held_by.is_empty());
    text.family("paused", "gauge", "Whether the work OS stands still");
    text.sample("paused", "", paused);
    text.family("age_seconds", "gauge", "Time since the VMM started");
    text.unit("age_seconds", "seconds");
    text.sample("age_seconds", "", state.age.as_secs_f64());
    text.family("exits", "counter", "What processors left the guest for");
    for count in &all.exits {
        text.sample(
            "exits_total",
            &format!("kind=\"{}\"", count.kind),
            count.exits,
        );
    }
    text.family("disk_requests", "counter", "Completed requests");
    for (index, disk) in all.disks.iter().enumerate() {
        for (kind, count) in [
            ("read", disk.reads),
            ("write", disk.writes),
            ("flush", disk.flushes),
            ("discard", disk.discards),
            ("zero", disk.zeroes),
        ] {
            let labels = format!("disk=\"{index}\",kind=\"{kind}\"");
            text.sample("disk_requests_total", &labels, count);
        }
    }
    text.family("disk_errors", "counter", "Requests answered with an error");
    for (index, disk) in all.disks.iter().enumerate() {
        text.sample(
            "disk_errors_total",
            &format!("disk=\"{index}\""),
            disk.errors,
        );
    }
    text.family("disk_bytes", "counter", "Bytes of completed requests");
    text.unit("disk_bytes", "bytes");
    for (index, disk) in all.disks.iter().enumerate() {
        for (kind, bytes) in [("read", disk.bytes_read), ("write", disk.bytes_written)] {
            let labels = format!("disk=\"{index}\",kind=\"{kind}\"");
            text.sample("disk_bytes_total", &labels, bytes);
        }
    }
    text.family("nic_frames", "counter", "Frames, and what became of them");
    for (index, nic) in all.nics.iter().enumerate() {
        for (kind, frames) in [
            ("sent", nic.sent),
            ("received", nic.received),
            ("dropped_link_down", nic.sent_link_down),
            ("dropped_malformed", nic.sent_malformed),
            ("dropped_no_room", nic.received_no_room),
        ] {
            let labels = format!("nic=\"{index}\",kind=\"{kind}\"");
            text.sample("nic_frames_total", &labels, frames);
        }
    }
    text.0.push_str("# EOF\n");
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(
            self.0,
            "# TYPE sekisho_vmm_{name} {kind}\n# HELP sekisho_vmm_{name} {help}.\n"
        );
    }

    fn unit(&mut self, name: &str, unit: &str) {
        let _ = writeln!(self.0, "# UNIT sekisho_vmm_{name} {unit}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(self.0, "sekisho_vmm_{name}{braces} {value}");
    }
}
