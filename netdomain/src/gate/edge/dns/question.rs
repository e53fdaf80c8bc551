//! The guest's question: parsed once, and asked again in the gate's own words.
//!
//! Nothing of the guest's message goes on but name, type and whether to recurse. Upper and lower
//! case, options of EDNS, flags and what follows the question would each carry data out past every
//! bound on names (T45).

use super::Pending;
use super::stream::LENGTH;
use super::wire::{
    CLASS_IN, FLAG_ANSWER, HEADER, MAX_LABEL, MAX_NAME, MAX_QUESTION, OPCODE, RECURSION_DESIRED,
    TYPE_AND_CLASS, kind, short,
};

/// Room for a question with EDNS options; programs send well below 512 bytes.
pub(super) const MAX_QUERY: usize = 1024;
/// Bytes of an OPT record without options (RFC 6891, section 6.1.2).
const OPT: usize = 11;
/// The longest query of the gate's own.
pub(super) const MAX_OWN: usize = HEADER + MAX_QUESTION + OPT;
/// Shortest answer that every resolver must take (RFC 1035, section 4.2.1).
const LEAST_ANSWER: u16 = 512;
/// Longest answer that we ask for: with its headers it fits the smallest MTU of a path, 1280, so no
/// answer comes in fragments.
const MOST_ANSWER: u16 = 1232;

/// What becomes of a question of some type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the programs of a work OS ask for.
    Plain,
    /// Hints that carry addresses of both kinds (RFC 9460), and addresses of IPv6 where that is not
    /// carried: there is nothing to answer.
    Absent,
    /// TXT, NULL, ANY and all others: rarely asked, and roomy enough to be a tunnel's favourites.
    Bulky,
    /// Transfers of zones: not a stub resolver's business.
    Transfer,
}

impl Kind {
    const fn of(number: u16, ipv6: bool) -> Self {
        match number {
            kind::AAAA if ipv6 => Self::Plain,
            kind::A | kind::NS | kind::CNAME | kind::SOA | kind::PTR | kind::MX | kind::SRV => {
                Self::Plain
            }
            kind::AAAA | kind::SVCB | kind::HTTPS => Self::Absent,
            kind::TKEY..kind::ANY => Self::Transfer,
            _ => Self::Bulky,
        }
    }
}

/// A query's question, as far as the gate looks into it.
#[derive(Debug)]
pub struct Question<'a> {
    /// The guest's number for it.
    pub(super) id: u16,
    /// Whether others are to be asked.
    pub(super) recurse: bool,
    /// Name, type and class as they were asked.
    pub(super) bytes: &'a [u8],
    /// The longest answer that the guest takes, if it speaks EDNS.
    room: Option<u16>,
    name: [u8; MAX_NAME],
    name_len: usize,
    /// The type.
    pub(super) number: u16,
}

impl<'a> Question<'a> {
    /// Parses a query: one question of class IN, no answers, an uncompressed name, EDNS perhaps,
    /// nothing behind it.
    pub fn parse(query: &'a [u8]) -> Option<Self> {
        if query.len() < HEADER || query.len() > MAX_QUERY {
            return None;
        }
        let plain = query[2] & (FLAG_ANSWER | OPCODE) == 0;
        let counts = [4, 6, 8, 10].map(|at| short(query, at));
        let additional = match counts {
            [Some(1), Some(0), Some(0), Some(count @ 0..=1)] if plain => count,
            _ => return None,
        };
        let mut name = [0; MAX_NAME];
        let (name_len, at) = read_name(query, &mut name)?;
        let end = at + TYPE_AND_CLASS;
        let bytes = query.get(HEADER..end)?;
        let number = short(query, at)?;
        if short(query, at + 2)? != CLASS_IN {
            return None;
        }
        let room = match (additional, &query[end..]) {
            (0, []) => None,
            (1, record) => Some(read_opt(record)?),
            _ => return None,
        };
        Some(Self {
            id: short(query, 0)?,
            recurse: query[2] & RECURSION_DESIRED != 0,
            bytes,
            room,
            name,
            name_len,
            number,
        })
    }

    /// The name in lower case, without a final dot.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    /// What becomes of it. `ipv6`: whether that is carried.
    pub(super) const fn kind(&self, ipv6: bool) -> Kind {
        Kind::of(self.number, ipv6)
    }

    /// Writes the gate's own query over `out` and gives its length.
    pub(super) fn ask_again(&self, id: u16, out: &mut [u8; MAX_OWN]) -> usize {
        out.fill(0);
        out[..2].copy_from_slice(&id.to_be_bytes());
        out[2] = if self.recurse { RECURSION_DESIRED } else { 0 };
        out[5] = 1;
        let end = HEADER + self.bytes.len();
        out[HEADER..end].copy_from_slice(self.bytes);
        lower(&mut out[HEADER..end]);
        let Some(room) = self.room else {
            return end;
        };
        out[11] = 1;
        let room = room.clamp(LEAST_ANSWER, MOST_ANSWER);
        out[end + 1..end + 3].copy_from_slice(&kind::OPT.to_be_bytes());
        out[end + 3..end + 5].copy_from_slice(&room.to_be_bytes());
        end + OPT
    }
}

