//! What answers calls.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::message::{Call, Reply};

/// The interface of every service.
pub const SERVICE: &str = "org.varlink.service";
/// What it is.
pub const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// This, and nothing after it.
    Reply(Reply),
    /// This first, and later what [`Service::news`] has, whenever [`Service::revision`] is another.
    Watch(Reply),
}

/// What answers the calls of all connections.
pub trait Service {
    /// Answers a call of this user.
    fn call(&mut self, call: Call, user: u32, now: Duration) -> Answer;

    /// Another number whenever those who watch are to be told.
    fn revision(&self) -> u64 {
        0
    }

    /// What those who watch are told.
    fn news(&self, now: Duration) -> Reply {
        let _ = now;
        Reply::of(json!({}))
    }
}

/// Who answers: a service with one interface beside that of every service.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// What the product is called.
    pub product: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The interface.
    pub interface: &'static str,
    /// Its description (varlink.org, "Interface Definition").
    pub description: &'static str,
}

impl About {
    /// The method of our own interface that is called, or the reply to what is not ours.
    ///
    /// # Errors
    /// The reply.
    pub fn method<'c>(&self, call: &'c Call) -> Result<&'c str, Reply> {
        let Some((interface, method)) = call.method.rsplit_once('.') else {
            return Err(not_found("InterfaceNotFound", "interface", &call.method));
        };
        match (interface, method) {
            (own, method) if own == self.interface => Ok(method),
            (SERVICE, "GetInterfaceDescription") => Err(self.describe(call)),
            (SERVICE, "GetInfo") => Err(takes_nothing(call).err().unwrap_or_else(|| self.info())),
            (SERVICE, _) => Err(self.no_method(call)),
            _ => Err(not_found("InterfaceNotFound", "interface", interface)),
        }
    }

    /// The reply to a call of a method that the interface does not have.
    pub fn no_method(&self, call: &Call) -> Reply {
        not_found("MethodNotFound", "method", &call.method)
    }

    /// The name of an error of our own interface.
    pub fn refusal(&self, name: &str) -> Reply {
        Reply::refusal(&format!("{}.{name}", self.interface))
    }

    fn info(&self) -> Reply {
        Reply::of(json!({
            "vendor": "Sekisho",
            "product": self.product,
            "version": self.version,
            "url": "",
            "interfaces": [SERVICE, self.interface],
        }))
    }

    fn describe(&self, call: &Call) -> Reply {
        let empty = Map::new();
        let parameters = call.parameters.as_ref().unwrap_or(&empty);
        if let Some(superfluous) = parameters.keys().find(|key| *key != "interface") {
            return invalid(superfluous);
        }
        let description = match parameters.get("interface").and_then(Value::as_str) {
            Some(SERVICE) => SERVICE_DESCRIPTION,
            Some(own) if own == self.interface => self.description,
            Some(other) => return not_found("InterfaceNotFound", "interface", other),
            None => return invalid("interface"),
        };
        Reply::of(json!({ "description": description }))
    }
}

/// The call of a method that takes no parameters.
///
/// # Errors
/// The reply to one that has some.
pub fn takes_nothing(call: &Call) -> Result<(), Reply> {
    let superfluous = call.parameters.as_ref().and_then(|map| map.keys().next());
    superfluous.map_or(Ok(()), |name| Err(invalid(name)))
}

/// The reply to a parameter that is missing, superfluous or not of its type.
pub fn invalid(parameter: &str) -> Reply {
    Reply::error("InvalidParameter", json!({ "parameter": parameter }))
}

fn not_found(error: &str, what: &str, name: &str) -> Reply {
    Reply::error(error, json!({ what: name }))
}
