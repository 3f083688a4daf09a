//! The `pgweir` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgweir::cli::main()
}
