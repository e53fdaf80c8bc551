//! What happens, for people on standard error and for programs as one JSON object a line.

use std::{fs::File, io::Write as _, time::Duration};

use sekisho_control::Report;
use serde::Serialize;

/// What the supervisor itself has to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub(crate) enum Own {
    /// A process was started.
    Started { process: &'static str, pid: u32 },
    /// A process could not be started.
    NotStarted { process: &'static str, why: String },
    /// A process ended.
    Died {
        process: &'static str,
        status: String,
    },
    /// A network card went to the uplink.
    Moved { port: String },
    /// The power button was pressed.
    PowerButton,
    /// Everything has ended.
    Ended,
}

#[derive(Serialize)]
struct Line<'a, T> {
    /// `CLOCK_BOOTTIME`.
    at_ms: u64,
    from: &'a str,
    #[serde(flatten)]
    report: &'a T,
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    file: Option<File>,
}

impl Events {
    pub(crate) fn new(file: Option<File>) -> Self {
        Self { file }
    }

    /// Something that a process reported.
    pub(crate) fn reported(&mut self, now: Duration, from: &'static str, report: &Report) {
        tracing::info!(from, "{}", words(report));
        self.write(now, from, report);
    }

    /// Something of the supervisor's own.
    pub(crate) fn own(&mut self, now: Duration, event: &Own) {
        match event {
            Own::Started { process, pid } => tracing::info!(pid, "{process} started"),
            Own::NotStarted { process, why } => tracing::error!("{process} not started: {why}"),
            Own::Died { process, status } => tracing::warn!("{process} ended: {status}"),
            Own::Moved { port } => tracing::info!("{port} is the uplink's now"),
            Own::PowerButton => tracing::info!("power button"),
            Own::Ended => tracing::info!("everything has ended"),
        }
        self.write(now, "supervisor", event);
    }

    fn write<T: Serialize>(&mut self, now: Duration, from: &str, report: &T) {
        let Some(file) = &mut self.file else {
            return;
        };
        let line = Line {
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            from,
            report,
        };
        let Ok(mut line) = serde_json::to_vec(&line) else {
            return;
        };
        line.push(b'\n');
        // One write a line. Whoever reads the events may stop; the laptop goes on.
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(%error, "events are not written any more");
            self.file = None;
        }
    }
}

/// A report in a few words.
fn words(report: &Report) -> String {
    match serde_json::to_value(report) {
        Ok(serde_json::Value::Object(fields)) => fields
            .iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(text) if name == "report" => text.clone(),
                serde_json::Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect::<Vec<_>>()
            .join(" "),
        _ => format!("{report:?}"),
    }
}

#[cfg(test)]
mod tests {
    use sekisho_control::{Place, Side, SituationReport};
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn one_object_a_line() {
        let mut file = tempfile::tempfile().unwrap();
        let mut events = Events::new(Some(file.try_clone().unwrap()));
        let situation = Report::Situation(SituationReport::Tunnelled {
            gateway: "honcho-1".into(),
            port: "eth0".into(),
            side: Side::Outside,
            place: Place::Remote,
        });
        let now = Duration::from_millis(1234);
        events.reported(now, "gate", &situation);
        events.own(
            now,
            &Own::Started {
                process: "gate",
                pid: 7,
            },
        );
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "{\"at_ms\":1234,\"from\":\"gate\",\"report\":\"situation\",\"situation\":\"tunnelled\",\
             \"gateway\":\"honcho-1\",\"port\":\"eth0\",\"side\":\"outside\",\"place\":\"remote\"}\n\
             {\"at_ms\":1234,\"from\":\"supervisor\",\"report\":\"started\",\"process\":\"gate\",\"pid\":7}\n"
        );
    }
}
