//! Reads Rust source just well enough to see what it names: tokens without comments and literals, without tests, and
//! the paths in them.

/// A word or a punctuation mark, and its line, counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token<'a> {
    /// Its text; `::` is one token, other punctuation is one character each.
    pub text: &'a str,
    /// Where it stands.
    pub line: usize,
}

/// A path such as `aya::maps::Map`; a lone name is a path of one segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path<'a> {
    /// Its segments.
    pub segments: Vec<&'a str>,
    /// Where it begins.
    pub line: usize,
    /// Whether a `use` imports it.
    pub imported: bool,
}

/// What a file holds beside its tests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Source<'a> {
    /// Its tokens, without items under `cfg(test)`.
    pub tokens: Vec<Token<'a>>,
    /// Files that are modules under `cfg(test)`, by module name.
    pub test_modules: Vec<&'a str>,
    /// Line of the first `#[cfg(test)]` that stands before a module.
    pub tests_begin: Option<usize>,
}

impl<'a> Source<'a> {
    /// Reads a file.
    pub fn read(text: &'a str) -> Self {
        let all = tokens(text);
        let mut source = Self::default();
        let mut at = 0;
        while at < all.len() {
            if starts(&all[at..], &["#", "!", "["]) && is_cfg_test(&all[at + 2..]) {
                return Self { tests_begin: Some(all[at].line), ..Self::default() };
            }
            if starts(&all[at..], &["#", "["]) && is_cfg_test(&all[at + 1..]) {
                at += source.skip_test_item(&all[at..]);
            } else {
                source.tokens.push(all[at]);
                at += 1;
            }
        }
        source
    }

    /// Notes what the item at the start of `rest` is and returns how many tokens it takes, its attributes included.
    fn skip_test_item(&mut self, rest: &[Token<'a>]) -> usize {
        let mut at = 0;
        while starts(&rest[at..], &["#", "["]) {
            at += 1 + group_length(&rest[at + 1..]);
        }
        if rest.get(at).is_some_and(|token| token.text == "pub") {
            at += 1;
            at += if starts(&rest[at..], &["("]) { group_length(&rest[at..]) } else { 0 };
        }
        let keyword = rest.get(at).map_or("", |token| token.text);
        if keyword == "mod" {
            self.tests_begin.get_or_insert(rest[0].line);
            if let [_, name, end, ..] = &rest[at..]
                && end.text == ";"
            {
                self.test_modules.push(name.text);
            }
        }
        at + item_length(&rest[at..], keyword == "use")
    }

    /// Every path, those of a `use` tree written out.
    pub fn paths(&self) -> Vec<Path<'a>> {
        let mut paths = Vec::new();
        let mut rest = self.tokens.as_slice();
        while let Some(first) = rest.first() {
            let taken = match first.text {
                "use" => 1 + use_tree(&rest[1..], &Vec::new(), &mut paths),
                "extern" if starts(&rest[1..], &["crate"]) => 2 + use_tree(&rest[2..], &Vec::new(), &mut paths),
                word if is_word(word) => {
                    let segments = plain_path(rest);
                    let taken = segments.len() * 2 - 1;
                    paths.push(Path { segments, line: first.line, imported: false });
                    taken
                }
                _ => 1,
            };
            rest = &rest[taken.min(rest.len())..];
        }
        paths
    }
}

/// Adds the paths of a `use` tree behind `prefix`; returns how many tokens it takes, without the end mark.
fn use_tree<'a>(tree: &[Token<'a>], prefix: &[&'a str], paths: &mut Vec<Path<'a>>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = usize::from(starts(tree, &["::"]));
    while let Some(token) = tree.get(at) {
        match token.text {
            "{" => {
                let end = at + group_length(&tree[at..]);
                at += 1;
                while at + 1 < end {
                    at += use_tree(&tree[at..], &segments, paths).max(1);
                    at += usize::from(starts(&tree[at..], &[","]));
                }
                return end;
            }
            "::" => at += 1,
            // `use path::*` and `use path as name` name the path before them; `{self}` names the prefix.
            "*" | "as" => break,
            word if is_word(word) => {
                if word != "self" || segments.is_empty() {
                    segments.push(word);
                }
                at += 1;
            }
            _ => break,
        }
    }
    let line = tree.first().map_or(0, |token| token.line);
    paths.push(Path { segments, line, imported: true });
    let renamed = tree[at..].iter().take_while(|token| matches!(token.text, "*" | "as") || is_word(token.text));
    at + renamed.count()
}

/// `a::b::c` at the start of `rest`, which begins with a word.
fn plain_path<'a>(rest: &[Token<'a>]) -> Vec<&'a str> {
    let mut segments = vec![rest[0].text];
    while let [separator, next, ..] = &rest[segments.len() * 2 - 1..] {
        if separator.text != "::" || !is_word(next.text) {
            break;
        }
        segments.push(next.text);
    }
    segments
}

/// Whether `attribute`, which begins with `[`, is `[cfg(test)]` or `[cfg(all(test, ..))]`.
fn is_cfg_test(attribute: &[Token]) -> bool {
    starts(attribute, &["[", "cfg", "(", "test", ")"]) || starts(attribute, &["[", "cfg", "(", "all", "(", "test"])
}

