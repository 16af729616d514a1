//! What a test shows to be kept. `cargo xtask test` ends with a table of all promises and of the tests that ran for them.
//!
//! A test says `let _kept = promises::keeps(&["S0-02"], "the stand-in");` in its first line.

use std::{env, fs::OpenOptions, io::Write, path::PathBuf, thread};

/// Names the file that a line per promise and test is added to: id, program, test, server and outcome, each followed by
/// a tab but the last. Without it nothing is noted.
pub const FILE_VARIABLE: &str = "LEVEE_PROMISES";

/// Notes the outcome of the test that holds it when it is dropped: a panic under way is a failure.
#[must_use = "the outcome is noted when it is dropped, which is at once if it has no name"]
#[derive(Debug)]
pub struct Kept {
    ids: Vec<String>,
    server: String,
    test: String,
}

/// The running test shows these promises to be kept, with this server or peer on the other side.
///
/// # Panics
/// Outside of a test's own thread, whose name is the test's.
pub fn keeps(ids: &[&str], server: &str) -> Kept {
    let test = thread::current().name().map(str::to_owned).expect("a test's thread has its name");
    Kept { ids: ids.iter().map(|id| (*id).to_owned()).collect(), server: server.to_owned(), test }
}

impl Kept {
    fn lines(&self, program: &str, passed: bool) -> String {
        let outcome = if passed { "passed" } else { "failed" };
        let line = |id: &String| format!("{id}\t{program}\t{}\t{}\t{outcome}\n", self.test, self.server);
        self.ids.iter().map(line).collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(path) = env::var_os(FILE_VARIABLE).map(PathBuf::from) else { return };
        let program = env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
        let program = program.unwrap_or_default();
        // Cargo appends a hash to the name.
        let program = program.rsplit_once('-').map_or(program.as_str(), |(name, _)| name);
        let lines = self.lines(program, !thread::panicking());
        // One write to a file opened for appending: tests of several processes do not mix their lines.
        let written = OpenOptions::new().create(true).append(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(lines.as_bytes()));
        if let Err(error) = written
            && !thread::panicking()
        {
            panic!("{}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem;

    use super::*;

    #[test]
    fn a_line_names_promise_test_server_and_outcome() {
        let kept = keeps(&["S0-01", "F08"], "FRR");
        let expected = "S0-01\tp\ttests::a_line_names_promise_test_server_and_outcome\tFRR\tfailed\n\
                        F08\tp\ttests::a_line_names_promise_test_server_and_outcome\tFRR\tfailed\n";
        let lines = kept.lines("p", false);
        mem::forget(kept); // it shows nothing, so nothing is noted
        assert_eq!(lines, expected);
    }
}
