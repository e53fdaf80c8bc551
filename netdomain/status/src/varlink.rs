//! Varlink: calls come in, replies go out, each one JSON object that ends with a NUL
//! (varlink.org, "Method Call"). No socket, no clock.
//!
//! Why not the crate `zlink` (0.8.0 was looked at): its server is a future that needs an executor,
//! awaits the write of a reply before it looks at the next client, so that one that stops reading
//! stops all, and lets each client grow a buffer to 100 MB. The supervisor is one loop over its
//! descriptors that nothing may hold up; what it needs of the protocol is this file.

use sekisho_control::{DemandId, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use crate::status::Status;

/// Our interface.
pub const INTERFACE: &str = "jp.sekisho.Laptop";
/// The interface of every service.
pub const SERVICE: &str = "org.varlink.service";

/// What our interface is.
pub const DESCRIPTION: &str = include_str!("jp.sekisho.Laptop.varlink");
/// What the interface of every service is.
pub const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

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

    fn error(name: &str, parameters: Value) -> Self {
        Self {
            error: Some(format!("{SERVICE}.{name}")),
            ..Self::of(parameters)
        }
    }

    /// An error of our own interface.
    pub(crate) fn refusal(name: &str) -> Self {
        Self {
            error: Some(format!("{INTERFACE}.{name}")),
            ..Self::of(json!({}))
        }
    }

    /// A status.
    pub fn status(status: &Status, continues: bool) -> Self {
        Self {
            continues,
            ..Self::of(json!({ "status": status }))
        }
    }
}

/// What a call asks for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// This very reply.
    Reply(Reply),
    /// The status, once.
    Status,
    /// The status, again and again.
    Watch,
    /// The checked list.
    Diagnosis,
    /// That this answer be given to this asking.
    Answer(DemandId, Secret),
    /// That what nobody answered be asked again.
    AskAgain,
}

/// Understands a call, and takes the answer out of it if there is one.
pub fn asked(call: &mut Call, version: &str) -> Asked {
    let Some((interface, method)) = call.method.rsplit_once('.') else {
        return not_found("InterfaceNotFound", "interface", &call.method);
    };
    if (interface, method) == (INTERFACE, "Answer") {
        return answer(call.parameters.as_mut());
    }
    let empty = Map::new();
    let parameters = call.parameters.as_ref().unwrap_or(&empty);
    match (interface, method) {
        (SERVICE, "GetInterfaceDescription") => description(parameters),
        (SERVICE, "GetInfo") | (INTERFACE, "GetStatus" | "Diagnose" | "AskAgain") => {
            if let Some(superfluous) = parameters.keys().next() {
                return invalid(superfluous);
            }
            match method {
                "GetInfo" => Asked::Reply(Reply::of(json!({
                    "vendor": "Sekisho",
                    "product": "Sekisho laptop",
                    "version": version,
                    "url": "",
                    "interfaces": [SERVICE, INTERFACE],
                }))),
                "Diagnose" => Asked::Diagnosis,
                "AskAgain" => Asked::AskAgain,
                _ if call.more => Asked::Watch,
                _ => Asked::Status,
            }
        }
        (SERVICE | INTERFACE, _) => not_found("MethodNotFound", "method", &call.method),
        _ => not_found("InterfaceNotFound", "interface", interface),
    }
}

fn answer(parameters: Option<&mut Map<String, Value>>) -> Asked {
    let Some(parameters) = parameters else {
        return invalid("id");
    };
    let id = parameters.get("id").and_then(Value::as_u64);
    let Some(id) = id.and_then(|id| u32::try_from(id).ok()) else {
        return invalid("id");
    };
    if let Some(superfluous) = parameters
        .keys()
        .find(|key| !matches!(key.as_str(), "id" | "answer"))
    {
        return invalid(superfluous);
    }
    let answer = match parameters.get_mut("answer") {
        Some(Value::String(text)) => Secret::new(std::mem::take(text)).ok(),
        _ => None,
    };
    answer.map_or_else(
        || invalid("answer"),
        |answer| Asked::Answer(DemandId(id), answer),
    )
}

fn description(parameters: &Map<String, Value>) -> Asked {
    if let Some(superfluous) = parameters.keys().find(|key| *key != "interface") {
        return invalid(superfluous);
    }
    let description = match parameters.get("interface").and_then(Value::as_str) {
        Some(INTERFACE) => DESCRIPTION,
        Some(SERVICE) => SERVICE_DESCRIPTION,
        Some(other) => return not_found("InterfaceNotFound", "interface", other),
        None => return invalid("interface"),
    };
    Asked::Reply(Reply::of(json!({ "description": description })))
}

fn invalid(parameter: &str) -> Asked {
    Asked::Reply(Reply::error(
        "InvalidParameter",
        json!({ "parameter": parameter }),
    ))
}

fn not_found(error: &str, what: &str, name: &str) -> Asked {
    Asked::Reply(Reply::error(error, json!({ what: name })))
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

    fn call(text: &str) -> Asked {
        asked(&mut serde_json::from_str(text).unwrap(), "1.2.3")
    }

    fn error_of(text: &str) -> (String, Value) {
        match call(text) {
            Asked::Reply(reply) => (reply.error.unwrap(), reply.parameters.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(
            call(r#"{"method":"jp.sekisho.Laptop.GetStatus"}"#),
            Asked::Status
        );
        assert_eq!(
            call(r#"{"method":"jp.sekisho.Laptop.GetStatus","parameters":{},"more":true}"#),
            Asked::Watch
        );
        assert_eq!(
            call(r#"{"method":"jp.sekisho.Laptop.Diagnose","new":"field"}"#),
            Asked::Diagnosis
        );
        let Asked::Reply(info) = call(r#"{"method":"org.varlink.service.GetInfo"}"#) else {
            panic!();
        };
        let info = info.parameters.unwrap();
        assert_eq!(info["version"], "1.2.3");
        assert_eq!(info["interfaces"], json!([SERVICE, INTERFACE]));
        for name in [SERVICE, INTERFACE] {
            let text = json!({
                "method": "org.varlink.service.GetInterfaceDescription",
                "parameters": { "interface": name },
            });
            let Asked::Reply(reply) = call(&text.to_string()) else {
                panic!();
            };
            let description = reply.parameters.unwrap()["description"].clone();
            let text = description.as_str().unwrap();
            assert!(text.contains(&format!("\ninterface {name}\n")), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_has_the_name_that_the_protocol_gives_it() {
        let expect = |text: &str, error: &str, parameters: Value| {
            let (name, told) = error_of(text);
            assert_eq!(name, format!("org.varlink.service.{error}"));
            assert_eq!(told, parameters);
        };
        expect(
            r#"{"method":"jp.sekisho.Laptop.Open"}"#,
            "MethodNotFound",
            json!({ "method": "jp.sekisho.Laptop.Open" }),
        );
        expect(
            r#"{"method":"org.example.Ping"}"#,
            "InterfaceNotFound",
            json!({ "interface": "org.example" }),
        );
        expect(
            r#"{"method":""}"#,
            "InterfaceNotFound",
            json!({ "interface": "" }),
        );
        expect(
            r#"{"method":"org.varlink.service.GetInterfaceDescription"}"#,
            "InvalidParameter",
            json!({ "parameter": "interface" }),
        );
        expect(
            r#"{"method":"jp.sekisho.Laptop.GetStatus","parameters":{"port":"eth0"}}"#,
            "InvalidParameter",
            json!({ "parameter": "port" }),
        );
    }

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
