//! The connect redirect wired up, where it is switched on: the programs, the beat that they wait for, the entrances.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{
    config::Config,
    handover::{
        Reports,
        heartbeat::beat,
        redirect::{Redirect, RedirectError, Service, rules},
    },
    kernel::{self, KernelError, Programs},
};

/// How long redirected connections may take to end when the daemon stops. A new daemon can be at work by then.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The beat of the daemon, while something in the kernel waits for it.
#[derive(Default)]
pub(super) struct Heart(Option<JoinHandle<()>>);

impl Heart {
    /// Beats if programs that change anything are switched on.
    ///
    /// # Errors
    /// When the kernel programs have no place for it.
    pub(super) fn start(programs: &mut Programs, config: &Config) -> Result<Self, KernelError> {
        let is_needed = config.handover.redirect.enabled
            || !config.handover.tproxy.interfaces.is_empty()
            || !config.answers.servers.is_empty();
        if !is_needed {
            return Ok(Self::default());
        }
        Ok(Self(Some(tokio::spawn(beat(programs.heartbeat()?)))))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The redirect, if it is switched on.
pub(super) struct Redirecting(Option<Redirect>);

/// Loads the programs of the redirect, if it is switched on.
///
/// # Errors
/// When the kernel refuses them, or the settings name what isn't there.
pub(super) fn load(programs: &mut Programs, config: &Config) -> Result<Option<kernel::Redirect>, RedirectError> {
    if !config.handover.redirect.enabled {
        return Ok(None);
    }
    Ok(Some(programs.redirect(&rules(&config.handover)?)?))
}

impl Redirecting {
    /// Starts it.
    ///
    /// # Errors
    /// When something that the settings ask for can't be had.
    pub(super) fn start(
        parts: Option<kernel::Redirect>,
        config: &Config,
        service: Service,
    ) -> Result<Self, RedirectError> {
        let Some(parts) = parts else { return Ok(Self(None)) };
        let settings = &config.handover.redirect;
        let redirect = Redirect::start(parts, settings, service)?;
        for cgroup in &settings.cgroups {
            tracing::info!("connections of {} are redirected to leases", cgroup.display());
        }
        Ok(Self(Some(redirect)))
    }

    /// Leaves word how its numbers are read.
    pub(super) fn report(&self, reports: &Reports) {
        if let Some(redirect) = &self.0 {
            let gauge = redirect.gauge();
            reports.add("redirect", move || gauge.stats().way);
        }
    }

    /// From now on connections go direct; what was redirected just before is still taken in.
    pub(super) async fn close(&self) {
        if let Some(redirect) = &self.0 {
            redirect.close().await;
        }
    }

    /// Lets redirected connections end.
    pub(super) async fn drain(self) {
        if let Some(redirect) = self.0 {
            let gauge = redirect.gauge();
            redirect.drain(GRACE).await;
            let way = gauge.stats().way;
            tracing::info!("redirected to leases: {}, missed {}, failed {}", way.taken, way.missed, way.failed);
        }
    }
}
