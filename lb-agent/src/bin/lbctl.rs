//! Shows and explains what the agent does.

fn main() {}
