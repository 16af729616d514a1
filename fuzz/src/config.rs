//! The configuration: whatever the text, it is accepted or refused with places inside it, and every way to read it agrees.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::LazyLock};

use lb_agent::config::{ConfigErrors, Problem, Reader, parse};
use tempfile::TempDir;

/// A folder with the file that the sample names.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "000102030405060708090a0b0c0d0e0f\n").expect("the folder is our own");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("the file is our own");
    folder
});

/// Reads a configuration at once, in parts, and again.
///
/// # Panics
/// If an invariant does not hold.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let base = FOLDER.path();
    let whole = parse("f", text, base);
    match &whole {
        Ok(config) => {
            config.warnings.iter().for_each(|problem| is_inside(problem, text));
            let longer = parse("f", &format!("{text}\n# the end\n"), base);
            assert_eq!(longer.as_ref(), Ok(config), "a remark at the end changes nothing");
        }
        Err(errors) => are_inside(errors, text),
    }
    assert_eq!(parse("f", text, base), whole, "read again");
    readers_agree(text, base);
}

/// A reader that knows the services from elsewhere in a file, or from the same, says what `parse` says.
fn readers_agree(text: &str, base: &Path) {
    let mut reader = Reader::default();
    for text in [format!("# one line more\n\n{text}"), text.to_owned(), text.to_owned()] {
        let parts = reader.parse("f", &text, base);
        assert_eq!(parts, parse("f", &text, base), "in parts and whole");
    }
}

fn are_inside(errors: &ConfigErrors, text: &str) {
    assert!(!errors.problems.is_empty(), "refused without a reason");
    errors.problems.iter().for_each(|problem| is_inside(problem, text));
    assert!(!errors.to_string().is_empty());
}

/// A place is a character of the text, or just behind the last one of its line.
fn is_inside(problem: &Problem, text: &str) {
    assert!(!problem.message.trim().is_empty(), "a problem without a reason");
    let Some(place) = problem.place else { return };
    let index = usize::try_from(place.line).ok().and_then(|line| line.checked_sub(1));
    // YAML breaks lines at carriage returns, too.
    let joined = text.replace("\r\n", "\n").replace('\r', "\n");
    let line = index.and_then(|index| joined.split('\n').nth(index));
    let line = line.unwrap_or_else(|| panic!("no line {}: {problem}", place.line));
    let columns = line.chars().count() as u64 + 1;
    assert!((1..=columns).contains(&place.column), "a line of {columns} columns at most: {problem}");
}
