//! The names as they are written down, so that a restart forgets none.
//!
//! Comes in: the table, or what was written of it. Goes out: the same. Never here: files, resource IDs (they hang on the
//! installation's key, and whoever reads knows that), or trust: a name that does not parse is left out.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    History, Learned,
    names::{Admission, PortCount},
};
use crate::model::{Name, ResourceId, Timestamp};

/// One name, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedName {
    /// In presentation format.
    pub name: String,
    /// The addresses of its last answers. They are stale when they are read again, and looked up before they are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    /// Ports that programs connected to, with how often, most used first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<(u16, u32)>,
    /// How often it was asked for.
    asked: u64,
    /// Seconds since it was last asked for.
    idle_seconds: u64,
    /// Seconds since its last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered_seconds: Option<u64>,
    /// Whether an HTTPS or SVCB record was seen.
    #[serde(default)]
    service_binding: bool,
}

impl History {
    /// What is worth remembering, the name that was asked for longest ago first.
    #[must_use]
    pub fn remember(&self, now: Timestamp) -> Vec<RememberedName> {
        let mut names: Vec<_> = self.names.iter().filter(|known| known.rcode == 0).collect();
        names.sort_by_key(|known| (known.last_asked, known.resource));
        let row = |known: &super::KnownName| RememberedName {
            name: known.name.to_string(),
            addresses: known.addresses.clone(),
            ports: known.ports.iter().map(|known| (known.port, known.count)).collect(),
            asked: known.count,
            idle_seconds: now.since(known.last_asked).as_secs(),
            answered_seconds: known.answered_at.map(|at| now.since(at).as_secs()),
            service_binding: known.service_binding,
        };
        names.into_iter().map(row).collect()
    }

