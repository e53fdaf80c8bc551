use sekisho_control::{Demand, DemandStage, Factor, Report};
use sekisho_varlink::{
    ACCEPTS, Dropped, MAX_CALL, MAX_OUTPUT, MAX_PEERS, MAX_PER_USER, PeerId, Server,
};
use serde_json::Value;

use super::*;

const STATUS: &[u8] = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\"}\0";
const WATCH: &[u8] = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\",\"more\":true}\0";

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Desk {
    server: Server,
    window: Window,
    ledger: Ledger,
}

impl Desk {
    fn new() -> Self {
        Self {
            server: Server::new(at(0)),
            window: Window::new("1.2.3", Vec::new()),
            ledger: Ledger::new("1.2.3", at(0)),
        }
    }

    fn say(&mut self, id: PeerId, bytes: &[u8], now: u64) -> Result<(), Dropped> {
        let mut view = self.window.onto(&self.ledger);
        self.server.received(id, bytes, &mut view, at(now))
    }

    fn due(&self, now: u64) -> Option<Duration> {
        self.server.due(self.ledger.revision(), at(now))
    }

    fn tick(&mut self, now: u64) -> Vec<(PeerId, Dropped)> {
        let mut view = self.window.onto(&self.ledger);
        self.server.tick(&mut view, at(now))
    }

    /// Takes the whole output, as a client that reads.
    fn take(&mut self, id: PeerId, now: u64) -> Vec<Value> {
        let mut replies = Vec::new();
        loop {
            let output = self.server.output(id).to_vec();
            let Some((end, text)) = output.split_last() else {
                return replies;
            };
            assert_eq!(*end, 0);
            replies.push(serde_json::from_slice(text).unwrap());
            let length = output.len();
            let mut view = self.window.onto(&self.ledger);
            self.server.wrote(id, length, &mut view, at(now)).unwrap();
        }
    }
}

#[test]
fn calls_are_answered_in_order_and_not_faster_than_they_may() {
    let mut desk = Desk::new();
    let id = desk.server.accept(1000, at(0)).unwrap();
    desk.say(id, &STATUS.repeat(20), 0).unwrap();
    assert!(!desk.server.interest(id, at(0)).read, "a reply waits");
    assert_eq!(desk.take(id, 0).len(), 8);
    assert!(!desk.server.interest(id, at(0)).read, "it asks too fast");
    assert_eq!(desk.due(0), Some(at(250)));
    assert_eq!(desk.tick(500), []);
    assert_eq!(desk.take(id, 500).len(), 2);
}

#[test]
fn changes_stream_to_whoever_watches_the_latest_only() {
    let mut desk = Desk::new();
    let id = desk.server.accept(1000, at(0)).unwrap();
    desk.say(id, WATCH, 0).unwrap();
    let first = desk.take(id, 0);
    assert_eq!(first[0]["continues"], true);
    assert_eq!(
        first[0]["parameters"]["status"]["situation"]["state"],
        "unknown"
    );
    assert_eq!(desk.due(0), None, "nothing is due");
    for port in ["eth0", "eth1", "eth2"] {
        desk.ledger.moved(port, at(1));
    }
    assert_eq!(desk.tick(1), []);
    assert!(desk.take(id, 1).is_empty(), "not so soon");
    assert_eq!(desk.due(1), Some(at(250)));
    assert_eq!(desk.tick(250), []);
    let second = desk.take(id, 250);
    assert_eq!(second.len(), 1);
    let uplinks = second[0]["parameters"]["status"]["uplinks"].as_array();
    assert_eq!(uplinks.unwrap().len(), 3);
    // It may keep still as long as it likes, and may not speak.
    assert_eq!(desk.tick(3_600_000), []);
    assert_eq!(desk.say(id, STATUS, 3_600_000), Err(Dropped::NoCall));
}

#[test]
fn a_client_that_stops_reading_or_speaking_is_dropped() {
    let mut desk = Desk::new();
    let stalled = desk.server.accept(1000, at(0)).unwrap();
    let idle = desk.server.accept(1001, at(0)).unwrap();
    desk.say(stalled, WATCH, 0).unwrap();
    for now in 1..100 {
        desk.ledger.moved("eth0", at(now));
        desk.tick(now * 50);
        assert!(desk.server.output(stalled).len() < MAX_OUTPUT);
    }
    assert_eq!(desk.tick(10_000), [(stalled, Dropped::Stalled)]);
    desk.server.close(stalled);
    assert_eq!(desk.tick(60_000), [(idle, Dropped::Idle)]);
}

