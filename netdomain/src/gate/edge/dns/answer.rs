//! A server's answer, looked through before the guest sees it.
//!
//! The city's resolver is asked for names of the city, but a name under its domains may be anyone's
//! to fill: a dynamic update, a delegated zone, a poisoned cache. An answer that leads out of the
//! segments or into what is forbidden is refused (rebinding); one that answers something else than
//! was asked, too.

use std::net::{IpAddr, Ipv4Addr};

use super::wire::{CLASS_IN, HEADER, MAX_LABEL, kind, short};
use crate::gate::admit::Rule;

/// Type, class, time to live and length, behind a record's name.
const RECORD: usize = 10;
/// In a label's length: the rest of the name stands elsewhere (RFC 1035, section 4.1.4).
const POINTER: u8 = 0xc0;

/// What the guest may see of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sound {
    /// All of it.
    Whole,
    /// So many bytes: what stands behind them is additional, and names what it may not.
    Until(usize),
}

/// The sections of an answer, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// One record.
struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let head = skip_name(message, at)?;
        let start = head + RECORD;
        let end = start + usize::from(short(message, head + 8)?);
        Some(Self {
            kind: short(message, head)?,
            class: short(message, head + 2)?,
            data: message.get(start..end)?,
            end,
        })
    }

    /// Whether it names no address, or one that it may name. What carries hints of both kinds names
    /// what nobody asked for: the gate answers such questions itself.
    fn is_inside(&self, may_name: impl Fn(IpAddr) -> bool) -> bool {
        match (self.kind, self.data) {
            (kind::A, &[a, b, c, d]) => may_name(Ipv4Addr::new(a, b, c, d).into()),
            (kind::AAAA, data) => {
                <[u8; 16]>::try_from(data).is_ok_and(|octets| may_name(IpAddr::from(octets)))
            }
            (kind::A | kind::SVCB | kind::HTTPS, _) => false,
            _ => true,
        }
    }
}

/// Looks through `message`, the answer to a question of type `asked` that ends at `at`.
pub(super) fn examine(
    message: &[u8],
    at: usize,
    asked: u16,
    may_name: impl Fn(IpAddr) -> bool,
) -> Result<Sound, Rule> {
    let mut at = at;
    for (section, count) in [
        (Section::Answer, 6),
        (Section::Authority, 8),
        (Section::Additional, 10),
    ] {
        let count = short(message, count).ok_or(Rule::DnsAnswer)?;
        let began = at;
        let mut outside = false;
        // Each record takes eleven bytes at least, so the message's length bounds this.
        for _ in 0..count {
            let record = Record::read(message, at).ok_or(Rule::DnsAnswer)?;
            at = record.end;
            if section == Section::Answer && !answers(&record, asked) {
                return Err(Rule::DnsAnswer);
            }
            outside |= !record.is_inside(&may_name);
        }
        if outside && section == Section::Additional {
            return Ok(Sound::Until(began));
        }
        if outside {
            return Err(Rule::DnsRebinding);
        }
    }
    // Bytes behind the last record are nobody's.
    if at == message.len() {
        Ok(Sound::Whole)
    } else {
        Err(Rule::DnsAnswer)
    }
}

/// Whether a record answers a question of this type: it is of the type, an alias on the way, or a
/// signature of these.
const fn answers(record: &Record<'_>, asked: u16) -> bool {
    let fits = matches!(record.kind, kind::CNAME | kind::DNAME | kind::RRSIG)
        || record.kind == asked
        || asked == kind::ANY;
    fits && record.class == CLASS_IN
}

