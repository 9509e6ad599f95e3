//! Taking over forwarded connections, wired up: rules and routes, listeners, the program, the beat.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;

use super::proxies::Needs;
use crate::{
    config::Config,
    handover::{
        Way,
        tproxy::{Listeners, Tproxy},
    },
    kernel::{Programs, Steering, TproxyPlace},
};

/// What runs of it.
pub(super) struct Forwarding {
    tproxy: Tproxy,
    steering: Steering,
}

impl Forwarding {
    /// Switches it on where the configuration names interfaces.
    ///
    /// # Errors
    /// When a part of it can't be had; then nothing of it stays behind.
    pub(super) async fn start(
        config: &Config,
        programs: &mut Programs,
        needs: Needs,
        way: Arc<Way>,
    ) -> anyhow::Result<Option<Self>> {
        let settings = &config.handover.tproxy;
        if settings.interfaces.is_empty() {
            return Ok(None);
        }
        let steering = Steering::set(settings.mark, settings.table).await.context("handover.tproxy")?;
        let start = || {
            let listeners = Listeners::bind(steering.has_v6()).context("transparent listeners need CAP_NET_ADMIN")?;
            let (port4, port6) = listeners.ports()?;
            let place = TproxyPlace { mark: settings.mark, port4: Some(port4), port6 };
            let parts = programs.tproxy(place, &settings.interfaces, true)?;
            let Needs { pool, dialer, witness, pipes, .. } = needs;
            Ok(Tproxy::start(parts, listeners, &pool, dialer, witness, pipes, way)?)
        };
        let started: anyhow::Result<Tproxy> = start();
        match started {
            Ok(tproxy) => {
                hint(&settings.interfaces);
                Ok(Some(Self { tproxy, steering }))
            }
            Err(error) => {
                if let Err(error) = steering.remove().await {
                    tracing::warn!(%error, "handover.tproxy: what was set up for routing");
                }
                Err(error.context("handover.tproxy"))
            }
        }
    }

    /// Ends it, and puts everything back as it was.
    pub(super) async fn stop(self) {
        let (_, counts) = self.tproxy.stats();
        tracing::debug!(?counts, "tproxy ends");
        self.tproxy.stop().await;
        if let Err(error) = self.steering.remove().await {
            tracing::warn!(%error, "handover.tproxy: what was set up for routing stays; the next start removes it");
        }
    }
}

/// Says what may keep connections from ever being taken over.
fn hint(interfaces: &[String]) {
    for interface in interfaces {
        for family in ["ipv4", "ipv6"] {
            let path = Path::new("/proc/sys/net").join(family).join("conf").join(interface).join("forwarding");
            if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0") {
                tracing::warn!(
                    "handover.tproxy: {interface} forwards no {family} (hint: set {} to 1, and let the firewall accept \
                     packets with the mark as input)",
                    path.display()
                );
            }
        }
    }
}
