//! The same numbers for Prometheus: one row a metric, in the order of `docs/metrics.md`.

use prewarm_ebpf::answers::AnswerCounter;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{LatencyView, SourceCounts, Stats};
use crate::handover::WayCounters;

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does; OpenMetrics adds `_total` to its name.
    Counter,
    /// It does not.
    Gauge,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// What it says.
    pub meaning: &'static str,
    /// Where it stands in [`Stats`].
    read: fn(&Stats) -> f64,
}

macro_rules! metrics {
    ($($kind:ident $name:literal, $meaning:literal, $read:expr;)*) => {
        /// All metrics without labels.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, meaning: $meaning, read: $read }),*];
    };
}

metrics! {
    Gauge "prewarm_app_uptime_seconds", "Seconds since the start", |s| s.uptime_seconds;
    Gauge "prewarm_app_tables_bytes", "Bytes of the tables that learn", |s| s.memory_bytes as f64;
    Counter "prewarm_kernel_ingress_packets", "Packets that XDP looked at", |s| s.packets.ingress as f64;
    Counter "prewarm_kernel_egress_packets", "Packets that tcx or clsact looked at", |s| s.packets.egress as f64;
    Counter "prewarm_kernel_questions", "DNS questions parsed", |s| s.questions as f64;
    Counter "prewarm_kernel_answers", "DNS answers parsed", |s| s.answers as f64;
    Counter "prewarm_kernel_events", "Events that came through the ring", |s| s.events as f64;
    Counter "prewarm_policy_predictions_made", "Predictions turned into intents", |s| s.predictions.made as f64;
    Counter "prewarm_policy_predictions_used", "Intents whose result was used", |s| s.predictions.used as f64;
    Counter "prewarm_policy_predictions_wasted", "Intents whose result was not used", |s| s.predictions.wasted as f64;
    Counter "prewarm_policy_predictions_late", "Intents asked for before they were ready", |s| s.predictions.late as f64;
    Counter "prewarm_policy_predictions_failed", "Intents that could not be carried out", |s| s.predictions.failed as f64;
    Counter "prewarm_policy_predictions_refused", "Intents that a guard rail or budget forbade", |s| s.predictions.refused as f64;
    Gauge "prewarm_policy_pending_intents", "Intents that wait for their time", |s| s.predictions.pending as f64;
    Gauge "prewarm_history_known_names", "Names known now", |s| s.names.known as f64;
    Counter "prewarm_resolve_warmed_names", "Names looked up ahead", |s| s.names.warmed as f64;
    Counter "prewarm_resolve_used_names", "Of those, asked for while good", |s| s.names.used as f64;
    Counter "prewarm_resolve_failed_names", "Look-ups without a usable answer", |s| s.names.failed as f64;
    Counter "prewarm_history_named_connections", "Connections of programs to addresses with a known name", |s| s.connects.named as f64;
    Counter "prewarm_history_blind_connections", "Connections of programs to addresses that no answer named", |s| s.connects.blind as f64;
    Counter "prewarm_history_elsewhere_connections", "Connections in network namespaces that nothing is learnt from", |s| s.connects.elsewhere as f64;
    Counter "prewarm_history_encrypted_connections", "Connections of programs to port 853 (DNS over TLS)", |s| s.encrypted.connections as f64;
    Counter "prewarm_kernel_encrypted_ingress_connections", "TCP connections to port 853 that XDP saw arrive", |s| s.encrypted.ingress_connections as f64;
    Counter "prewarm_kernel_encrypted_egress_connections", "TCP connections to port 853 that tcx or clsact saw leave", |s| s.encrypted.egress_connections as f64;
    Counter "prewarm_kernel_encrypted_ingress_packets", "UDP packets to port 853 (DNS over QUIC) that XDP saw arrive", |s| s.encrypted.ingress_packets as f64;
    Counter "prewarm_kernel_encrypted_egress_packets", "UDP packets to port 853 that tcx or clsact saw leave", |s| s.encrypted.egress_packets as f64;
    Gauge "prewarm_kernel_watched_connections", "1 where the kernel tells of all connections of this host, else 0", |s| f64::from(u8::from(s.connects.watched));
    Counter "prewarm_kernel_own_connections", "Connections that the daemon opened itself", |s| s.connects.own as f64;
    Counter "prewarm_kernel_lost_connections", "Events about connections that the ring had no room for", |s| s.connects.lost as f64;
    Counter "prewarm_lease_opened_connections", "Connections opened", |s| s.leases.opened as f64;
    Gauge "prewarm_lease_dialling_connections", "Connections being dialled now", |s| s.leases.dialling as f64;
    Gauge "prewarm_lease_ready_connections", "Leases ready now", |s| s.leases.ready as f64;
    Counter "prewarm_lease_taken_connections", "Leases taken by a program", |s| s.leases.taken as f64;
    Counter "prewarm_lease_carried_connections", "Leases taken over which something was sent", |s| s.leases.carried as f64;
    Counter "prewarm_lease_empty_connections", "Leases taken over which nothing was sent", |s| s.leases.empty as f64;
    Counter "prewarm_lease_expired_connections", "Leases closed unused at their time", |s| s.leases.expired as f64;
    Counter "prewarm_lease_dead_connections", "Leases that the other side closed or broke", |s| s.leases.dead as f64;
    Counter "prewarm_lease_failed_connections", "Dials that failed", |s| s.leases.failed as f64;
    Counter "prewarm_lease_refused_connections", "Dials that a limit or guard rail forbade", |s| s.leases.refused as f64;
    Counter "prewarm_lease_missed_connections", "Accesses that no connection was ready for", |s| s.leases.missed as f64;
    Counter "prewarm_warm_sent_requests", "Warm requests answered with a success", |s| s.warms.sent as f64;
    Counter "prewarm_warm_used_requests", "Warm requests whose origin was then asked for", |s| s.warms.used as f64;
    Counter "prewarm_warm_failed_requests", "Warm requests without a success", |s| s.warms.failed as f64;
    Counter "prewarm_warm_opened_connections", "Connections opened for warm requests", |s| s.warms.opened as f64;
    Counter "prewarm_warm_resumed_connections", "Of those, connections whose TLS session was resumed", |s| s.warms.resumed as f64;
    Counter "prewarm_warm_reused_requests", "Warm requests over a held connection", |s| s.warms.reused as f64;
    Counter "prewarm_warm_retried_requests", "Warm requests sent again because the held connection had died", |s| s.warms.retried as f64;
    Counter "prewarm_answers_given_questions", "Questions that the kernel answered in the place of a server", |s| s.given.as_ref().map_or(0.0, |given| given.answered as f64);
    Gauge "prewarm_answers_held", "Answers laid ready in the kernel now", |s| s.given.as_ref().map_or(0.0, |given| given.held as f64);
    Counter "prewarm_answers_asked_questions", "Questions to servers to fill and renew answers", |s| s.given.as_ref().map_or(0.0, |given| given.asked as f64);
    Counter "prewarm_answers_refreshed", "Answers renewed", |s| s.given.as_ref().map_or(0.0, |given| given.refreshed as f64);
    Gauge "prewarm_warm_held_connections", "Connections held for warm requests now", |s| s.warms.held as f64;
}