/// Where the name at `at` ends. Pointers lead backwards (RFC 1035, section 4.1.4), behind the
/// header, and are not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *message.get(at)?;
        match len {
            0 => return Some(at + 1),
            1..=MAX_LABEL => at += 1 + usize::from(len),
            POINTER.. => {
                let to = usize::from(short(message, at)? & 0x3fff);
                return (HEADER..at).contains(&to).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: &[u8] = b"\x03www\x05mihon\x00\x00\x01\x00\x01";
    const INSIDE: [u8; 4] = [10, 12, 10, 5];
    const OUTSIDE: [u8; 4] = [192, 168, 1, 1];

    const INSIDE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

    fn may_name(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets()[..2] == [10, 12],
            IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 0x12],
        }
    }

    fn record(number: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc0, 12];
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
        bytes.extend_from_slice(data);
        bytes
    }

    fn message(sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1];
        for section in sections {
            bytes.extend_from_slice(&u16::try_from(section.len()).unwrap().to_be_bytes());
        }
        bytes.extend_from_slice(QUESTION);
        bytes.extend(sections.iter().flat_map(|section| section.concat()));
        bytes
    }

    fn looked_at(message: &[u8]) -> Result<Sound, Rule> {
        examine(message, HEADER + QUESTION.len(), kind::A, may_name)
    }

    #[test]
    fn an_answer_inside_passes_aliases_and_all() {
        let alias = record(kind::CNAME, b"\x05other\x07example\x00");
        let good = message([&[alias, record(kind::A, &INSIDE)], &[], &[]]);
        assert_eq!(looked_at(&good), Ok(Sound::Whole));
        assert_eq!(looked_at(&message([&[], &[], &[]])), Ok(Sound::Whole));
    }

    #[test]
    fn an_address_outside_is_refused_wherever_it_would_be_believed() {
        let good = [record(kind::A, &INSIDE)];
        let bad = [record(kind::A, &OUTSIDE)];
        let six = [record(kind::AAAA, &[0xfd; 16])];
        let both = [good[0].clone(), bad[0].clone()];
        let none: &[Vec<u8>] = &[];
        for sections in [
            [&bad[..], none, none],
            [&both, none, none],
            [&good, &bad, none],
            [&good, &six, none],
        ] {
            let verdict = looked_at(&message(sections));
            assert_eq!(verdict, Err(Rule::DnsRebinding));
        }
        // Glue beside a good answer is cut off, and no more than that.
        let whole = message([&good, none, none]);
        for glue in [bad, six] {
            let long = message([&good, none, &glue]);
            assert_eq!(looked_at(&long), Ok(Sound::Until(whole.len())));
        }
    }

    #[test]
    fn an_address_of_ipv6_is_looked_at_as_one_of_ipv4_is() {
        let asked = |data: &[u8]| {
            let answer = message([&[record(kind::AAAA, data)], &[], &[]]);
            examine(&answer, HEADER + QUESTION.len(), kind::AAAA, may_name)
        };
        assert_eq!(asked(&INSIDE_V6), Ok(Sound::Whole));
        let mut outside = INSIDE_V6;
        outside[5] = 0x13;
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 12, 10, 5];
        for bad in [&outside[..], &mapped, &INSIDE_V6[..15], &INSIDE] {
            assert_eq!(asked(bad), Err(Rule::DnsRebinding), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let mail = record(kind::MX, b"\x00\x0a\x04mail\x00");
        let mut chaos = record(kind::A, &INSIDE);
        chaos[5] = 3;
        let short_address = record(kind::A, &INSIDE[..3]);
        for (odd, rule) in [
            (mail, Rule::DnsAnswer),
            (chaos, Rule::DnsAnswer),
            (short_address, Rule::DnsRebinding),
        ] {
            assert_eq!(looked_at(&message([&[odd], &[], &[]])), Err(rule));
        }
        let mut trailing = message([&[], &[], &[]]);
        trailing.push(0);
        assert_eq!(looked_at(&trailing), Err(Rule::DnsAnswer));
        let mut forward = message([&[record(kind::A, &INSIDE)], &[], &[]]);
        let at = HEADER + QUESTION.len() + 1;
        forward[at] = u8::try_from(at).unwrap();
        assert_eq!(
            looked_at(&forward),
            Err(Rule::DnsAnswer),
            "a pointer to itself"
        );
    }

    proptest! {
        /// Whatever passes names no address but such as it may name.
        #[test]
        fn nothing_that_passes_leads_outside(
            answers in prop::collection::vec(any::<[u8; 4]>(), 0..6),
            glue in prop::collection::vec(any::<[u8; 4]>(), 0..6),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let records = |addresses: &[[u8; 4]]| -> Vec<Vec<u8>> {
                let near = |a: &[u8; 4]| if a[0] < 200 { [10, 12, a[2], a[3]] } else { *a };
                addresses.iter().map(|address| record(kind::A, &near(address))).collect()
            };
            let mut bytes = message([&records(&answers), &[], &records(&glue)]);
            let start = HEADER + QUESTION.len();
            for (at, value) in flips {
                if bytes.len() > start {
                    let at = start + at.index(bytes.len() - start);
                    bytes[at] = value;
                }
            }
            let passed = match looked_at(&bytes) {
                Ok(Sound::Whole) => bytes.len(),
                Ok(Sound::Until(end)) => end,
                Err(_) => return Ok(()),
            };
            let mut at = start;
            while at < passed {
                let record = Record::read(&bytes, at).unwrap();
                if let (kind::A, &[a, b, c, d]) = (record.kind, record.data) {
                    prop_assert!(may_name(Ipv4Addr::new(a, b, c, d).into()));
                }
                at = record.end;
            }
        }
    }
}
