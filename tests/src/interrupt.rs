//! Ctrl-C and SIGTERM as a state that long work looks at, so that everything is removed by its owner on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// The user asked to stop; carried as an error so that guards drop in order.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Turns SIGINT, SIGTERM and SIGHUP into the state that [`check`] reads, for the rest of the process.
///
/// # Errors
/// When the signal handlers can't be installed.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("signal runtime")?;
    let mut signals = {
        let _entered = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .into_iter()
            .map(signal)
            .collect::<Result<Vec<_>, _>>()
            .context("signal handlers")?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = signals.as_mut_slice() else { return };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                REQUESTED.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}

/// Fails with [`Interrupted`] once the user asked to stop.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