/// Metrics with labels: name, label, meaning.
pub const LABELLED: &[(&str, &str, &str)] = &[
    ("prewarm_kernel_passed_packets", "reason", "Packets passed unread, or events lost, by reason"),
    ("prewarm_lease_saved_seconds", "quantile", "Seconds that used leases saved"),
    ("prewarm_app_ring_to_dial_seconds", "quantile", "Seconds from the packet to the dial that it caused"),
    ("prewarm_app_ring_to_intent_seconds", "quantile", "Seconds from the packet to the decision"),
    (SOURCES[0].0, "source", SOURCES[0].1),
    (SOURCES[1].0, "source", SOURCES[1].1),
    (SOURCES[2].0, "source", SOURCES[2].1),
    (SOURCES[3].0, "source", SOURCES[3].1),
    (SOURCES[4].0, "source", SOURCES[4].1),
    (SOURCES[5].0, "source", SOURCES[5].1),
    (SOURCES[6].0, "source", SOURCES[6].1),
    (SOURCES[7].0, "source", SOURCES[7].1),
    (SOURCES[8].0, "source", SOURCES[8].1),
    (SOURCES[9].0, "source", SOURCES[9].1),
    (FEEDS.0, "source", FEEDS.1),
    (HANDOVER[0].0, "way", HANDOVER[0].1),
    (HANDOVER[1].0, "way", HANDOVER[1].1),
    (HANDOVER[2].0, "way", HANDOVER[2].1),
    (HANDOVER[3].0, "way", HANDOVER[3].1),
    (HANDOVER[4].0, "way", HANDOVER[4].1),
    (HANDOVER[5].0, "way", HANDOVER[5].1),
    (LEFT.0, "reason", LEFT.1),
];

