//! Calls and replies, each one JSON object that ends with a NUL (varlink.org, "Method Call").

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use crate::service::SERVICE;

/// Ends every message.
pub const END: u8 = 0;
/// Room for any call of ours from the beginning: one with an answer leaves no copy of it behind by
/// growing.
const CALL: usize = 512;

/// A call as it comes over the wire. What else it holds is of no interest, as the protocol asks.
///
/// Its texts are erased when it is dropped: one of them may be the person's answer.
#[derive(PartialEq, Deserialize, Serialize)]
pub struct Call {
    /// `INTERFACE.METHOD`.
    pub method: String,
    /// What the method takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// No reply is wanted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oneway: bool,
    /// More than one reply is wanted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut left: Vec<Value> = self
            .parameters
            .take()
            .into_iter()
            .map(Value::Object)
            .collect();
        while let Some(value) = left.pop() {
            match value {
                Value::String(mut text) => text.zeroize(),
                Value::Array(values) => left.extend(values),
                Value::Object(fields) => left.extend(fields.into_iter().map(|(_, value)| value)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A reply as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Reply {
    /// What the method gives, or what the error says.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Others follow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continues: bool,
    /// `INTERFACE.ERROR`, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Reply {
    /// What a method gives.
    pub const fn of(parameters: Value) -> Self {
        Self {
            parameters: Some(parameters),
            continues: false,
            error: None,
        }
    }

    pub(crate) fn error(name: &str, parameters: Value) -> Self {
        Self {
            error: Some(format!("{SERVICE}.{name}")),
            ..Self::of(parameters)
        }
    }

    /// An error of an interface of one's own, by its whole name.
    pub fn refusal(name: &str) -> Self {
        Self {
            error: Some(name.to_owned()),
            ..Self::of(json!({}))
        }
    }

    /// The same, and others follow.
    #[must_use]
    pub fn and_more(mut self) -> Self {
        self.continues = true;
        self
    }
}

/// A message as it goes over the wire.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CALL);
    // What we send has no maps with keys that are not strings, and writing to memory does not fail.
    if serde_json::to_writer(&mut bytes, message).is_err() {
        bytes.clear();
    }
    bytes.push(END);
    bytes
}

/// Takes the first whole message out of `input`, without its end. It may hold an answer of the
/// person's: no other copy of it stays, neither in `input` nor behind its end.
pub fn take_message(input: &mut Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let end = input.iter().position(|byte| *byte == END)?;
    let message = Zeroizing::new(input[..end].to_vec());
    input.copy_within(end + 1.., 0);
    let left = input.len() - end - 1;
    input[left..].zeroize();
    input.truncate(left);
    Some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However messages are cut on the way, they come out whole and in order.
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in proptest::collection::vec(proptest::collection::vec(1u8.., 0..40), 0..10),
            cuts in proptest::collection::vec(1usize..20, 1..50),
        ) {
            let stream: Vec<u8> = messages
                .iter()
                .flat_map(|message| message.iter().copied().chain([END]))
                .collect();
            let (mut input, mut out) = (Vec::new(), Vec::new());
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                input.extend_from_slice(now);
                rest = later;
                out.extend(std::iter::from_fn(|| take_message(&mut input)).map(|message| message.to_vec()));
            }
            prop_assert_eq!(out, messages);
            prop_assert!(input.is_empty());
        }
    }
}
