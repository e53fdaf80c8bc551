//! QEMU's control protocol, as far as a laptop has cables and a power button.
//!
//! `docs/interop/qmp-spec.txt` of QEMU: one JSON object a line, answers in order, events between.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers within milliseconds; this is for a build machine under load.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Control failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The stream failed or ended.
    #[error("QEMU's control socket failed: {0}")]
    Io(#[from] io::Error),
    /// QEMU refused.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// Its words.
        reason: String,
    },
}

/// A control connection.
#[derive(Debug)]
pub(crate) struct Qmp {
    out: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, QmpError> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut qmp = Self {
            out: stream.try_clone()?,
            lines: BufReader::new(stream),
        };
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command; gives what it returned.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.out, "{line}")?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error["desc"]
                    .as_str()
                    .unwrap_or("no reason given")
                    .to_owned();
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason,
                });
            }
            // An event: nobody waits for one.
        }
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(serde_json::from_str(&line).map_err(io::Error::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_passed_over_and_errors_are_told() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let qemu = std::thread::spawn(move || {
            let mut lines = BufReader::new(theirs.try_clone().expect("clone")).lines();
            let say = |text: &str| writeln!(&theirs, "{text}").expect("written");
            say(r#"{"QMP": {}}"#);
            lines.next();
            say(r#"{"return": {}}"#);
            lines.next();
            say(r#"{"event": "RESUME"}"#);
            say(r#"{"return": {"status": "running"}}"#);
            lines.next();
            say(r#"{"error": {"class": "GenericError", "desc": "no such NIC"}}"#);
        });
        let mut qmp = Qmp::new(ours).expect("greeted");
        assert_eq!(
            qmp.execute("query-status", &json!({})).expect("answer")["status"],
            "running"
        );
        let refused = qmp.execute("set_link", &json!({})).expect_err("refused");
        assert!(refused.to_string().contains("no such NIC"));
        qemu.join().expect("qemu");
    }
}
