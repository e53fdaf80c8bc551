//! What can be wrong with a policy file, told to people with its place.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Report, Severity, SourceCode};

use crate::source::position;

/// Language of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Longer than [`MAX_POLICY`](crate::MAX_POLICY).
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Nested too deeply.
    TooDeep,
    /// No TOML.
    Syntax(String),
    /// A schema number of another version of the product.
    UnknownSchema,
    /// A key or value that the schema does not have.
    Type {
        /// Where, as a path of keys.
        path: String,
        /// What was expected and found.
        message: String,
    },
    /// A rule between values does not hold.
    Rule {
        /// In English.
        en: String,
        /// In Japanese.
        ja: String,
    },
    /// One of the policy's own tests fails.
    TestFails {
        /// Name of the test.
        test: String,
        /// The connection.
        probe: Arc<str>,
        /// What the policy says about it.
        allowed: bool,
        /// The rule that says so.
        rule: String,
    },
}

impl Fault {
    /// The sentence for people.
    pub fn text(&self, lang: Lang) -> String {
        match (self, lang) {
            (Self::TooLong, Lang::En) => "the file is longer than 1 MiB".into(),
            (Self::TooLong, Lang::Ja) => "ファイルが 1 MiB を超えています".into(),
            (Self::NotUtf8, Lang::En) => "the file is not UTF-8; save it as UTF-8".into(),
            (Self::NotUtf8, Lang::Ja) => "UTF-8 ではありません。UTF-8 で保存してください".into(),
            (Self::TooDeep, Lang::En) => "nested more than 16 levels deep".into(),
            (Self::TooDeep, Lang::Ja) => "入れ子が 16 段を超えています".into(),
            (Self::Syntax(message), Lang::En) => message.clone(),
            (Self::Syntax(message), Lang::Ja) => format!("TOML の書き方の誤り: {message}"),
            (Self::UnknownSchema, Lang::En) => {
                "this version of the product understands `schema = 1` only".into()
            }
            (Self::UnknownSchema, Lang::Ja) => {
                "この版の製品が扱えるのは `schema = 1` だけです".into()
            }
            (Self::Type { path, message }, Lang::En) => format!("{message} (at {path})"),
            (Self::Type { path, message }, Lang::Ja) => format!("{path} の誤り: {message}"),
            (Self::Rule { en, .. }, Lang::En) => en.clone(),
            (Self::Rule { ja, .. }, Lang::Ja) => ja.clone(),
            (
                Self::TestFails {
                    test,
                    probe,
                    allowed,
                    rule,
                },
                Lang::En,
            ) => {
                let is = if *allowed { "allowed" } else { "refused" };
                format!("test \"{test}\" fails: `{probe}` is {is} by {rule}")
            }
            (
                Self::TestFails {
                    test,
                    probe,
                    allowed,
                    rule,
                },
                Lang::Ja,
            ) => {
                let is = if *allowed { "許可" } else { "拒否" };
                format!("テスト「{test}」が不合格: `{probe}` は {rule} により{is}されます")
            }
        }
    }
}

/// A fault and its place: bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub fault: Fault,
    /// Where: a range of bytes.
    pub at: Range<usize>,
}

/// A policy file that cannot be used. `Display` is one line a problem, `FILE:LINE:COLUMN:
/// MESSAGE`, as compilers write it; [`PolicyError::render`] shows the lines with carets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    name: Arc<str>,
    text: Arc<str>,
    problems: Vec<Problem>,
}

impl std::error::Error for PolicyError {}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let (line, column) = position(&self.text, problem.at.start);
            let separator = if index == 0 { "" } else { "\n" };
            let text = problem.fault.text(Lang::En);
            write!(f, "{separator}{}:{line}:{column}: {text}", self.name)?;
        }
        Ok(())
    }
}

impl PolicyError {
    pub(crate) fn new(name: Arc<str>, text: Arc<str>, problems: Vec<Problem>) -> Self {
        Self {
            name,
            text,
            problems,
        }
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of each problem, from 1.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.problems
            .iter()
            .map(|problem| position(&self.text, problem.at.start))
    }

    /// The problems with their lines and carets, for a terminal.
    pub fn render(&self, lang: Lang) -> String {
        use fmt::Write as _;
        let source = Arc::new(NamedSource::new(&*self.name, self.text.to_string()));
        let mut out = String::new();
        for problem in &self.problems {
            let shown = Shown {
                text: problem.fault.text(lang),
                at: problem.at.clone(),
                source: Arc::clone(&source),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:?}", Report::new(shown));
        }
        out
    }
}

/// One problem as miette draws it.
#[derive(Debug)]
struct Shown {
    text: String,
    at: Range<usize>,
    source: Arc<NamedSource<String>>,
}

impl std::error::Error for Shown {}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Diagnostic for Shown {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(None, self.at.clone());
        Some(Box::new(std::iter::once(label)))
    }
}
