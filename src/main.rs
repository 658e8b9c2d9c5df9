//! Parse the arguments, call the verb, turn what it says into an exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    rekeyd::cli::run(std::env::args_os())
}
