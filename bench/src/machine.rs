//! Where and when a run took place.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// The machine and the moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// UTC, RFC 3339 to the second.
    pub when: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor, as the kernel names it.
    pub cpu: String,
    /// Processors online.
    pub cores: usize,
}

impl Machine {
    /// This machine, now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            when: utc(seconds),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The processor's model in `/proc/cpuinfo`.
fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Seconds of Unix time as RFC 3339, without leap seconds, which Unix time does not count either.
fn utc(seconds: u64) -> String {
    let (mut day, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

const fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_names() {
        for (seconds, name) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), name);
        }
    }

    #[test]
    fn the_model_is_found_among_other_lines() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nflags: x\n"), "A Processor @ 2 GHz");
        assert_eq!(model("processor : 0\n"), "unknown");
    }
}
