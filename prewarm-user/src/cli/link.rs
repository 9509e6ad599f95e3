//! `attach` and `detach`: interfaces of a running daemon.

use std::process::ExitCode;

use clap::Args;

use super::{SocketArgument, output};
use crate::control::{Answer, Request};

/// Flags of `prewarm attach` and `prewarm detach`.
#[derive(Debug, Args)]
pub struct LinkArguments {
    /// The interface.
    interface: String,
    #[command(flatten)]
    socket: SocketArgument,
}

impl LinkArguments {
    pub(super) fn attach(self) -> anyhow::Result<ExitCode> {
        done(&self.socket, Request::Attach { interface: self.interface })
    }

    pub(super) fn detach(self) -> anyhow::Result<ExitCode> {
        done(&self.socket, Request::Detach { interface: self.interface })
    }
}

/// Asks for something to be done and says that it was.
pub(super) fn done(socket: &SocketArgument, request: Request) -> anyhow::Result<ExitCode> {
    if let Answer::Done(message) = socket.ask(request)? {
        output::line(&message)?;
    }
    Ok(ExitCode::SUCCESS)
}
