//! Shows and explains what the agent does.

fn main() -> std::process::ExitCode {
    lb_agent::cli::main()
}
