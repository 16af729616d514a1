//! Figures and texts as readers see them.

use crate::schema::Case;

/// A figure with three significant digits, or all digits before the point.
#[must_use]
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, _)| (whole, &text[whole.len()..]));
    format!("{}{rest}", grouped(whole))
}

/// `1234567` -> `1,234,567`.
fn grouped(whole: &str) -> String {
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// Whether a budget was kept, in a word; a dash where there is none.
#[must_use]
pub const fn judgement(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "–",
    }
}

/// A budget; a dash where there is none.
#[must_use]
pub fn budget(budget: Option<f64>) -> String {
    budget.map_or_else(|| "–".to_owned(), |budget| format!("≤ {}", plain(budget)))
}

/// A number somebody wrote down: without digits that say nothing.
fn plain(value: f64) -> String {
    let text = value.to_string();
    if value.fract() == 0.0 { grouped(&text) } else { text }
}

/// Text that can stand in HTML and SVG.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What was counted, on one line.
#[must_use]
pub fn counters(case: &Case) -> String {
    let entries = case.counters.iter().map(|(name, value)| format!("{name} {}", grouped(&value.to_string())));
    entries.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.1234, "0.123"),
            (9.876, "9.88"),
            (47.04, "47.0"),
            (450.2, "450"),
            (1_234_567.0, "1,234,567"),
            (-3.5, "-3.50"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn budgets_are_shown_as_written() {
        assert_eq!(budget(Some(0.15)), "≤ 0.15");
        assert_eq!(budget(Some(10_000.0)), "≤ 10,000");
        assert_eq!(budget(None), "–");
    }

    #[test]
    fn text_cannot_end_an_attribute_or_begin_an_element() {
        assert_eq!(escaped("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