fn starts(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.text == *text)
}

/// Length of an item: to its `;`, or to the end of its first braces; an import's braces do not end it.
fn item_length(item: &[Token], is_use: bool) -> usize {
    let mut at = 0;
    while let Some(token) = item.get(at) {
        match token.text {
            ";" => return at + 1,
            "{" if !is_use => return at + group_length(&item[at..]),
            "(" | "[" | "{" => at += group_length(&item[at..]),
            _ => at += 1,
        }
    }
    at
}

/// Length of the bracketed group that `tokens` begin with.
fn group_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// Splits source into tokens; comments and literals vanish.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, kept) = lexeme(rest, first);
        let (lexeme, after) = rest.split_at(length);
        if kept {
            tokens.push(Token { text: lexeme.strip_prefix("r#").unwrap_or(lexeme), line });
        }
        line += lexeme.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Length of what `rest` begins with, and whether it is a token to keep.
fn lexeme(rest: &str, first: char) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if let Some(length) = string(rest) {
        return (length, false);
    }
    let unprefixed = rest.strip_prefix('b').filter(|after| after.starts_with('\'')).unwrap_or(rest);
    if unprefixed.starts_with('\'') {
        return (rest.len() - unprefixed.len() + quote(unprefixed), false);
    }
    if rest.starts_with("::") {
        return (2, true);
    }
    let word = rest.strip_prefix("r#").unwrap_or(rest);
    let length = word.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(word.len());
    if length > 0 {
        return (rest.len() - word.len() + length, is_word(word));
    }
    (first.len_utf8(), !first.is_whitespace())
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of the string literal that `rest` begins with: `".."`, `b".."`, `c".."`, `r#".."#` and the like.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let raw = rest[..prefix].contains('r');
    let hashes = if raw { rest[prefix..].find(|c| c != '#')? } else { 0 };
    let open = prefix + hashes;
    if !rest[open..].starts_with('"') {
        return None;
    }
    let body = &rest[open + 1..];
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(open + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()));
    }
    Some(open + 1 + closing(body, '"'))
}

/// Length of the character literal or lifetime that `rest` begins with.
fn quote(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => 1 + closing(&rest[1..], '\''),
        (Some(one), Some('\'')) => one.len_utf8() + 2,
        _ => 1 + rest[1..].find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len() - 1),
    }
}

/// Length up to and with the `end` that no backslash stands before.
fn closing(body: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == end && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        Source::read(text).tokens.iter().map(|token| token.text).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        Source::read(text).paths().iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_vanish() {
        let text = "a // tokio\n/* unsafe /* nested */ */ b \"aya::\\\" x\" r#\"unsafe \" y\"# b'u' '\\'' 'x' &'static c 1_000u64 é";
        assert_eq!(words(text), ["a", "b", "&", "c", "é"]);
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let source = Source::read("let a = \"1\n2\n3\";\nunsafe {}");
        assert_eq!(source.tokens.iter().find(|token| token.text == "unsafe").unwrap().line, 4);
    }

    #[test]
    fn use_trees_are_written_out() {
        let text =
            "pub use std::{net::{IpAddr, TcpStream as S}, time::*, fmt::{self, Debug}}; use ::aya; extern crate alloc;";
        let expected = [
            "pub",
            "std::net::IpAddr",
            "std::net::TcpStream",
            "std::time",
            "std::fmt",
            "std::fmt::Debug",
            "aya",
            "alloc",
        ];
        assert_eq!(paths(text), expected);
    }

    #[test]
    fn paths_in_code_and_attributes_are_seen() {
        let text = "#[tokio::main] fn f(map: aya::maps::Map<u32>) { crate::runtime::run::<u8>(Instant::now()); }";
        let seen = paths(text);
        for expected in ["tokio::main", "aya::maps::Map", "crate::runtime::run", "Instant::now"] {
            assert!(seen.iter().any(|path| path == expected), "{expected} in {seen:?}");
        }
    }

    #[test]
    fn items_under_cfg_test_are_no_part_of_the_source() {
        let text = "fn a() {}\n#[cfg(test)]\nuse std::{fs, net};\n#[cfg(all(test, unix))] pub(crate) fn helper(x: [u8; 2]) -> u8 { tokio::x }\n\
                    #[cfg(test)]\nmod proofs;\n#[cfg(any(test, feature = \"user\"))] fn kept() {}\n#[cfg(test)] #[rustfmt::skip] mod tests { aya::b }";
        let source = Source::read(text);
        let words: Vec<_> = source.tokens.iter().map(|token| token.text).collect();
        assert!(words.contains(&"kept"));
        assert!(!words.iter().any(|word| ["fs", "tokio", "aya", "proofs"].contains(word)), "{words:?}");
        assert_eq!((source.test_modules, source.tests_begin), (vec!["proofs"], Some(5)));
    }

    #[test]
    fn a_file_of_tests_is_empty() {
        assert_eq!(Source::read("//! Tests.\n#![cfg(test)]\nuse tokio::net;").tokens, []);
    }
}