/// What the kernel did not answer, with the label `reason`: name, meaning.
const LEFT: (&str, &str) =
    ("prewarm_answers_left_questions", "Questions that the kernel left to the server, by reason");

type OfSource = (&'static str, &'static str, fn(&SourceCounts) -> u64);

/// The counters of each source beside the packets, with the label `source`.
const SOURCES: [OfSource; 10] = [
    ("prewarm_observe_source_questions", "Questions and look-ups told, by source", |source| source.questions),
    ("prewarm_observe_source_answers", "Answers told, by source", |source| source.answers),
    ("prewarm_observe_source_upstream", "A server's own questions and their answers, by source", |source| {
        source.upstream
    }),
    ("prewarm_observe_source_own", "The daemon's own questions and look-ups, by source", |source| source.own),
    ("prewarm_observe_source_ignored", "Messages and look-ups left out, by source", |source| source.ignored),
    ("prewarm_observe_source_unread", "Messages and look-ups that could not be read, by source", |source| {
        source.unread
    }),
    ("prewarm_observe_source_dropped", "Questions and answers dropped for want of room, by source", |source| {
        source.dropped
    }),
    ("prewarm_observe_source_connections", "Writers that connected, by source", |source| source.connections),
    ("prewarm_observe_source_broken", "Writers that broke off or wrote something else, by source", |source| {
        source.broken
    }),
    ("prewarm_observe_source_refused", "Writers turned away, by source", |source| source.refused),
];
/// The gauge of each source.
const FEEDS: OfSource =
    ("prewarm_observe_source_feeds", "Writers connected, or libraries watched, by source", |source| source.feeds);

type OfWay = (&'static str, &'static str, fn(&WayCounters) -> u64);

/// The counters of each way out, with the label `way`: name, meaning, where it stands.
const HANDOVER: [OfWay; 6] = [
    ("prewarm_handover_taken_connections", "Connections that got a lease, by way out", |way| way.taken),
    ("prewarm_handover_missed_connections", "Connections without a lease, by way out", |way| way.missed),
    ("prewarm_handover_replayed_connections", "Leases found dead and replaced, by way out", |way| way.replayed),
    ("prewarm_handover_failed_connections", "Connections that could not be had, by way out", |way| way.failed),
    ("prewarm_handover_refused_connections", "Clients and requests not served, by way out", |way| way.refused),
    ("prewarm_handover_carried_bytes", "Bytes carried, by way out", |way| way.bytes),
];

/// The page for `stats`, in OpenMetrics text.
#[must_use]
pub fn exposition(stats: Stats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(stats)));
    let mut page = String::new();
    // Writing to a string fails only where an encoder does, and then a page cut short says so by its missing end.
    if let Err(error) = encode(&mut page, &registry) {
        tracing::warn!(%error, "metrics: the page is incomplete");
    }
    page
}

