//! Memory that the allocator keeps for later: after the work of a start, or of very many changes at once, most of it is
//! not needed again.
#![expect(unsafe_code, reason = "the allocator is asked through the C library")]

/// Gives what is free back to the system. Takes some milliseconds per 100 MB.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time from any thread (malloc_trim(3): MT-Safe); it touches nothing but
    // pages that the allocator holds as free, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
