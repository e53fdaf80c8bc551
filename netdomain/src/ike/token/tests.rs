//! The token against its promise: no more PINs than it can bear.

use proptest::prelude::*;

use super::*;

fn said(lines: &[&str]) -> Option<Found> {
    let mut words = Words::default();
    for line in lines {
        words.hear(&format!("{line}\n"));
    }
    words.found()
}

/// Lines of charon 5.9.8 with `SoftHSM`.
#[test]
fn what_charon_says_of_a_token_is_understood_and_nothing_else_is() {
    let found = "16[CFG] found key on PKCS#11 token 'token':821501103";
    let closed = "16[CFG] no PIN found for PKCS#11 key 0a";
    let wrong = "07[CFG] login to 'token':821501103 failed: PIN_INCORRECT";
    let locked = "07[CFG] login to 'token':821501103 failed: PIN_LOCKED";
    let gone = "08[CFG] opening PKCS#11 session failed: TOKEN_NOT_RECOGNIZED";
    let absent = "08[CFG] no PKCS#11 module found having a keyid 0a";
    assert_eq!(said(&[found]), None);
    assert_eq!(said(&[gone]), None);
    assert_eq!(said(&[found, closed]), Some(Found::Closed));
    assert_eq!(said(&[found, wrong]), Some(Found::Refused));
    assert_eq!(said(&[found, locked]), Some(Found::Locked));
    assert_eq!(said(&[gone, absent]), Some(Found::Absent));
    // Where a PIN was tried it was tried, whatever else is said.
    assert_eq!(said(&[wrong, absent]), Some(Found::Refused));
    assert_eq!(said(&[absent, wrong]), Some(Found::Refused));
    // A token's own label is no word of charon's.
    let label = "00[CFG]     no PKCS#11 module found having a keyid (SoftHSM project)";
    assert_eq!(said(&[label]), None);
}

fn pin() -> Secret {
    Secret::new("271828".into()).unwrap()
}

#[test]
fn a_token_is_not_asked_a_third_time_before_it_has_said_something() {
    let mut known = Known::default();
    for _ in 0..MOST {
        assert!(known.may_begin());
        // The path is lost while charon is at it, and the next attempt begins.
        known.trying(Some(pin()));
        known.left();
        assert!(known.good().is_none(), "of what it was nothing was heard");
    }
    assert!(!known.may_begin());
    assert_eq!(known.fault(), Some(TokenFault::Spent));
}

#[test]
fn the_pin_of_a_file_is_wrong_once() {
    let mut known = Known::default();
    known.trying(None);
    known.refused(true);
    assert!(!known.may_begin());
}

#[test]
fn a_pin_is_kept_while_it_is_good_and_no_longer() {
    let mut known = Known::default();
    known.trying(Some(pin()));
    known.opened();
    let kept = known.good();
    assert_eq!(kept, Some(pin()));
    assert!(known.good().is_none(), "it is at one place");
    known.trying(kept);
    known.opened();
    known.left();
    assert!(known.good().is_some());
    for end in [
        |known: &mut Known| known.forget(),
        |known: &mut Known| known.refused(false),
        |known: &mut Known| known.absent(true),
        |known: &mut Known| known.left(),
    ] {
        let mut known = Known::default();
        known.trying(Some(pin()));
        end(&mut known);
        known.opened();
        assert!(known.good().is_none());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Try { wrong: bool },
    Cut,
    Pulled,
}

proptest! {
    /// Whatever is typed, pulled and cut: a card that locks itself after three wrong PINs in a row is
    /// not locked by us, and one that is not there costs nothing.
    #[test]
    fn a_card_of_three_tries_is_never_locked(steps in prop::collection::vec(
        prop_oneof![
            any::<bool>().prop_map(|wrong| Step::Try { wrong }),
            Just(Step::Cut),
            Just(Step::Pulled),
        ],
        0..60,
    )) {
        let mut known = Known::default();
        let mut wrong_in_a_row = 0u8;
        for step in steps {
            let before = known.tries;
            if !known.may_begin() {
                prop_assert_eq!(known.fault(), Some(TokenFault::Spent));
                continue;
            }
            known.trying(Some(pin()));
            match step {
                Step::Try { wrong: true } => {
                    wrong_in_a_row += 1;
                    known.refused(false);
                }
                Step::Try { wrong: false } => {
                    wrong_in_a_row = 0;
                    known.opened();
                }
                // The worst: it was tried, and wrong.
                Step::Cut => {
                    wrong_in_a_row += 1;
                    known.left();
                }
                Step::Pulled => {
                    known.absent(true);
                    prop_assert_eq!(known.tries, before);
                    prop_assert_eq!(known.fault(), Some(TokenFault::Absent));
                }
            }
            prop_assert!(wrong_in_a_row < 3);
        }
    }
}