    /// Takes in what was remembered, `away` after it was written; `identify` gives a name its resource ID.
    pub fn recollect(
        &mut self,
        now: Timestamp,
        away: Duration,
        remembered: Vec<RememberedName>,
        identify: impl Fn(&Name) -> ResourceId,
        changes: &mut Vec<Learned>,
    ) {
        let idle = Duration::from_secs(self.settings.name_idle_hours.saturating_mul(3600));
        let memory = Duration::from_secs(self.settings.address_memory_seconds);
        let before = |seconds: u64| Duration::from_secs(seconds).saturating_add(away);
        for row in remembered {
            let Ok(name) = row.name.parse::<Name>() else { continue };
            if before(row.idle_seconds) > idle {
                continue;
            }
            let resource = identify(&name);
            if self.names.touch(resource) {
                continue;
            }
            let asked = now - before(row.idle_seconds);
            if let Admission::Taken(evicted) = self.names.admit(asked, resource, &name) {
                if let Some(evicted) = evicted {
                    self.unlink(&evicted, changes);
                }
                changes.push(Learned::New(resource));
            }
            let Some(known) = self.names.get_mut(resource) else { continue };
            (known.last_asked, known.count, known.service_binding) = (asked, row.asked, row.service_binding);
            known.restore(row.addresses, row.ports.into_iter().map(|(port, count)| PortCount { port, count }));
            let Some(age) = row.answered_seconds.map(before) else { continue };
            (known.answered_at, known.fresh_until) = (Some(now - age), now - age);
            // Programs may go on using an address for a while, from before the restart as well.
            let Some(left) = memory.checked_sub(age) else { continue };
            for &address in &known.addresses {
                self.reverse.insert(address, resource, now + left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::HistorySettings,
        model::{Direction, Observation, Seen},
    };

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn id(name: &Name) -> ResourceId {
        ResourceId(
            name.as_wire()
                .iter()
                .fold(7, |hash: u64, &byte| hash.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte)),
        )
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn asked(history: &mut History, seconds: u64, name: &str, addresses: &[IpAddr], rcode: u8) {
        let name: Name = name.parse().unwrap();
        let resource = id(&name);
        let question =
            Seen::Question { resource, name: Some(name), qtype: 1, direction: Direction::Ingress, interface: 1 };
        let answer = Seen::Answer {
            resource,
            name: None,
            qtype: 1,
            rcode,
            ttl: Duration::from_secs(60),
            addresses: addresses.to_vec(),
            service_binding: false,
        };
        for seen in [question, answer] {
            history.observe(&Observation { at: at(seconds), client: CLIENT, seen }, &mut Vec::new());
        }
    }

    fn restart(
        history: &History,
        now: u64,
        settings: &HistorySettings,
        start: u64,
        away: u64,
    ) -> (History, Vec<Learned>) {
        let text = serde_json::to_string(&history.remember(at(now))).unwrap();
        let mut again = History::new(settings);
        let mut changes = Vec::new();
        again.recollect(at(start), Duration::from_secs(away), serde_json::from_str(&text).unwrap(), id, &mut changes);
        (again, changes)
    }

    #[test]
    fn a_restart_forgets_no_name() {
        let mut history = History::new(&HistorySettings::default());
        let address: IpAddr = [198, 51, 100, 9].into();
        asked(&mut history, 100, "a.example", &[address], 0);
        let seen = Seen::Connect { destination: (address, 443).into(), leased: false };
        history.observe(&Observation { at: at(101), client: CLIENT, seen }, &mut Vec::new());
        asked(&mut history, 130, "gone.example", &[], 3);
        asked(&mut history, 160, "b.example", &[], 0);

        // The clock has begun anew with the machine, 100 s later.
        let (again, changes) = restart(&history, 200, &HistorySettings::default(), 1000, 100);
        let a = id(&"a.example".parse().unwrap());
        let known = again.get(a).unwrap();
        assert_eq!((known.addresses.as_slice(), known.count), (&[address][..], 1));
        assert_eq!(known.ports, [PortCount { port: 443, count: 1 }]);
        assert_eq!((known.last_asked, known.fresh_until), (at(800), at(800)), "idle for 200 s, and stale");
        assert_eq!(again.name_behind(at(1000), CLIENT, address), Some(a), "programs may still use the address");
        assert_eq!(again.len(), 2, "what does not exist is not worth remembering");
        assert_eq!(changes.len(), 2, "the kernel is told");

        let (late, _) = restart(&history, 200, &HistorySettings::default(), 10_000, 5000);
        assert_eq!(late.name_behind(at(10_000), CLIENT, address), None, "an old address stands for nothing");
        let (later, _) = restart(&history, 200, &HistorySettings::default(), 90_000_000, 30 * 86_400);
        assert_eq!(later.len(), 0, "a month is too long");
    }

    #[test]
    fn a_smaller_table_keeps_the_latest() {
        let mut history = History::new(&HistorySettings::default());
        for n in 0..100 {
            asked(&mut history, n, &format!("n{n}.example"), &[], 0);
        }
        let small = HistorySettings { names: 64, ..HistorySettings::default() };
        let (again, changes) = restart(&history, 100, &small, 200, 0);
        assert_eq!(again.len(), 64);
        let count = |wanted: fn(&Learned) -> bool| changes.iter().filter(|change| wanted(change)).count();
        let (new, gone) = (count(|c| matches!(c, Learned::New(_))), count(|c| matches!(c, Learned::Forgotten(_))));
        assert_eq!(new - gone, 64, "the kernel's table is as large as ours");
    }

    proptest! {
        #[test]
        fn what_is_read_need_not_make_sense(rows in prop::collection::vec(
            (".{0,40}", prop::collection::vec(any::<IpAddr>(), 0..40), prop::collection::vec(any::<(u16, u32)>(), 0..9),
             any::<u64>(), any::<u64>(), any::<Option<u64>>()), 0..20), away: u64) {
            let rows: Vec<_> = rows.into_iter().map(|(name, addresses, ports, asked, idle_seconds, answered_seconds)| {
                RememberedName { name, addresses, ports, asked, idle_seconds, answered_seconds, service_binding: true }
            }).collect();
            let mut history = History::new(&HistorySettings::default());
            history.recollect(at(50), Duration::from_secs(away), rows, id, &mut Vec::new());
            for known in history.iter() {
                prop_assert!(known.addresses.len() <= 16 && known.ports.len() <= 4);
                prop_assert!(known.ports.windows(2).all(|pair| pair[0].count >= pair[1].count));
            }
        }
    }
}
