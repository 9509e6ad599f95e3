//! The `prewarm` binary: reads the arguments and hands over to the command.

use std::process::ExitCode;

use clap::Parser as _;
use prewarm_user::{
    app,
    cli::{self, Arguments, Command},
};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => app::run(arguments),
        command => command.carry_out(),
    };
    done.unwrap_or_else(|error| {
        let code = cli::code_of(&error);
        if code != ExitCode::SUCCESS {
            cli::complain(&error);
        }
        code
    })
}
