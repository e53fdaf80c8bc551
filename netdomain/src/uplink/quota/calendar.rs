//! Months that begin on a given day, in Japan.

use jiff::{
    Timestamp,
    civil::Date,
    tz::{Offset, offset},
};

/// Japan has had no summer time since 1951: a fixed offset, and no time zone files.
const JAPAN: Offset = offset(9);

/// The date in Japan.
pub(super) fn today(now: Timestamp) -> Date {
    JAPAN.to_datetime(now).date()
}

/// First day of the month that `day` is in, where months begin on day `resets`, or on their last
/// day where they are too short.
pub(super) fn month(day: Date, resets: u8) -> Date {
    let this = begin(day, resets);
    if this <= day {
        return this;
    }
    // The last day of the month before; there is none before the first month of time.
    day.first_of_month()
        .yesterday()
        .map_or(day, |before| begin(before, resets))
}

/// The day in the calendar month of `day` on which a month begins.
fn begin(day: Date, resets: u8) -> Date {
    let number = i8::try_from(resets)
        .unwrap_or(i8::MAX)
        .clamp(1, day.days_in_month());
    day.with().day(number).build().unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_begin_on_their_day() {
        for (day, resets, first) in [
            (date(2026, 11, 26), 1, date(2026, 11, 1)),
            (date(2026, 11, 1), 1, date(2026, 11, 1)),
            (date(2026, 11, 26), 27, date(2026, 10, 27)),
            (date(2026, 1, 5), 20, date(2025, 12, 20)),
            (date(2026, 2, 28), 31, date(2026, 2, 28)),
            (date(2026, 2, 27), 31, date(2026, 1, 31)),
            (date(2028, 2, 28), 30, date(2028, 1, 30)),
            (date(2028, 2, 29), 30, date(2028, 2, 29)),
        ] {
            assert_eq!(month(day, resets), first, "{day} {resets}");
        }
    }

    #[test]
    fn the_day_is_japans() {
        let day = |text: &str| today(text.parse().unwrap());
        assert_eq!(day("2026-10-31T14:59:59Z"), date(2026, 10, 31));
        assert_eq!(day("2026-10-31T15:00:00Z"), date(2026, 11, 1));
    }

    proptest! {
        /// Each day is in the month that begins on or before it, months follow each other in order,
        /// and each is 27 to 32 days long.
        #[test]
        fn months_cover_all_days(days in 0i32..40_000, resets in 1u8..=31) {
            let day = date(1990, 1, 1).saturating_add(jiff::Span::new().days(days));
            let this = month(day, resets);
            let next = month(day.tomorrow().unwrap(), resets);
            prop_assert!(this <= day && (day - this).get_days() < 32);
            prop_assert!(next == this || next == day.tomorrow().unwrap());
            prop_assert_eq!(month(this, resets), this);
        }
    }
}
