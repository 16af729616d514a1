//! Fewer rounds where the processor is emulated, which takes ten times as long for everything.

use std::env;

/// Set to `n`, long tests do every `n`th of their rounds.
const VARIABLE: &str = "LEVEE_EVERY";

/// Of how many rounds one is done: 1 unless `LEVEE_EVERY` says otherwise.
///
/// # Panics
/// If the variable is no number above 0.
#[must_use]
pub fn every() -> usize {
    let Some(value) = env::var_os(VARIABLE) else { return 1 };
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("{VARIABLE} is {value:?}; set it to a number above 0, or not at all"))
}
