//! The policy file's text: bounded parsing, and where things stand in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_path_to_error::Segment;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::fault::{Fault, PolicyError, Problem};
use crate::schema::{Policy, SCHEMA};

/// Longest policy file, in bytes. The example of a whole city has 10 KiB; a hundred times that is
/// a mistake, and the bound keeps parsing under a few hundred milliseconds.
pub const MAX_POLICY: usize = 1024 * 1024;
/// Deepest nesting of brackets, and most dots in one key. The schema needs 4; the bound keeps the
/// parser's recursion far from the end of any stack.
const MAX_DEPTH: usize = 16;

/// One step from the file's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Into the value of a key.
    Key(&'a str),
    /// Into an element of an array.
    Index(usize),
}

/// The text of a policy file, with the places of its values.
#[derive(Debug)]
pub(crate) struct Source {
    name: Arc<str>,
    text: Arc<str>,
    root: Spot,
}

/// Where a value and its parts stand.
#[derive(Debug)]
struct Spot {
    at: Range<usize>,
    keys: BTreeMap<String, Spot>,
    items: Vec<Spot>,
}

impl Spot {
    /// Recurses as deep as [`too_deep`] lets a file nest.
    fn of(value: &DeValue<'_>, at: Range<usize>) -> Self {
        let (mut keys, mut items) = (BTreeMap::new(), Vec::new());
        match value {
            DeValue::Table(table) => keys = Self::of_table(table),
            DeValue::Array(array) => {
                items = array
                    .iter()
                    .map(|item| Self::of(item.get_ref(), item.span()))
                    .collect();
            }
            _ => {}
        }
        Self { at, keys, items }
    }

    /// The value that a path leads to, where it lies inside `outer`: the parser gives a value
    /// that one of our own types refused the place of its whole array.
    fn narrow(&self, path: &serde_path_to_error::Path, outer: Range<usize>) -> Range<usize> {
        let mut spot = self;
        for segment in path {
            let next = match segment {
                Segment::Map { key } => spot.keys.get(key),
                Segment::Seq { index } => spot.items.get(*index),
                Segment::Enum { .. } | Segment::Unknown => None,
            };
            match next {
                Some(next) => spot = next,
                None => return outer,
            }
        }
        let inside = outer.start <= spot.at.start && spot.at.end <= outer.end;
        if inside { spot.at.clone() } else { outer }
    }

    fn of_table(table: &DeTable<'_>) -> BTreeMap<String, Self> {
        table
            .iter()
            .map(|(key, value)| {
                (
                    key.get_ref().to_string(),
                    Self::of(value.get_ref(), value.span()),
                )
            })
            .collect()
    }
}

impl Source {
    /// Parses a file into its typed form; the rules that tie values together are not checked yet.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<(Self, Policy), Box<PolicyError>> {
        let refuse = |text: &str, fault: Fault, at: Range<usize>| {
            Box::new(PolicyError::new(
                name.into(),
                text.into(),
                vec![Problem { fault, at }],
            ))
        };
        if bytes.len() > MAX_POLICY {
            return Err(refuse("", Fault::TooLong, 0..0));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                let at = error.valid_up_to();
                return Err(refuse(&text, Fault::NotUtf8, at..at));
            }
        };
        if let Some(at) = too_deep(text) {
            return Err(refuse(text, Fault::TooDeep, at));
        }
        let syntax = |error: &toml::de::Error| {
            let at = error.span().unwrap_or(0..0);
            refuse(text, Fault::Syntax(error.message().to_owned()), at)
        };
        let root = DeTable::parse(text).map_err(|error| syntax(&error))?;
        if let Some(schema) = root.get_ref().get("schema") {
            let number = schema.get_ref().as_integer();
            let number = number.and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok());
            if number != Some(SCHEMA) {
                return Err(refuse(text, Fault::UnknownSchema, schema.span()));
            }
        }
        let spots = Spot {
            at: 0..0,
            keys: Spot::of_table(root.get_ref()),
            items: Vec::new(),
        };
        let typed = toml::de::Deserializer::from(root);
        let policy: Policy = serde_path_to_error::deserialize(typed).map_err(|error| {
            let fault = Fault::Type {
                path: error.path().to_string(),
                message: error.inner().message().to_owned(),
            };
            let outer = error.inner().span().unwrap_or(0..text.len());
            refuse(text, fault, spots.narrow(error.path(), outer))
        })?;
        Ok((
            Self {
                name: name.into(),
                text: text.into(),
                root: spots,
            },
            policy,
        ))
    }

    /// An error about this file.
    pub(crate) fn error(&self, problems: Vec<Problem>) -> PolicyError {
        PolicyError::new(self.name.clone(), self.text.clone(), problems)
    }

    /// Where a value stands; the deepest part of the path that is there.
    pub(crate) fn span(&self, path: &[Step<'_>]) -> Range<usize> {
        let mut spot = &self.root;
        for step in path {
            let next = match step {
                Step::Key(key) => spot.keys.get(*key),
                Step::Index(index) => spot.items.get(*index),
            };
            match next {
                Some(next) => spot = next,
                None => break,
            }
        }
        spot.at.clone()
    }

    /// Line of a value, from 1.
    pub(crate) fn line(&self, path: &[Step<'_>]) -> usize {
        let at = self.span(path).start;
        position(&self.text, at).0
    }
}

/// Line and column (in characters) of a byte offset, both from 1.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Where brackets nest, or a key's dots chain, deeper than [`MAX_DEPTH`]. Lexical, so that nothing
/// recurses before the depth is known.
fn too_deep(text: &str) -> Option<Range<usize>> {
    let (mut brackets, mut dots) = (0_usize, 0_usize);
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                brackets += 1;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                brackets = brackets.saturating_sub(1);
                dots = 0;
            }
            TokenKind::Dot => dots += 1,
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if brackets > MAX_DEPTH || dots > MAX_DEPTH {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}
