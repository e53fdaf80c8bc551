//! The other end of the status socket: what `sekisho` asks with.

use std::{io::ErrorKind, path::Path, time::Duration};

use sekisho_control::{DemandId, Secret};
use sekisho_varlink::client::{self, field};
use serde_json::{Map, Value};

pub use sekisho_varlink::client::ClientError;

use crate::{doctor::Check, status::Status, varlink::INTERFACE};

/// A connection.
#[derive(Debug)]
pub struct Client(client::Client);

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        client::Client::connect(path).map(Self)
    }

    /// The status.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.call("GetStatus", false)?;
        field(self.0.reply()?, "status")
    }

    /// The checked list.
    pub fn diagnose(&mut self) -> Result<Vec<Check>, ClientError> {
        self.call("Diagnose", false)?;
        field(self.0.reply()?, "checks")
    }

    /// Gives the person's answer to this asking. What becomes of it, the status tells.
    pub fn answer(&mut self, id: DemandId, answer: &Secret) -> Result<(), ClientError> {
        let parameters = [
            ("id".to_owned(), Value::from(id.0)),
            ("answer".to_owned(), Value::from(answer.expose())),
        ];
        self.call_with("Answer", Some(parameters.into_iter().collect()), false)?;
        self.0.reply().map(drop)
    }

    /// Says that the person is there.
    pub fn ask_again(&mut self) -> Result<(), ClientError> {
        self.call("AskAgain", false)?;
        self.0.reply().map(drop)
    }

    /// Asks for the status again and again; it comes by [`Client::change`].
    pub fn watch(&mut self) -> Result<(), ClientError> {
        self.call("GetStatus", true)
    }

    /// The next status, if it comes within `patience`.
    pub fn change(&mut self, patience: Duration) -> Result<Option<Status>, ClientError> {
        self.0.set_patience(patience)?;
        match self.0.reply() {
            Ok(reply) => field(reply, "status").map(Some),
            Err(ClientError::Socket(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn call(&mut self, method: &str, more: bool) -> Result<(), ClientError> {
        self.call_with(method, None, more)
    }

    fn call_with(
        &mut self,
        method: &str,
        parameters: Option<Map<String, Value>>,
        more: bool,
    ) -> Result<(), ClientError> {
        let method = format!("{INTERFACE}.{method}");
        self.0.call(&method, parameters, more)
    }
}
