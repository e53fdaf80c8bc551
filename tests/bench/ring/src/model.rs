//! Every interleaving of a producer and a consumer that sleep and ring, on processors that keep
//! their stores back for a while (as x86 does, and more than that is not modelled): nobody sleeps
//! for ever while something could move.

use std::collections::HashSet;

use crate::index::{Bell, Consumer, LINE, Producer};

const RECORD: u64 = LINE as u64;
const CAPACITY: u64 = 4 * RECORD;
const RECORDS: u64 = 9;

/// The words of both ends' memory.
const HEAD: usize = 0;
const TAIL: usize = 1;
const WANT_ROOM: usize = 2;
const WANT_DATA: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Try,
    Announce,
    AnnounceFence,
    LookAgain,
    Sleep,
    Publish,
    PublishFence,
    LookForSleeper,
    Done,
}

/// Stores that only their own processor sees yet, oldest first.
type Pending = Vec<(usize, u64)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    memory: [u64; 4],
    pending: [Pending; 2],
    steps: [Step; 2],
    /// Bells on the way to the producer and to the consumer.
    bells: [u8; 2],
    producer: Producer,
    consumer: Consumer,
    rings: [Bell; 2],
    left: u64,
    asleep: bool,
}

const PRODUCER: usize = 0;
const CONSUMER: usize = 1;

impl State {
    fn new() -> Self {
        Self {
            memory: [0; 4],
            pending: [vec![], vec![]],
            steps: [Step::Try; 2],
            bells: [0; 2],
            producer: Producer::new(CAPACITY),
            consumer: Consumer::new(CAPACITY),
            rings: [Bell::default(); 2],
            left: RECORDS,
            asleep: false,
        }
    }

    fn store(&mut self, who: usize, word: usize, value: u64) {
        self.pending[who].push((word, value));
    }

    fn load(&self, who: usize, word: usize) -> u64 {
        let own = self.pending[who].iter().rev().find(|(at, _)| *at == word);
        own.map_or(self.memory[word], |(_, value)| *value)
    }

    fn drain_one(&self, who: usize) -> Option<Self> {
        let mut next = self.clone();
        if next.pending[who].is_empty() {
            return None;
        }
        let (word, value) = next.pending[who].remove(0);
        next.memory[word] = value;
        Some(next)
    }

    /// With `fences` a fence waits until the stores before it are seen by all.
    fn step(&self, who: usize, fences: bool) -> Option<Self> {
        let is_fence = matches!(self.steps[who], Step::AnnounceFence | Step::PublishFence);
        if fences && is_fence && !self.pending[who].is_empty() {
            return None;
        }
        let mut next = self.clone();
        next.steps[who] = if who == PRODUCER {
            next.produce()
        } else {
            next.consume()
        }?;
        Some(next)
    }

    fn push(&mut self) -> bool {
        let pushed = self.producer.push(RECORD).is_some();
        self.left -= u64::from(pushed);
        pushed
    }

    /// What `Outward::room` and `publish` do, a load or a store at a time.
    fn produce(&mut self) -> Option<Step> {
        Some(match self.steps[PRODUCER] {
            Step::Try if self.left == 0 => Step::Done,
            Step::Try => {
                if self.push() {
                    return Some(Step::Publish);
                }
                self.producer.hear(self.load(PRODUCER, TAIL)).unwrap();
                if self.push() {
                    Step::Publish
                } else {
                    Step::Announce
                }
            }
            Step::Announce => {
                self.store(PRODUCER, WANT_ROOM, self.producer.want());
                Step::AnnounceFence
            }
            Step::AnnounceFence => Step::LookAgain,
            Step::LookAgain => {
                self.producer.hear(self.load(PRODUCER, TAIL)).unwrap();
                if self.push() {
                    self.store(PRODUCER, WANT_ROOM, 0);
                    Step::Publish
                } else {
                    Step::Sleep
                }
            }
            Step::Sleep => {
                self.bells[PRODUCER] = self.bells[PRODUCER].checked_sub(1)?;
                Step::Try
            }
            Step::Publish => {
                self.store(PRODUCER, HEAD, self.producer.head());
                Step::PublishFence
            }
            Step::PublishFence => Step::LookForSleeper,
            Step::LookForSleeper => {
                let want = self.load(PRODUCER, WANT_DATA);
                if self.rings[PRODUCER].is_due(want, self.producer.head()) {
                    self.bells[CONSUMER] += 1;
                }
                Step::Try
            }
            Step::Done => return None,
        })
    }

    /// What `Ring::recv_batch` does.
    fn consume(&mut self) -> Option<Step> {
        Some(match self.steps[CONSUMER] {
            Step::Try => {
                if self.consumer.is_drained() {
                    self.consumer.hear(self.load(CONSUMER, HEAD)).unwrap();
                }
                if self.consumer.is_drained() {
                    return Some(Step::Announce);
                }
                self.consumer.pass(RECORD).unwrap();
                Step::Publish
            }
            Step::Announce => {
                // One bell comes off the socket, before this end says that it sleeps.
                self.bells[CONSUMER] = self.bells[CONSUMER].saturating_sub(1);
                self.store(CONSUMER, WANT_DATA, self.consumer.want());
                Step::AnnounceFence
            }
            Step::AnnounceFence => Step::LookAgain,
            Step::LookAgain => {
                self.consumer.hear(self.load(CONSUMER, HEAD)).unwrap();
                if self.consumer.is_drained() {
                    Step::Sleep
                } else {
                    self.store(CONSUMER, WANT_DATA, 0);
                    Step::Try
                }
            }
            Step::Sleep if self.consumer.tail() == RECORDS * RECORD => Step::Done,
            // The bell stays until it is taken off.
            Step::Sleep if self.bells[CONSUMER] > 0 => Step::Try,
            Step::Sleep | Step::Done => return None,
            Step::Publish => {
                self.store(CONSUMER, TAIL, self.consumer.tail());
                Step::PublishFence
            }
            Step::PublishFence => Step::LookForSleeper,
            Step::LookForSleeper => {
                let want = self.load(CONSUMER, WANT_ROOM);
                if self.rings[CONSUMER].is_due(want, self.consumer.tail()) {
                    self.bells[PRODUCER] += 1;
                }
                Step::Try
            }
        })
    }
}

/// How many states there are, and one in which nobody can move although not all is done.
fn explore(fences: bool) -> (usize, Option<State>) {
    let mut seen = HashSet::new();
    let mut open = vec![State::new()];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let before = open.len();
        for who in [PRODUCER, CONSUMER] {
            open.extend(state.step(who, fences));
            open.extend(state.drain_one(who));
        }
        if open.len() == before && state.steps != [Step::Done; 2] {
            return (seen.len(), Some(state));
        }
    }
    (seen.len(), None)
}

#[test]
fn nobody_sleeps_for_ever_in_any_interleaving() {
    let (states, stuck) = explore(true);
    assert_eq!(stuck, None);
    assert!(states > 1_000, "{states} states are no interleavings");
}

#[test]
fn without_the_fences_somebody_does() {
    let (_, stuck) = explore(false);
    let stuck = stuck.expect("the model sees a bell that is never rung");
    assert!(stuck.steps.contains(&Step::Sleep));
}
