//! The ways out that the configuration switches on, started and stopped together.

use std::sync::Arc;

use super::{
    explain::explain,
    proxies::{Needs, Proxies, Ways},
    redirect::{self, Heart, Redirecting},
    tproxy::Forwarding,
};
use crate::{
    config::Config,
    handover::{
        Reports,
        redirect::{RedirectError, Service},
    },
    kernel::Programs,
};

/// What runs of them.
pub(super) struct WaysOut {
    heart: Heart,
    redirecting: Redirecting,
    proxies: Proxies,
    forwarding: Option<Forwarding>,
}

impl WaysOut {
    /// Starts them, and leaves word how their numbers are read.
    ///
    /// # Errors
    /// When one that was asked for can't be had; then nothing of any stays behind.
    pub(super) async fn start(
        config: &Config,
        programs: &mut Programs,
        needs: Needs,
        reports: &Reports,
    ) -> anyhow::Result<Self> {
        let heart = Heart::start(programs, config).map_err(explain)?;
        let redirected = redirect::load(programs, config).map_err(explain_redirect)?;
        let service = Service {
            pool: needs.pool.clone(),
            dialer: Arc::clone(&needs.dialer),
            witness: Arc::clone(&needs.witness),
            pipes: Arc::clone(&needs.pipes),
        };
        let redirecting = Redirecting::start(redirected, config, service).map_err(explain_redirect)?;
        redirecting.report(reports);
        let ways = Ways::default();
        ways.report(reports);
        let proxies = Proxies::start(config, &ways, needs.clone()).await?;
        // Last: its rules and routes are the one thing that would outlive an error further down.
        let forwarding = Forwarding::start(config, programs, needs, ways.tproxy).await?;
        Ok(Self { heart, redirecting, proxies, forwarding })
    }

    /// From now on the kernel sends nobody here; what was on its way is still taken in.
    pub(super) async fn close(&mut self) {
        self.heart = Heart::default();
        self.redirecting.close().await;
    }

    /// Closes the listeners and puts routes back. Connections of redirected programs go on: see [`Draining::end`].
    pub(super) async fn stop(self) -> Draining {
        let forwarded = async {
            if let Some(forwarding) = self.forwarding {
                forwarding.stop().await;
            }
        };
        tokio::join!(self.proxies.stop(), forwarded);
        Draining(self.redirecting)
    }
}

/// Programs that were redirected and still talk.
pub(super) struct Draining(Redirecting);

impl Draining {
    /// Lets them end, for as long as a daemon that stops may take.
    pub(super) async fn end(self) {
        self.0.drain().await;
    }
}

fn explain_redirect(error: RedirectError) -> anyhow::Error {
    match error {
        RedirectError::Kernel(error) => explain(error),
        error => anyhow::Error::new(error),
    }
}
