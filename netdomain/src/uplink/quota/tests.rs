//! The account against a model: nothing that a clock, a crash or an interface does gives a byte
//! back within a month.

use jiff::{SignedDuration, civil::date};
use proptest::prelude::*;
use sekisho_policy::Draft;

use super::*;

const BOOT: [u8; 16] = [1; 16];

/// A quota as a policy writes it.
fn quota(over: &str) -> Quota {
    let text = include_str!("../../../../tests/lab/policy/policy.toml").to_owned()
        + &format!(
            "\n[[uplink]]\nkind = \"sim\"\nrank = 3\nmonthly_quota = \"1MiB\"\n\
             warn_percent = [80, 95]\nover_quota = {over}\n"
        );
    let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
    draft.policy().uplink[1].quota().unwrap()
}

fn throttle() -> Quota {
    quota("{ action = \"throttle\", rate = \"256kbit/s\" }")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn mark(index: u32, bytes: u64) -> Mark {
    Mark { index, bytes }
}

const MONTH: u64 = 1 << 20;

#[test]
fn the_person_is_told_on_the_way_and_then_it_is_slow() {
    let now = at("2026-11-26T03:00:00Z");
    let mut account = Account::new(throttle(), None, BOOT, now);
    let mut told = Vec::new();
    for percent in 1..=110 {
        account.count(mark(3, MONTH * percent / 100 + 1), now);
        told.extend(account.news().map(|news| (news.percent, news.state)));
    }
    let first = |state| told.iter().find(|(_, s)| *s == state).unwrap().0;
    assert_eq!(first(QuotaState::Warned), 80);
    assert_eq!(first(QuotaState::Throttled), 100);
    assert_eq!(told.len(), 100, "each whole percent once");
    assert_eq!(account.allowance(), Allowance::Slow);
    let mut refusing = Account::new(quota("{ action = \"refuse\" }"), None, BOOT, now);
    refusing.count(mark(3, MONTH), now);
    assert_eq!(refusing.allowance(), Allowance::Nothing);
}

#[test]
fn a_clock_that_goes_back_gives_nothing_back() {
    let mut account = Account::new(throttle(), None, BOOT, at("2026-11-26T03:00:00Z"));
    account.count(mark(3, MONTH), at("2026-11-26T03:00:00Z"));
    for back in [
        "2026-10-26T03:00:00Z",
        "1970-01-01T00:00:00Z",
        "2026-11-30T14:59:59Z",
    ] {
        account.count(mark(3, MONTH), at(back));
        assert_eq!(account.allowance(), Allowance::Slow, "{back}");
    }
    // Midnight in Japan.
    account.count(mark(3, MONTH), at("2026-11-30T15:00:00Z"));
    assert_eq!(account.allowance(), Allowance::Full);
    // A month that was begun early ends when it ends.
    account.count(mark(3, 2 * MONTH), at("2026-11-26T03:00:00Z"));
    assert_eq!(account.allowance(), Allowance::Slow);
    account.count(mark(3, 2 * MONTH), at("2026-12-31T14:00:00Z"));
    assert_eq!(account.allowance(), Allowance::Slow);
}

#[test]
fn a_damaged_record_counts_as_spent_until_the_next_month() {
    let mut account = Account::new(
        throttle(),
        Some(Kept::Damaged),
        BOOT,
        at("2026-11-26T03:00:00Z"),
    );
    assert_eq!(account.allowance(), Allowance::Slow);
    account.count(mark(3, 1), at("2026-12-01T03:00:00Z"));
    assert_eq!(account.allowance(), Allowance::Full);
}

#[test]
fn two_modems_are_each_counted_once() {
    let now = at("2026-11-26T03:00:00Z");
    let mut account = Account::new(throttle(), None, BOOT, now);
    for bytes in [100, 200, 300] {
        account.count(mark(3, bytes), now);
        account.count(mark(4, 2 * bytes), now);
    }
    assert_eq!(account.used, 900);
}

#[derive(Debug, Clone)]
enum Happens {
    /// So many bytes pass and are looked at.
    Moves(u64),
    /// So many bytes pass and the process is killed before it looks; then it starts again.
    Dies(u64),
    /// The laptop is switched off in an orderly way and on again: another boot, counters at zero.
    Boots,
    /// The modem is unplugged and plugged in again: another index, counters at zero.
    Replugged,
    /// The clock jumps by so many days.
    Clock(i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u64..MONTH / 4).prop_map(Happens::Moves),
        2 => (0u64..MONTH / 4).prop_map(Happens::Dies),
        1 => Just(Happens::Boots),
        1 => Just(Happens::Replugged),
        2 => (-40i64..3).prop_map(Happens::Clock),
    ]
}

proptest! {
    /// What the account says was used is what passed since the latest first day of a month that the
    /// clock ever showed; through kills, boots, other interfaces and clocks that go back.
    #[test]
    fn what_passed_is_counted_once(history in prop::collection::vec(happens(), 0..60)) {
        let mut now = at("2026-11-26T03:00:00Z");
        let mut boot = BOOT;
        let (mut index, mut counter) = (3, 0);
        let mut account = Account::new(throttle(), None, boot, now);
        let (mut month, mut passed) = (date(2026, 11, 1), 0);
        for event in history {
            let mut restart = false;
            match event {
                Happens::Moves(bytes) => { counter += bytes; passed += bytes; }
                Happens::Dies(bytes) => { counter += bytes; passed += bytes; restart = true; }
                Happens::Boots => { boot[0] = boot[0].wrapping_add(1); counter = 0; restart = true; }
                Happens::Replugged => { index += 1; counter = 0; }
                Happens::Clock(days) => now += SignedDuration::from_hours(24 * days),
            }
            let begun = calendar::month(calendar::today(now), 1);
            if begun > month {
                month = begun;
                passed = 0;
            }
            if restart {
                let kept = account.usage(if let Happens::Boots = event { [0; 16] } else { boot });
                account = Account::new(throttle(), Some(Kept::Usage(kept)), boot, now);
            }
            account.count(mark(index, counter), now);
            prop_assert_eq!(account.used, passed);
            prop_assert_eq!(account.allowance() == Allowance::Full, passed < MONTH);
        }
    }
}