#[derive(Debug)]
struct Snapshot(Stats);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = &self.0;
        for metric in METRICS {
            let value = (metric.read)(stats);
            match metric.kind {
                Kind::Counter => {
                    let counter = ConstCounter::new(value);
                    let family = encoder.encode_descriptor(metric.name, metric.meaning, None, counter.metric_type())?;
                    counter.encode(family)?;
                }
                Kind::Gauge => {
                    let gauge = ConstGauge::new(value);
                    let family = encoder.encode_descriptor(metric.name, metric.meaning, None, gauge.metric_type())?;
                    gauge.encode(family)?;
                }
            }
        }
        let [passed, saved, dial, intent, ..] = LABELLED else { return Ok(()) };
        let counter = ConstCounter::new(0.0);
        let mut family = encoder.encode_descriptor(passed.0, passed.2, None, counter.metric_type())?;
        for (reason, count) in &stats.drops {
            let labels = [(passed.1, reason.as_str())];
            ConstCounter::new(*count as f64).encode(family.encode_family(&labels)?)?;
        }
        let views = [
            (saved, stats.saved_ms, 1e-3),
            (dial, stats.ring_to_dial_us, 1e-6),
            (intent, stats.ring_to_intent_us, 1e-6),
        ];
        for (metric, view, unit) in views {
            quantiles(&mut encoder, metric, view, unit)?;
        }
        for (name, meaning, read) in SOURCES {
            let mut family = encoder.encode_descriptor(name, meaning, None, counter.metric_type())?;
            for (source, counts) in &stats.sources {
                let labels = [("source", source.as_str())];
                ConstCounter::new(read(counts) as f64).encode(family.encode_family(&labels)?)?;
            }
        }
        let gauge = ConstGauge::new(0.0);
        let mut family = encoder.encode_descriptor(FEEDS.0, FEEDS.1, None, gauge.metric_type())?;
        for (source, counts) in &stats.sources {
            let labels = [("source", source.as_str())];
            ConstGauge::new(FEEDS.2(counts) as f64).encode(family.encode_family(&labels)?)?;
        }
        for (name, meaning, read) in HANDOVER {
            let mut family = encoder.encode_descriptor(name, meaning, None, counter.metric_type())?;
            for (way, counters) in &stats.handover {
                let labels = [("way", way.as_str())];
                ConstCounter::new(read(counters) as f64).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(LEFT.0, LEFT.1, None, counter.metric_type())?;
        for reason in AnswerCounter::ALL.iter().filter(|counter| counter.is_reason()) {
            if let Some(count) = stats.given.as_ref().and_then(|given| given.kernel.get(reason.name())) {
                let labels = [("reason", reason.name())];
                ConstCounter::new(*count as f64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn quantiles(
    encoder: &mut DescriptorEncoder<'_>,
    (name, label, meaning): &(&'static str, &'static str, &'static str),
    view: LatencyView,
    unit: f64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(0.0);
    let mut family = encoder.encode_descriptor(name, meaning, None, gauge.metric_type())?;
    for (quantile, value) in [("0.5", view.p50), ("0.9", view.p90), ("0.99", view.p99)] {
        let labels = [(*label, quantile)];
        ConstGauge::new(value * unit).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_on_the_page() {
        let mut stats = Stats { questions: 7, ..Stats::default() };
        stats.drops.insert("fragment".to_owned(), 3);
        stats.saved_ms.p50 = 40.0;
        stats.handover.insert("socks".to_owned(), WayCounters { taken: 3, ..WayCounters::default() });
        stats.sources.insert("getaddrinfo".to_owned(), SourceCounts { questions: 5, feeds: 2, ..Default::default() });
        let page = exposition(stats);
        for metric in METRICS {
            assert!(page.contains(&format!("# TYPE {} ", metric.name)), "{} is missing", metric.name);
        }
        assert!(page.contains("prewarm_kernel_questions_total 7"), "{page}");
        assert!(page.contains("prewarm_kernel_passed_packets_total{reason=\"fragment\"} 3"), "{page}");
        assert!(page.contains("prewarm_lease_saved_seconds{quantile=\"0.5\"} 0.04"), "{page}");
        assert!(page.contains("prewarm_handover_taken_connections_total{way=\"socks\"} 3"), "{page}");
        assert!(page.contains("prewarm_observe_source_questions_total{source=\"getaddrinfo\"} 5"), "{page}");
        assert!(page.contains("prewarm_observe_source_feeds{source=\"getaddrinfo\"} 2"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }
}
