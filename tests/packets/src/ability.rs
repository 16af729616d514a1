//! What not every kernel can do with a test's frames. A test that needs it is listed by the run as not run elsewhere.

use lb_agent::dataplane::KernelVersion;

/// Something that `BPF_PROG_TEST_RUN` learned in the course of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ability {
    /// A context: the frame can come in by another interface than [`crate::IN`].
    Context,
    /// Frames of more than one page, for multi-buffer programs.
    Buffers,
    /// The tracing program.
    Tracing,
}

impl Ability {
    /// Whether the kernel that runs has it; if not, says that `test` is not run, and why.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "a run lists what it could not do")]
    pub fn is_there(self, test: &str) -> bool {
        let (since, what) = match self {
            Self::Context => (KernelVersion(5, 15), "a context with a frame"),
            Self::Buffers => (KernelVersion::FRAGS, "frames of several buffers"),
            Self::Tracing => (KernelVersion::TRACING, "the tracing program"),
        };
        let is_there = KernelVersion::running() >= since;
        if !is_there {
            println!("not run: {test}: this kernel does not take {what}; Linux {since} does");
        }
        is_there
    }
}
