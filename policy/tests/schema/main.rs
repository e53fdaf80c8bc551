//! The file format: what is refused, where the error points, and what it says.

mod bandwidth;
mod file;
mod flows;
mod gateways;
mod office;
mod radios;

use sekisho_policy::{Draft, Lang};

const SAMPLE: &str = include_str!("../../../tests/lab/policy/policy.toml");

/// The sample with one piece of text replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(
        SAMPLE.matches(old).count(),
        1,
        "`{old}` must be in the sample once"
    );
    SAMPLE.replace(old, new)
}

/// Parses; gives `LINE:COLUMN MESSAGE` of the first problem, and checks that the place is that of
/// `mark` in the text.
#[track_caller]
fn refused(text: &str, mark: &str, message: &str) {
    let error = Draft::parse("policy.toml", text.as_bytes()).expect_err("must be refused");
    let first = error.problems()[0].fault.text(Lang::En);
    assert!(first.contains(message), "expected `{message}` in: {first}");
    // The mark may stand elsewhere too: look from the first line that was changed.
    let same: usize = text
        .split_inclusive('\n')
        .zip(SAMPLE.split_inclusive('\n'))
        .take_while(|(ours, sample)| ours == sample)
        .map(|(line, _)| line.len())
        .sum();
    let offset = same + text[same..].find(mark).expect("the mark is in the text");
    let line = text[..offset].matches('\n').count() + 1;
    let column = text[..offset]
        .chars()
        .rev()
        .take_while(|&c| c != '\n')
        .count()
        + 1;
    assert_eq!(error.positions().next(), Some((line, column)), "{error}");
    assert!(
        error
            .to_string()
            .starts_with(&format!("policy.toml:{line}:{column}: "))
    );
}

#[test]
fn the_sample_is_correct_and_its_tests_hold() {
    let draft = Draft::parse("policy.toml", SAMPLE.as_bytes()).unwrap();
    assert_eq!(draft.run_tests().unwrap(), 4);
    assert_eq!(draft.policy().flow.len(), 4);
}
