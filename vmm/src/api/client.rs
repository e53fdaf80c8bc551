//! `sekisho-vmm ctl`: asks a running VMM by its control socket.

use std::path::Path;

use sekisho_varlink::client::{Client, ClientError};
use serde_json::Value;
use thiserror::Error;

use super::INTERFACE;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// Whether it runs
    State,
    /// Stop every processor
    Pause,
    /// Let it go on, with its clock right
    Resume,
    /// Press the power button
    PowerButton,
    /// Press the sleep button
    SleepButton,
    /// Reset the machine; what was not saved is lost
    Reset,
    /// What processors and devices have done, as JSON
    Statistics,
    /// The same for a collector of metrics
    Metrics,
}

impl Wish {
    fn method(self) -> &'static str {
        match self {
            Self::State => "GetState",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::PowerButton => "PowerButton",
            Self::SleepButton => "SleepButton",
            Self::Reset => "Reset",
            Self::Statistics => "GetStatistics",
            Self::Metrics => "GetMetrics",
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The VMM says no.
    #[error("the VMM refuses: {0}")]
    Refused(&'static str),
    /// It does not say anything of use.
    #[error(
        "the VMM was not reached: {0}; is it running, with --socket, and are you its user or root?"
    )]
    Client(#[from] ClientError),
}

/// Asks; the text for whoever asked, which is empty where there is nothing to say.
pub fn ask(socket: &Path, wish: Wish) -> Result<String, AskError> {
    let mut client = Client::connect(socket)?;
    client.call(&format!("{INTERFACE}.{}", wish.method()), None, false)?;
    let reply = client.reply().map_err(refusal)?;
    let parameters = reply.parameters.unwrap_or_default();
    Ok(match wish {
        Wish::State => state(&parameters["state"]),
        Wish::Statistics => format!("{parameters:#}\n"),
        Wish::Metrics => parameters["text"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    })
}

fn refusal(error: ClientError) -> AskError {
    let ClientError::Refused(name) = &error else {
        return error.into();
    };
    match name.strip_prefix(INTERFACE) {
        Some(".NotAllowed") => AskError::Refused("you are neither its user nor root"),
        Some(".DoesNotStop") => AskError::Refused("a processor does not come out of the guest"),
        Some(".NoButton") => {
            AskError::Refused("the machine has no sleep button (it was started without --laptop)")
        }
        _ => error.into(),
    }
}

/// A line for people.
fn state(state: &Value) -> String {
    let word = state["state"].as_str().unwrap_or("unknown");
    let holders: Vec<_> = (state["held_by"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let held = if holders.is_empty() {
        String::new()
    } else {
        format!(" (by {})", holders.join(" and "))
    };
    let number = |key: &str| state[key].as_u64().unwrap_or(0);
    let seconds = number("age_ms") / 1000;
    let (cpus, memory) = (number("cpus"), number("memory_mib"));
    let processors = if cpus == 1 { "processor" } else { "processors" };
    format!("{word}{held}, started {seconds} s ago, {cpus} {processors}, {memory} MiB\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_a_line() {
        let told = json!({
            "state": "paused", "held_by": ["host", "person"],
            "age_ms": 61_234, "cpus": 2, "memory_mib": 4096,
        });
        assert_eq!(
            state(&told),
            "paused (by host and person), started 61 s ago, 2 processors, 4096 MiB\n"
        );
    }
}
