//! Takes a configuration apart into its services and the rest, as text, where that is plainly possible.
//!
//! Reading YAML takes most of the time of reading a large file. The items of the list `services` stand on lines of their
//! own in any file that has many of them, so each can be read alone, and again only when its text changed.
//!
//! Invariant: only lines are looked at, so what comes out is a guess. Whoever uses it has to find a service in every
//! item, nothing else in the rest, and read the file whole otherwise.

/// A file in parts.
pub(super) struct Parts<'t> {
    /// The file with empty lines in place of its services.
    pub(super) rest: String,
    /// Line of the key `services`, from 1.
    pub(super) line: u64,
    /// Each service: how many lines are before it, and its lines.
    pub(super) items: Vec<(u64, &'t str)>,
}

/// Takes `text` apart; `None` where it cannot be told by its lines.
pub(super) fn split(text: &str) -> Option<Parts<'_>> {
    // What an anchor names can be anywhere; a line can end with a carriage return alone.
    if text.contains(['&', '*', '\r']) {
        return None;
    }
    let mut lines = Lines { text, at: 0, number: 0 };
    let line = loop {
        let (line, _) = lines.next()?;
        if line.strip_prefix("services:").is_some_and(is_blank) {
            break lines.number;
        }
    };
    let head = lines.at;
    let mut starts = Vec::new(); // offset in the text and lines before
    let mut indent = None;
    let end = loop {
        let Some((line, offset)) = lines.next() else { break text.len() };
        if is_blank(line) {
            continue;
        }
        let own = line.len() - line.trim_start_matches(' ').len();
        let is_item = line[own..] == *"-" || line[own..].starts_with("- ");
        if is_item && indent.is_none_or(|indent| indent == own) {
            indent = Some(own);
            starts.push((offset, lines.number - 1));
        } else if indent.is_some_and(|indent| own > indent) {
            continue;
        } else if own == 0 {
            lines.number -= 1;
            break offset;
        } else {
            return None;
        }
    };
    if starts.is_empty() {
        return None;
    }
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset).chain([end]);
    let items = starts.iter().zip(ends).map(|((start, before), end)| (*before, &text[*start..end])).collect();
    let removed = usize::try_from(lines.number - line).ok()?;
    let rest = [&text[..head], &"\n".repeat(removed), &text[end..]].concat();
    Some(Parts { rest, line, items })
}

/// Whether there is nothing on a line but a comment.
fn is_blank(line: &str) -> bool {
    let text = line.trim_start_matches(' ');
    text.is_empty() || text.starts_with('#')
}

/// Lines without their ends, each with its offset.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    /// Lines handed out so far.
    number: u64,
}

impl<'t> Iterator for Lines<'t> {
    type Item = (&'t str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (start + length + 1).min(self.text.len());
        self.number += 1;
        Some((&rest[..length], start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a text, the line of its services, and each of them with the line it begins at.
    type Split<'t> = (String, u64, Vec<(u64, &'t str)>);

    fn parts(text: &str) -> Option<Split<'_>> {
        split(text).map(|Parts { rest, line, items }| (rest, line, items))
    }

    #[test]
    fn services_are_cut_out_and_the_rest_keeps_its_lines() {
        let text = "a: 1\nservices: # two\n  # first\n  - name: x\n    ports:\n      - 1\n\n  - name: y\nb: 2\n";
        let rest = "a: 1\nservices: # two\n\n\n\n\n\n\nb: 2\n".to_owned();
        let items = vec![(3, "  - name: x\n    ports:\n      - 1\n\n"), (7, "  - name: y\n")];
        assert_eq!(parts(text), Some((rest, 2, items)));
    }

    #[test]
    fn services_may_end_the_file_and_need_no_indent() {
        for (text, second) in [
            ("services:\n- {name: x}\n-\n  name: y\n", "-\n  name: y\n"),
            ("services:\n- {name: x}\n-\n  name: y", "-\n  name: y"),
        ] {
            let rest = "services:\n\n\n\n".to_owned();
            assert_eq!(parts(text), Some((rest, 1, vec![(1, "- {name: x}\n"), (2, second)])));
        }
        assert_eq!(
            parts("services:\n- a\nhttp: off\n"),
            Some(("services:\n\nhttp: off\n".to_owned(), 1, vec![(1, "- a\n")]))
        );
    }

    #[test]
    fn what_lines_do_not_tell_is_left_whole() {
        for text in [
            "",
            "a: 1\n",
            "services: []\n",
            "services:\nhttp: off\n",
            "services:\n  - &x a\n",
            "services:\n  - *x\n",
            "services:\r\n  - a\r\n",
            "services:\n    - a\n  - b\n",
            "services:\n  name: x\n",
            "services:\n  \t- x\n",
            " services:\n  - a\n",
        ] {
            assert_eq!(parts(text), None, "{text:?}");
        }
    }
}
