//! A plot: a bar per case, its quartiles, its budget.

use std::fmt::Write;

use super::format::{escaped, figure};
use crate::schema::Case;

const WIDTH: f64 = 860.0;
/// Where bars begin: labels stand left of it.
const LEFT: f64 = 400.0;
/// Where the longest bar ends: figures stand right of it.
const RIGHT: f64 = 780.0;
const ROW: f64 = 26.0;
const TOP: f64 = 8.0;
/// Room for the axis below the bars.
const BOTTOM: f64 = 40.0;
/// Ticks aimed at.
const TICKS: f64 = 5.0;

/// The plot of cases that share a unit.
#[must_use]
pub fn bars(cases: &[&Case]) -> String {
    let longest = cases.iter().flat_map(|case| [upper(case), case.budget.unwrap_or(0.0)]).fold(0.0, f64::max);
    let step = tick_step(longest);
    let last_tick = (longest / step).ceil() * step;
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value.max(0.0) / last_tick);
    let bottom = TOP + ROW * cases.len() as f64;
    let unit = cases.first().map_or("", |case| case.unit.as_str());
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">\n",
        bottom + BOTTOM,
        escaped(&format!("bars in {unit}"))
    );
    axis(&mut svg, step, last_tick, bottom, unit, x);
    for (row, case) in cases.iter().enumerate() {
        bar(&mut svg, case, TOP + ROW * row as f64, x);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Upper quartile of the figure that is plotted.
fn upper(case: &Case) -> f64 {
    case.q3 - case.median + case.figure()
}

fn axis(svg: &mut String, step: f64, last_tick: f64, bottom: f64, unit: &str, x: impl Fn(f64) -> f64) {
    let mut tick = 0.0;
    while tick <= last_tick * (1.0 + f64::EPSILON * 8.0) {
        let at = x(tick);
        line(svg, "grid", (at, TOP), (at, bottom));
        text(svg, "tick", at, bottom + 16.0, "middle", &number(tick, step));
        tick += step;
    }
    text(svg, "tick", f64::midpoint(LEFT, RIGHT), bottom + 34.0, "middle", unit);
}

fn bar(svg: &mut String, case: &Case, top: f64, x: impl Fn(f64) -> f64) {
    let (middle, value) = (top + ROW / 2.0, case.figure());
    let (lower, upper) = (x(case.q1 - case.median + value), x(upper(case)));
    let class = if case.met == Some(false) { "bar missed" } else { "bar" };
    text(svg, "label", LEFT - 8.0, middle + 4.0, "end", &case.name);
    put(
        svg,
        format_args!(
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            top + 4.0,
            x(value) - LEFT,
            ROW - 8.0,
            escaped(&format!("{}: {} {}", case.name, figure(value), case.unit)),
        ),
    );
    line(svg, "whisker", (lower, middle), (upper, middle));
    for end in [lower, upper] {
        line(svg, "whisker", (end, middle - 4.0), (end, middle + 4.0));
    }
    if let Some(budget) = case.budget {
        line(svg, "budget", (x(budget), top + 1.0), (x(budget), top + ROW - 1.0));
    }
    text(svg, "value", upper.max(x(value)) + 6.0, middle + 4.0, "start", &figure(value));
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    put(svg, format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, content: &str) {
    let content = escaped(content);
    put(
        svg,
        format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"),
    );
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(svg, "{element}");
}

/// The distance of ticks: 1, 2 or 5 times a power of ten, about [`TICKS`] of them up to `longest`.
fn tick_step(longest: f64) -> f64 {
    if longest <= 0.0 {
        return 1.0;
    }
    let rough = longest / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

/// A tick's number, with the digits that its distance to the next one needs.
fn number(tick: f64, step: f64) -> String {
    if step >= 1.0 {
        format!("{tick:.0}")
    } else {
        format!("{tick:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, samples: &[f64]) -> Case {
        Case::new(name, "group", "ns", samples.to_vec())
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (longest, step) in [(47.0, 10.0), (103.0, 50.0), (0.9, 0.2), (1_000.0, 200.0), (5.0, 1.0), (0.0, 1.0)] {
            assert!((tick_step(longest) - step).abs() < 1e-9, "{longest}: {}", tick_step(longest));
        }
        assert_eq!((number(0.4, 0.2), number(150.0, 50.0), number(0.0, 0.2)), ("0.4".into(), "150".into(), "0".into()));
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure() {
        // The axis ends at 100, so the bar of 50 ends half way between 400 and 780.
        let svg = bars(&[&case("half", &[50.0]), &case("whole", &[100.0])]);
        assert!(svg.contains("x=\"400\" y=\"12.0\" width=\"190.0\""), "{svg}");
        assert!(svg.contains("x=\"400\" y=\"38.0\" width=\"380.0\""), "{svg}");
    }

    #[test]
    fn a_missed_budget_shows() {
        let svg = bars(&[&case("slow", &[80.0]).within(50.0)]);
        assert!(svg.contains("class=\"bar missed\"") && svg.contains("class=\"budget\""), "{svg}");
    }

    #[test]
    fn names_are_escaped() {
        let svg = bars(&[&case("<&>", &[1.0])]);
        assert!(svg.contains(">&lt;&amp;&gt;</text>") && !svg.contains("<&>"), "{svg}");
    }

    #[test]
    fn a_figure_below_the_floor_is_no_bar_to_the_left() {
        let svg = bars(&[&case("noise", &[10.0]).above(11.0), &case("other", &[20.0])]);
        assert!(svg.contains("width=\"0.0\""), "{svg}");
    }
}
