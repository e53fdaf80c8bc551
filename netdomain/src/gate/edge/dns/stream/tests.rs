//! The connections against a client with a TCP of its own, over a wire that loses what it likes.

use std::collections::VecDeque;

use proptest::prelude::*;
use smoltcp::iface::SocketHandle;

use super::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
const MTU: u16 = 1420;
const STEP: Duration = Duration::from_millis(50);

struct World {
    streams: Streams,
    client: Host,
    port: u16,
    now: Moment,
    /// For the next packets, either way: whether they are lost. Then none is.
    losses: VecDeque<bool>,
    asked: Vec<(Ticket, Vec<u8>)>,
}

impl World {
    fn new(losses: Vec<bool>) -> Self {
        let now = Moment::from_boot(Duration::from_secs(1000));
        Self {
            streams: Streams::new(ROUTER, MTU, 1, now),
            client: Host::new(GUEST, MTU, 2, Sums::Checked, now),
            port: 40_000,
            now,
            losses: losses.into(),
            asked: Vec::new(),
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let handle = self.client.add(32 * 1024, 32 * 1024);
        self.port += 1;
        let Host {
            interface, sockets, ..
        } = &mut self.client;
        let socket = sockets.get_mut::<smoltcp::socket::tcp::Socket<'_>>(handle);
        let to = (smoltcp::wire::IpAddress::Ipv4(ROUTER), DNS);
        socket.connect(interface.context(), to, self.port).unwrap();
        handle
    }

    fn lost(&mut self) -> bool {
        self.losses.pop_front().unwrap_or(false)
    }

    /// Everything that is under way arrives or is lost, and some time passes.
    fn step(&mut self) {
        self.client.turn(None, self.now);
        while let Some(packet) = self.client.packet() {
            let segment = smoltcp::wire::TcpPacket::new_checked(&packet[20..]).unwrap();
            let begins = segment.syn() && !segment.ack();
            if !self.lost() {
                self.streams.segment(&packet, begins, self.now);
            }
            self.client.sent(packet);
        }
        self.streams.tick(self.now);
        let mut query = [0; MAX_QUERY];
        while let Some((ticket, len)) = self.streams.question(&mut query, self.now) {
            self.asked.push((ticket, query[..len].to_vec()));
        }
        while let Some(packet) = self.streams.packet() {
            assert!(packet.len() <= usize::from(MTU));
            if !self.lost() {
                self.client.turn(Some(&packet), self.now);
            }
            self.streams.sent(packet);
        }
        self.now = self.now + STEP;
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    fn listening(&self) -> usize {
        let slots = self.streams.slots.iter();
        slots.filter(|slot| slot.phase == Phase::Listening).count()
    }

    fn is_open(&mut self, handle: SocketHandle) -> bool {
        self.client.socket(handle).may_send()
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

#[test]
fn who_waits_for_an_answer_makes_way_last() {
    let mut world = World::new(Vec::new());
    let first = world.connect();
    world.step();
    world.step();
    world
        .client
        .socket(first)
        .send_slice(&framed(b"a question"))
        .unwrap();
    world.step();
    world.step();
    assert_eq!(world.asked.len(), 1);
    let silent: Vec<_> = (0..CONNECTIONS + 3)
        .map(|_| {
            let handle = world.connect();
            world.step();
            world.step();
            handle
        })
        .collect();
    assert!(world.is_open(first), "it waits for its answer");
    let open = silent
        .iter()
        .filter(|handle| world.is_open(**handle))
        .count();
    assert_eq!(open, CONNECTIONS - 1);
    assert!(
        world.is_open(*silent.last().unwrap()),
        "the newest has a place"
    );

    let (ticket, _) = world.asked.remove(0);
    world.streams.answer(ticket, b"an answer", world.now);
    world.step();
    let mut answer = [0; 64];
    let len = world.client.socket(first).recv_slice(&mut answer).unwrap();
    assert_eq!(&answer[..len], framed(b"an answer"));
    // The same answer again, and one that comes when the place is another's, say nothing.
    world.streams.answer(ticket, b"an answer", world.now);
    world.pass(Duration::from_secs(30));
    let next = world.connect();
    world.step();
    world.streams.answer(ticket, b"an answer", world.now);
    world.step();
    assert!(!world.client.socket(next).can_recv());
}

#[test]
fn a_question_that_is_too_long_ends_the_connection() {
    let mut world = World::new(Vec::new());
    let handle = world.connect();
    world.step();
    world.step();
    let length = u16::try_from(MAX_QUERY + 1).unwrap().to_be_bytes();
    world.client.socket(handle).send_slice(&length).unwrap();
    world.step();
    world.step();
    assert!(!world.is_open(handle));
    assert!(world.asked.is_empty());
    assert_eq!(world.listening(), CONNECTIONS);
}

proptest! {
    /// Whatever is lost on the way, and however the questions are cut, the client reads a beginning
    /// of the answers in their order, all of them where nothing is lost and the client is not too slow to
    /// be waited for; and when it falls silent,
    /// every place is free again and nothing is due.
    #[test]
    fn answers_come_in_order_and_nothing_stays(
        losses in prop::collection::vec(any::<bool>(), 0..24),
        questions in prop::collection::vec((1usize..200, 0usize..3000), 1..5),
        cuts in prop::collection::vec(1usize..90, 1..6),
    ) {
        // Eight bytes a turn bring the longest question within half of `SPEAKS_WITHIN`.
        let quick = cuts.iter().sum::<usize>() >= 8 * cuts.len();
        let whole = quick && losses.iter().all(|lost| !lost);
        let mut world = World::new(losses);
        let handle = world.connect();
        let mut unsent: Vec<u8> = Vec::new();
        let mut expected = Vec::new();
        for (number, (question, answer)) in (0u8..).zip(&questions) {
            unsent.extend(framed(&vec![number; *question]));
            expected.extend(framed(&vec![number; *answer]));
        }
        let (mut read, mut cut) = (Vec::new(), cuts.iter().cycle());
        for _ in 0..400 {
            let socket = world.client.socket(handle);
            if socket.may_send() && !unsent.is_empty() {
                let len = (*cut.next().unwrap()).min(unsent.len());
                let sent = socket.send_slice(&unsent[..len]).unwrap_or(0);
                unsent.drain(..sent);
            }
            world.step();
            for (ticket, question) in std::mem::take(&mut world.asked) {
                let number = usize::from(question[0]);
                prop_assert_eq!(question.len(), questions[number].0);
                let answer = vec![question[0]; questions[number].1];
                world.streams.answer(ticket, &answer, world.now);
            }
            let mut buffer = [0; 4096];
            let socket = world.client.socket(handle);
            while let Ok(len @ 1..) = socket.recv_slice(&mut buffer) {
                read.extend_from_slice(&buffer[..len]);
            }
        }
        prop_assert!(expected.starts_with(&read));
        prop_assert!(!whole || read == expected, "{} of {}", read.len(), expected.len());

        world.client.socket(handle).abort();
        world.pass(Duration::from_secs(30));
        prop_assert_eq!(world.listening(), CONNECTIONS);
        prop_assert_eq!(world.streams.due(world.now), None);
    }
}