#[test]
fn what_is_no_call_ends_the_connection() {
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n\0"[..], Dropped::NoCall),
        (b"\0", Dropped::NoCall),
        (b"{\"method\":7}\0", Dropped::NoCall),
        (&[b'['; MAX_CALL], Dropped::TooLong),
        (&[b'['; MAX_CALL + 1], Dropped::TooLong),
    ] {
        let mut desk = Desk::new();
        let id = desk.server.accept(1000, at(0)).unwrap();
        assert_eq!(desk.say(id, bytes, 0), Err(why));
    }
}

#[test]
fn nobody_keeps_the_others_out() {
    let mut desk = Desk::new();
    let mine = (0..10)
        .filter_map(|_| desk.server.accept(1000, at(0)))
        .count();
    assert_eq!(mine, MAX_PER_USER);
    assert!(desk.server.accept(0, at(0)).is_some());
    let many = (0..100)
        .filter_map(|user| desk.server.accept(user, at(10_000)))
        .count();
    assert!(many <= MAX_PEERS);
    assert_eq!(desk.server.len(), MAX_PEERS);
}

#[test]
fn connections_in_a_storm_wait() {
    let mut desk = Desk::new();
    let mut accepted = 0;
    while desk.server.may_accept(at(0)) {
        if let Some(id) = desk.server.accept(1000, at(0)) {
            desk.server.close(id);
        }
        accepted += 1;
    }
    assert_eq!(accepted, ACCEPTS.0);
    assert_eq!(desk.due(0), Some(at(50)));
    assert!(desk.server.may_accept(at(50)));
    // What could not even be taken up counts as well.
    desk.server.missed(at(50));
    assert!(!desk.server.may_accept(at(50)));
}

fn asked(id: u32) -> Report {
    Report::Demand {
        demand: Some(Demand {
            id: DemandId(id),
            gateway: "honcho-tls".into(),
            factor: Factor::Otp,
            stage: DemandStage::Asked,
            ends_ms: Some(180_000),
            tries: 3,
        }),
    }
}

fn answer(id: u32, text: &str) -> Vec<u8> {
    let call = format!(
        r#"{{"method":"jp.sekisho.Laptop.Answer","parameters":{{"id":{id},"answer":"{text}"}}}}"#
    );
    [call.as_bytes(), &[0]].concat()
}

fn error(replies: &[Value]) -> &str {
    replies[0]["error"].as_str().unwrap_or_default()
}

#[test]
fn who_may_answer_is_what_the_kernel_says() {
    let mut desk = Desk::new();
    desk.window = Window::new("1.2.3", vec![1000]);
    desk.ledger.reported("gate", &asked(7), at(0));
    for (user, may) in [(1001, false), (1000, true), (0, true)] {
        let id = desk.server.accept(user, at(0)).unwrap();
        desk.say(id, &answer(7, "755224"), 0).unwrap();
        let replies = desk.take(id, 0);
        let wish = desk.window.take_wish();
        if may {
            assert_eq!(error(&replies), "");
            let given = Secret::new("755224".to_owned()).unwrap();
            assert_eq!(wish, Some(Wish::Answer(DemandId(7), given)));
        } else {
            assert_eq!(error(&replies), "jp.sekisho.Laptop.NotAllowed");
            assert_eq!(wish, None);
        }
        desk.say(id, b"{\"method\":\"jp.sekisho.Laptop.AskAgain\"}\0", 0)
            .unwrap();
        desk.take(id, 0);
        assert_eq!(desk.window.take_wish(), may.then_some(Wish::AskAgain));
    }
}

#[test]
fn an_answer_is_taken_for_what_is_asked_and_one_at_a_time() {
    let mut desk = Desk::new();
    let root = desk.server.accept(0, at(0)).unwrap();
    let not_asked = "jp.sekisho.Laptop.NotAsked";
    desk.say(root, &answer(7, "755224"), 0).unwrap();
    assert_eq!(error(&desk.take(root, 0)), not_asked, "nobody asks");
    desk.ledger.reported("gate", &asked(8), at(0));
    desk.say(root, &answer(7, "755224"), 0).unwrap();
    assert_eq!(error(&desk.take(root, 0)), not_asked, "another asking");
    // Two in one turn: the gate hears one.
    let other = desk.server.accept(0, at(0)).unwrap();
    desk.say(root, &answer(8, "755224"), 0).unwrap();
    desk.say(other, &answer(8, "287082"), 0).unwrap();
    assert_eq!(error(&desk.take(root, 0)), "");
    assert_eq!(error(&desk.take(other, 0)), not_asked);
    let first = Secret::new("755224".to_owned()).unwrap();
    assert_eq!(
        desk.window.take_wish(),
        Some(Wish::Answer(DemandId(8), first))
    );
    // A gate that is gone asks for nothing.
    desk.ledger.ended("gate", "signal: 9", at(1));
    desk.say(root, &answer(8, "755224"), 1).unwrap();
    assert_eq!(error(&desk.take(root, 1)), not_asked);
    assert_eq!(desk.window.take_wish(), None);
}
