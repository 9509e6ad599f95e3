//! The log lines of the kernel programs, which write them for rare conditions only.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::unix::AsyncFd;

use super::{KernelError, ring::readable};

/// The size of the programs' log ring.
pub(super) const BYTES: u64 = 1 << 17;

/// Brings the programs' log lines into the daemon's log.
pub struct LogPump(AsyncFd<EbpfLogger<ToTracing>>);

impl LogPump {
    pub(super) fn new(bpf: &mut Ebpf) -> Result<Self, KernelError> {
        let logger = EbpfLogger::init_with_logger(bpf, ToTracing).map_err(|_| KernelError::NoMap("AYA_LOGS"))?;
        readable(logger).map(Self)
    }

    /// Runs until dropped.
    ///
    /// # Errors
    /// When the log ring can't be waited for.
    pub async fn run(mut self) -> Result<(), KernelError> {
        loop {
            let mut ready = self.0.readable_mut().await.map_err(KernelError::system("epoll"))?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

impl std::fmt::Debug for LogPump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogPump")
    }
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        match record.level() {
            Level::Error => tracing::error!(target: "prewarm::kernel::program", "{}", record.args()),
            Level::Warn => tracing::warn!(target: "prewarm::kernel::program", "{}", record.args()),
            _ => tracing::info!(target: "prewarm::kernel::program", "{}", record.args()),
        }
    }

    fn flush(&self) {}
}