/// Writes the gate's own query for a question that is asked again over TCP, its length first, over
/// `out`; gives the length of both.
pub(super) fn ask_plain(held: &Pending, out: &mut [u8; LENGTH + MAX_OWN]) -> usize {
    let question = held.question();
    let len = HEADER + question.len();
    out.fill(0);
    out[..LENGTH].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    let query = &mut out[LENGTH..LENGTH + len];
    query[..2].copy_from_slice(&held.id.to_be_bytes());
    query[2] = if held.guest.recurse {
        RECURSION_DESIRED
    } else {
        0
    };
    query[5] = 1;
    query[HEADER..].copy_from_slice(question);
    lower(&mut query[HEADER..]);
    LENGTH + len
}

/// Puts the name of a question into lower case. Its labels' lengths are below 64, so none of them
/// is a capital letter.
fn lower(question: &mut [u8]) {
    let name = question.len().saturating_sub(TYPE_AND_CLASS);
    question[..name].make_ascii_lowercase();
}

/// Whether `bytes` begins with `question` as [`Question::ask_again`] asks it.
pub(super) fn repeats(bytes: &[u8], question: &[u8]) -> bool {
    let mut own = [0; MAX_QUESTION];
    let Some(own) = own.get_mut(..question.len()) else {
        return false;
    };
    own.copy_from_slice(question);
    lower(own);
    bytes.starts_with(own)
}

/// Reads the question's name into `name`, in lower case with dots; gives its length there and where
/// it ends in the query.
fn read_name(query: &[u8], name: &mut [u8; MAX_NAME]) -> Option<(usize, usize)> {
    let mut len = 0;
    let mut at = HEADER;
    loop {
        let label_len = *query.get(at)?;
        at += 1;
        if label_len == 0 {
            break;
        }
        if label_len > MAX_LABEL {
            return None;
        }
        let label = query.get(at..at + usize::from(label_len))?;
        if len > 0 {
            *name.get_mut(len)? = b'.';
            len += 1;
        }
        for (to, from) in name.get_mut(len..len + label.len())?.iter_mut().zip(label) {
            // A dot inside a label would make one name look like another.
            if *from == b'.' {
                return None;
            }
            *to = from.to_ascii_lowercase();
        }
        len += label.len();
        at += label.len();
    }
    (at - HEADER <= MAX_NAME).then_some((len, at))
}

/// The longest answer that an OPT record (RFC 6891) names; whatever it carries besides is skipped.
fn read_opt(record: &[u8]) -> Option<u16> {
    let options = usize::from(short(record, 9)?);
    let fits = record[0] == 0 && short(record, 1)? == kind::OPT && record.len() == OPT + options;
    if fits { short(record, 3) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, number: u16, behind: &[u8]) -> Vec<u8> {
        let additional = u8::from(!behind.is_empty());
        let mut bytes = vec![0x12, 0x34, 0x01, 0x30, 0, 1, 0, 0, 0, 0, 0, additional];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(behind);
        bytes
    }

    /// An OPT record with a cookie (RFC 7873), and the DNSSEC flag set.
    const COOKIE: [u8; 23] = [
        0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
    ];

    #[test]
    fn t45_nothing_goes_on_but_name_and_type() {
        let asked = query("WwW.Mihon-City.example", kind::A, &COOKIE);
        let question = Question::parse(&asked).unwrap();
        assert_eq!(question.name(), b"www.mihon-city.example");
        let mut own = [0xff; MAX_OWN];
        let len = question.ask_again(7, &mut own);
        let mut wanted = query(
            "www.mihon-city.example",
            kind::A,
            &[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0],
        );
        wanted[..4].copy_from_slice(&[0, 7, 1, 0]);
        assert_eq!(own[..len], wanted);
        assert!(repeats(&own[HEADER..len], question.bytes));
        assert!(!repeats(question.bytes, question.bytes));
    }

    #[test]
    fn what_stands_behind_the_question_must_be_edns_and_end_there() {
        for (behind, good) in [
            (&COOKIE[..], true),
            (&COOKIE[..22], false),
            (&[COOKIE.as_slice(), &[0]].concat()[..], false),
            (&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0][..], false),
        ] {
            let asked = query("mihon-city.example", kind::A, behind);
            assert_eq!(Question::parse(&asked).is_some(), good, "{behind:?}");
        }
        let mut trailing = query("mihon-city.example", kind::A, &[]);
        trailing.push(0);
        assert!(Question::parse(&trailing).is_none());
        let mut chaos = query("mihon-city.example", kind::A, &[]);
        *chaos.last_mut().unwrap() = 3;
        assert!(Question::parse(&chaos).is_none());
    }

    #[test]
    fn types_are_told_apart() {
        for (number, wanted) in [
            (kind::A, Kind::Plain),
            (kind::SRV, Kind::Plain),
            (kind::AAAA, Kind::Absent),
            (kind::HTTPS, Kind::Absent),
            (10, Kind::Bulky),
            (16, Kind::Bulky),
            (kind::ANY, Kind::Bulky),
            (65_399, Kind::Bulky),
            (251, Kind::Transfer),
            (252, Kind::Transfer),
        ] {
            assert_eq!(Kind::of(number, false), wanted, "type {number}");
        }
        assert_eq!(Kind::of(kind::AAAA, true), Kind::Plain);
        assert_eq!(Kind::of(kind::HTTPS, true), Kind::Absent);
    }
}
