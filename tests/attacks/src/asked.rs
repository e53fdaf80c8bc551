//! What a laptop asks of its person, and what can be said on its status socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use sekisho_lab::{Event, NetLaptop};

use crate::must;

/// Waits until the gate says that the demand is at this stage; its number.
pub fn wait_stage(laptop: &NetLaptop<'_>, mark: usize, stage: &str, limit: Duration) -> u64 {
    let event = must(laptop.wait_event(mark, stage, limit, |event| at_stage(event, stage)));
    event.said["demand"]["id"].as_u64().unwrap_or_default()
}

/// Whether it says that.
pub fn at_stage(event: &Event, stage: &str) -> bool {
    event.is("gate", "demand") && event.said["demand"]["stage"] == stage
}

/// There is no page for whoever has not given what was asked for.
pub fn no_page(laptop: &NetLaptop<'_>) {
    let page = laptop.page(Duration::from_secs(2));
    assert!(page.is_err(), "a page without the second factor: {page:?}");
}

/// Says this on the status socket, as root; what comes back.
pub fn say(laptop: &NetLaptop<'_>, call: &str) -> String {
    let mut socket = must(UnixStream::connect(laptop.status_socket()));
    must(socket.set_read_timeout(Some(Duration::from_secs(5))));
    must(socket.write_all(call.as_bytes()));
    must(socket.write_all(b"\0"));
    let (mut text, mut byte) = (Vec::new(), [0]);
    while must(socket.read(&mut byte)) == 1 && byte[0] != 0 {
        text.push(byte[0]);
    }
    must(String::from_utf8(text))
}

/// The call that answers an asking.
pub fn answer_call(id: u64, answer: &str) -> String {
    format!(
        r#"{{"method":"jp.sekisho.Laptop.Answer","parameters":{{"id":{id},"answer":"{answer}"}}}}"#
    )
}
