//! A long-running program with an owner: started with its output in a file, ended with its whole process group on drop.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{clock, interrupt};

/// What a program gets to end in good order, before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// How long a program may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running program.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a program whose output goes to `NAME.log` in the directory.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal goes to its whole foreground group; ours is ended by its owner, in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until the look says that the program is ready, and fails at once when it ended instead.
    ///
    /// # Errors
    /// When the program ended or wasn't ready in time, with the end of its log.
    pub fn ready<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let name = self.name.clone();
        let state = clock::wait_for(&format!("{name} to be ready"), READY_WITHIN, || {
            interrupt::check()?;
            self.check()?;
            Ok(look())
        });
        state.with_context(|| format!("log of {name}:\n{}", self.log_tail()))
    }

    /// Fails when the program has ended.
    ///
    /// # Errors
    /// With its exit status.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended: {status}", self.name);
        }
        Ok(())
    }

    /// The PID of the program, which is also its process group.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The last lines the program wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends the program, in good order if it can, and waits until it is gone.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _asked = killpg(self.pid(), Signal::SIGTERM);
        let deadline = clock::now() + GRACE;
        while clock::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            clock::pause(Duration::from_millis(2));
        }
        let _killed = killpg(self.pid(), Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}
