//! What a process occupies, as the kernel accounts for it.

use std::fs;

use anyhow::{Context, Result};

/// What the kernel calls a mapped BPF array.
const MAPPED_ARRAY: &str = "anon_inode:bpf-map";
/// Bytes of a kilobyte in `/proc`.
const KILOBYTE: u64 = 1024;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    /// Everything in memory, mapped arrays included (`VmRSS`).
    pub resident: u64,
    /// Its own: heap and stacks (`Pss_Anon`).
    pub anonymous: u64,
    /// Of the resident memory, what lies in mapped BPF arrays, which the kernel has anyway.
    pub arrays: u64,
}

impl Memory {
    /// Of the process with this id, now.
    ///
    /// # Errors
    /// If it has ended.
    pub fn of(process: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let missing = |key: &str| format!("process {process} has no {key}");
        let resident = field(&read("status")?, "VmRSS:").with_context(|| missing("VmRSS"))?;
        let anonymous = field(&read("smaps_rollup")?, "Pss_Anon:").with_context(|| missing("Pss_Anon"))?;
        Ok(Self { resident, anonymous, arrays: arrays(&read("smaps")?) })
    }
}

/// The value of `key`, which `/proc` gives in kilobytes.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * KILOBYTE)
}

/// Sums `Rss` over the mappings of BPF arrays in `smaps`.
fn arrays(smaps: &str) -> u64 {
    let mut is_array = false;
    let mut sum = 0;
    for line in smaps.lines() {
        // A mapping begins with its range of addresses, which no key does.
        let begins = line.split_once(' ').is_some_and(|(range, _)| range.contains('-'));
        if begins {
            is_array = line.ends_with(MAPPED_ARRAY);
        } else if is_array {
            sum += field(line, "Rss:").unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Rss:  10 kB\nPss: 9 kB\nPss_Dirty:   8 kB\nPss_Anon:           7 kB\n";
        assert_eq!(field(text, "Pss_Anon:"), Some(7 * 1024));
        assert_eq!(field(text, "Pss:"), Some(9 * 1024));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn only_mapped_arrays_are_summed() {
        let smaps = "7f00-7f10 rw-s 00000000 00:0e 1032     anon_inode:bpf-map\nSize: 64 kB\nRss: 40 kB\nPss: 40 kB\n\
                     7f10-7f20 rw-p 00000000 00:00 0        [heap]\nRss: 100 kB\n\
                     7f20-7f30 rw-s 00000000 00:0e 1033     anon_inode:bpf-map\nRss: 2 kB\n\
                     7f30-7f40 rw-p 00000000 00:00 0 \nRss: 1000 kB\n";
        assert_eq!(arrays(smaps), 42 * 1024);
    }

    #[test]
    fn this_process_occupies_something() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident > memory.anonymous && memory.anonymous > 0, "{memory:?}");
        assert_eq!(memory.arrays, 0);
    }
}
