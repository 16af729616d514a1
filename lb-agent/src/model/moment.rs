//! Moments for people.

/// A moment in RFC 3339, UTC, from seconds of Unix time: `2026-11-21T15:40:02Z`.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of the year 0, so that leap days end years: 719468 days before 1970.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let moments =
            [(0, "1970-01-01T00:00:00"), (951_868_799, "2000-02-29T23:59:59"), (951_868_800, "2000-03-01T00:00:00")];
        for (seconds, expected) in moments {
            assert_eq!(utc(seconds), format!("{expected}Z"));
        }
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z"); // `date -u -d 2024-12-31T23:59:59Z +%s`
    }
}
