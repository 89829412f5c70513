//! See `observer --help`, and README.md.

fn main() -> std::process::ExitCode {
    observer::cli::main()
}
