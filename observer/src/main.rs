//! See `observer --help`, and README.md.

fn main() -> std::process::ExitCode {
    // One heap for all threads: what start-up needed can then be handed back when it is over.
    // SAFETY: before any other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // SAFETY: the same.
    unsafe { observer::delivery::names::keep_to_files_and_dns() };
    observer::cli::main()
}
