//! The other end of a service's socket. It waits, and not forever.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    MAX_OUTPUT,
    message::{Call, Reply, encode, take_message},
};

/// A service answers at once; one that does not in this time has died.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not connect.
    #[error("{path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
    /// The service closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The answer is an error.
    #[error("the answer is an error: {0}")]
    Refused(String),
    /// The answer is not what it should be.
    #[error("the answer cannot be understood: {0}")]
    Malformed(String),
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    input: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.display().to_string(),
            source,
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            input: Vec::new(),
        })
    }

    /// How long to wait for the next reply.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Calls `INTERFACE.METHOD`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn call(
        &mut self,
        method: &str,
        parameters: Option<Map<String, Value>>,
        more: bool,
    ) -> Result<(), ClientError> {
        let call = Call {
            method: method.to_owned(),
            parameters,
            oneway: false,
            more,
        };
        Ok(self.socket.write_all(&Zeroizing::new(encode(&call)))?)
    }

    /// The next reply.
    ///
    /// # Errors
    /// It is an error, or none comes.
    pub fn reply(&mut self) -> Result<Reply, ClientError> {
        let mut chunk = [0; 8192];
        loop {
            if let Some(message) = take_message(&mut self.input) {
                let reply: Reply = serde_json::from_slice(&message)
                    .map_err(|error| ClientError::Malformed(error.to_string()))?;
                return match reply.error {
                    Some(error) => Err(ClientError::Refused(error)),
                    None => Ok(reply),
                };
            }
            if self.input.len() > MAX_OUTPUT {
                return Err(ClientError::Malformed("it does not end".to_owned()));
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A field of a reply.
///
/// # Errors
/// It is not there, or of another type.
pub fn field<T: DeserializeOwned>(reply: Reply, name: &str) -> Result<T, ClientError> {
    let mut parameters = reply.parameters.unwrap_or_default();
    let value = parameters
        .get_mut(name)
        .map(Value::take)
        .ok_or_else(|| ClientError::Malformed(format!("it has no `{name}`")))?;
    serde_json::from_value(value).map_err(|error| ClientError::Malformed(error.to_string()))
}
