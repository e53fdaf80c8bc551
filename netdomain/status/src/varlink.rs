//! The interface `jp.sekisho.Laptop`: what its calls ask for. No socket, no clock.

use sekisho_control::{DemandId, Secret};
use sekisho_varlink::{About, Call, Reply, invalid, takes_nothing};
use serde_json::{Map, Value};

/// Our interface.
pub const INTERFACE: &str = "jp.sekisho.Laptop";
/// What our interface is.
pub const DESCRIPTION: &str = include_str!("jp.sekisho.Laptop.varlink");
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
pub fn asked(call: &mut Call, version: &'static str) -> Asked {
    let about = about(version);
    let simple = match about.method(call) {
        Ok("Answer") => return answer(call.parameters.as_mut()),
        Ok("GetStatus") if call.more => Asked::Watch,
        Ok("GetStatus") => Asked::Status,
        Ok("Diagnose") => Asked::Diagnosis,
        Ok("AskAgain") => Asked::AskAgain,
        Ok(_) => return Asked::Reply(about.no_method(call)),
        Err(reply) => return Asked::Reply(reply),
    };
    takes_nothing(call).map_or_else(Asked::Reply, |()| simple)
}

/// Who answers.
pub(crate) const fn about(version: &'static str) -> About {
    About {
        product: "Sekisho laptop",
        version,
        interface: INTERFACE,
        description: DESCRIPTION,
    }
}

fn answer(parameters: Option<&mut Map<String, Value>>) -> Asked {
    let Some(parameters) = parameters else {
        return Asked::Reply(invalid("id"));
    };
    let id = parameters.get("id").and_then(Value::as_u64);
    let Some(id) = id.and_then(|id| u32::try_from(id).ok()) else {
        return Asked::Reply(invalid("id"));
    };
    if let Some(superfluous) = parameters
        .keys()
        .find(|key| !matches!(key.as_str(), "id" | "answer"))
    {
        return Asked::Reply(invalid(superfluous));
    }
    let answer = match parameters.get_mut("answer") {
        Some(Value::String(text)) => Secret::new(std::mem::take(text)).ok(),
        _ => None,
    };
    answer.map_or_else(
        || Asked::Reply(invalid("answer")),
        |answer| Asked::Answer(DemandId(id), answer),
    )
}

#[cfg(test)]
mod tests {
    use sekisho_varlink::SERVICE;
    use serde_json::json;

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
}
