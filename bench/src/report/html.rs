//! The page: everything in one file, plots included.

use super::{
    format::{budget, counters, escaped, figure, judgement},
    groups, svg, title,
};
use crate::schema::{Case, Results};

const STYLE: &str = "\
:root { color-scheme: light dark; --bar: #3b7dd8; --missed: #d9534f; --grid: #8884; --text: #222; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --bar: #5b9bf0; --missed: #ef7a76; --text: #ddd; --paper: #16181c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--grid); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.missed { color: var(--missed); font-weight: 600; }
.note, .counters { font-size: 13px; opacity: .75; }
svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .tick { font-size: 11px; opacity: .75; }
svg .bar { fill: var(--bar); } svg .missed { fill: var(--missed); }
svg .grid { stroke: var(--grid); } svg .whisker { stroke: var(--text); } svg .budget { stroke: var(--missed); stroke-width: 2; }
pre { overflow-x: auto; border: 1px solid var(--grid); padding: .8rem; font-size: 12.5px; }
";

/// The page of all parts.
#[must_use]
pub fn page(parts: &[Results]) -> String {
    let body: String = parts.iter().map(part).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Levee: benchmarks</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Levee: benchmarks</h1>\n\
         <p>Bars are medians (net of the floor where there is one), whiskers quartiles, red marks budgets.</p>\n\
         {body}</body>\n</html>\n"
    )
}

fn part(results: &Results) -> String {
    let mut html = format!(
        "<h2>{}</h2>\n<p><code>{}</code> · {} · kernel {} · {} · {} cores</p>\n",
        title(results.part),
        escaped(&results.command),
        escaped(&results.when),
        escaped(&results.kernel),
        escaped(&results.cpu),
        results.cores
    );
    html.push_str(&ratios(results));
    for group in groups(results) {
        let cases: Vec<&Case> = results.cases.iter().filter(|case| case.group == group).collect();
        html += &format!("<h3>{}</h3>\n{}{}", escaped(group), svg::bars(&cases), table(results, &cases));
    }
    if !results.notes.is_empty() {
        html += "<h3>Method</h3>\n";
        html.extend(results.notes.iter().map(|note| format!("<p>{}</p>\n", escaped(note))));
    }
    for source in &results.sources {
        let (name, path, text) = (escaped(&source.name), escaped(&source.path), escaped(&source.text));
        html += &format!("<details><summary>{name}: <code>{path}</code></summary>\n<pre>{text}</pre>\n</details>\n");
    }
    html
}

fn ratios(results: &Results) -> String {
    if results.ratios.is_empty() {
        return String::new();
    }
    let rows: String = results
        .ratios
        .iter()
        .map(|ratio| {
            format!(
                "<tr><td>{}<div class=\"note\">{} / {}</div></td><td class=\"number\">{}</td><td class=\"number\">{}</td>{}</tr>\n",
                escaped(&ratio.name),
                escaped(&ratio.numerator),
                escaped(&ratio.denominator),
                figure(ratio.value),
                budget(ratio.budget),
                judged(ratio.met),
            )
        })
        .collect();
    format!("<table>\n<tr><th>ratio</th><th>value</th><th>budget</th><th></th></tr>\n{rows}</table>\n")
}

fn table(results: &Results, cases: &[&Case]) -> String {
    let rows: String = cases.iter().map(|case| row(results, case)).collect();
    format!(
        "<table>\n<tr><th>case</th><th>median</th><th>quartiles</th><th>net</th><th>budget</th><th></th><th>command</th></tr>\n\
         {rows}</table>\n"
    )
}

fn row(results: &Results, case: &Case) -> String {
    let note = case.note.as_ref().map(|note| format!("<div class=\"note\">{}</div>", escaped(note)));
    let counted = counters(case);
    let counted =
        if counted.is_empty() { String::new() } else { format!("<div class=\"counters\">{}</div>", escaped(&counted)) };
    format!(
        "<tr><td>{}{}{counted}</td><td class=\"number\">{} {}</td><td class=\"number\">{} … {}</td>\
         <td class=\"number\">{}</td><td class=\"number\">{}</td>{}<td><code>{}</code></td></tr>\n",
        escaped(&case.name),
        note.unwrap_or_default(),
        figure(case.median),
        escaped(&case.unit),
        figure(case.q1),
        figure(case.q3),
        case.net.map_or_else(|| "–".to_owned(), figure),
        budget(case.budget),
        judged(case.met),
        escaped(&results.command),
    )
}

fn judged(met: Option<bool>) -> String {
    let class = if met == Some(false) { " class=\"missed\"" } else { "" };
    format!("<td{class}>{}</td>", judgement(met))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::example, *};

    #[test]
    fn the_page_needs_no_other_file() {
        let page = page(&[example()]);
        for reference in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn every_case_stands_with_its_command_and_its_judgement() {
        let page = page(&[example()]);
        assert_eq!(page.matches("<td><code>cargo xtask bench micro</code></td>").count(), 3);
        assert_eq!(page.matches("<td class=\"missed\">missed</td>").count(), 1); // 20 ns of 10
        assert_eq!(page.matches("<td>met</td>").count(), 2); // 50 ns of 50, and the ratio 0.4 of 0.6
        assert!(page.contains("c &lt; d") && !page.contains("c < d"));
        assert!(page.contains("measured &lt;carefully&gt;"));
    }
}
