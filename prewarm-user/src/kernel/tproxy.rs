//! The program that takes over forwarded connections, from user space.
//!
//! Comes in: interfaces, the place to take connections to, leases. Goes out: what a connection was taken over with.
//! Never here: routes and rules (`steer`), or what is done with the connection.

use std::net::{Ipv6Addr, SocketAddr};

use aya::{
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::{
        Link as _,
        tc::{SchedClassifierLink, TcAttachType},
    },
};
use prewarm_ebpf::{
    redirect::Destination,
    tproxy::{
        FLOWS, Flow, PLACE, Place, TPROXY, TPROXY_COUNTERS, TPROXY_COUNTERS_LENGTH, TPROXY_DESTINATIONS, TPROXY_OFFERS,
        Taken, TproxyCounter,
    },
};
use serde::{Deserialize, Serialize};

use super::{EgressHook, KernelError, Programs, RedirectOffers, attach, link, netlink, programs, redirect};

/// How a map's record lies in memory, which aya knows only for arrays.
type FlowWords = [u64; size_of::<Flow>() / 8];
type TakenWords = [u64; size_of::<Taken>() / 8];
type PlaceWords = [u32; size_of::<Place>() / 4];

/// The parts of the way, each with the maps it needs.
pub struct Tproxy {
    /// Offers leases.
    pub offers: RedirectOffers,
    /// Knows what a connection was taken over with.
    pub flows: Flows,
    /// Counts.
    pub counters: TproxyCounters,
    /// The program on its interfaces.
    pub hooks: TproxyHooks,
}

/// Where connections are taken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TproxyPlace {
    /// The mark by which packets are routed to this host.
    pub mark: u32,
    /// The port of the listener on 127.0.0.1.
    pub port4: Option<u16>,
    /// The port of the listener on ::1.
    pub port6: Option<u16>,
}

/// The program on interfaces, for as long as this lives. Nothing is pinned: when the daemon dies, it is gone (a filter
/// of a clsact qdisc stays, and does nothing without the daemon's beat).
pub struct TproxyHooks {
    hooks: Vec<Hook>,
    place: Array<MapData, PlaceWords>,
    mark: u32,
}

#[derive(Debug)]
struct Hook {
    interface: String,
    index: u32,
    link: Option<SchedClassifierLink>,
    own_clsact: bool,
}

impl Programs {
    /// Loads the program, and puts it on these interfaces, once.
    ///
    /// # Errors
    /// When the kernel refuses it, an interface is unknown or has no Ethernet header, or this was called before.
    pub fn tproxy(&mut self, place: TproxyPlace, interfaces: &[String], tcx: bool) -> Result<Tproxy, KernelError> {
        let bpf = self.bpf();
        programs::verify(bpf, TPROXY)?;
        let map = programs::take_map(bpf, PLACE, Array::try_from)?;
        let mut hooks = TproxyHooks { hooks: Vec::new(), place: map, mark: place.mark };
        hooks.set(place)?;
        let offers = redirect::offers(bpf, TPROXY_OFFERS, TPROXY_DESTINATIONS)?;
        let flows = Flows(redirect::hash(bpf, FLOWS)?);
        let counters = TproxyCounters(programs::take_map(bpf, TPROXY_COUNTERS, PerCpuArray::try_from)?);
        for interface in interfaces {
            let index = link::index(interface)?;
            link::expect_ethernet(interface)?;
            let (link, hook, reason, own_clsact) =
                attach::classify(bpf, TPROXY, interface, TcAttachType::Ingress, tcx)?;
            match (hook, reason) {
                (EgressHook::Clsact, Some(reason)) => tracing::info!("tproxy on {interface}: clsact, since {reason}"),
                _ => tracing::info!("tproxy on {interface}"),
            }
            hooks.hooks.push(Hook { interface: interface.clone(), index, link, own_clsact });
        }
        Ok(Tproxy { offers, flows, counters, hooks })
    }
}

impl TproxyHooks {
    /// From now on no more connections are taken over; the packets of those that were still come.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn pause(&mut self) -> Result<(), KernelError> {
        self.set(TproxyPlace { mark: self.mark, port4: None, port6: None })
    }

    fn set(&mut self, place: TproxyPlace) -> Result<(), KernelError> {
        let port = |port: Option<u16>| u32::from(port.unwrap_or(0).to_be());
        let record = Place { mark: place.mark, port4: port(place.port4), port6: port(place.port6) };
        let written = self.place.set(0, bytemuck::cast::<_, PlaceWords>(record), 0);
        written.map_err(|source| KernelError::Map { map: PLACE, source })
    }

    /// Takes the program off its interfaces: what is forwarded from now on is left alone. An interface that is gone took
    /// it along.
    pub fn detach(&mut self) {
        for Hook { interface, index, link, own_clsact } in self.hooks.drain(..) {
            let here = || link::index(&interface).ok() == Some(index);
            if let Some(link) = link
                && let Err(error) = link.detach()
                && here()
            {
                tracing::warn!(%error, "tproxy could not be taken off {interface}");
            }
            if own_clsact
                && here()
                && let Err(error) = netlink::delete_empty_clsact(index)
            {
                tracing::warn!(%error, "the clsact qdisc of {interface} could not be removed");
            }
        }
    }
}

impl Drop for TproxyHooks {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The connections that were taken over.
#[derive(Debug)]
pub struct Flows(HashMap<MapData, FlowWords, TakenWords>);

/// What a connection was taken over with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowClaim {
    /// The lease with this token, told once.
    Lease(u32),
    /// A lease that was given back, since the connection took too long to come.
    Late,
}

/// [`Taken::spent`]: the lease was fetched; it was given back.
const FETCHED: u32 = 1;
const GIVEN_BACK: u32 = 2;

impl Flows {
    /// What a connection was taken over with, if it was.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn spend(&mut self, client: SocketAddr, origin: SocketAddr) -> Result<Option<FlowClaim>, KernelError> {
        let key = bytemuck::cast::<_, FlowWords>(flow(client, origin));
        let taken: Taken = match self.0.get(&key, 0) {
            Ok(words) => bytemuck::cast(words),
            Err(source) if redirect::is_absent(&source) => return Ok(None),
            Err(source) => return Err(refused(source)),
        };
        let claim = match taken.spent {
            FETCHED => return Ok(None),
            GIVEN_BACK => FlowClaim::Late,
            _ => FlowClaim::Lease(taken.token),
        };
        self.set(key, Taken { spent: FETCHED, ..taken })?;
        Ok(Some(claim))
    }

    /// The leases that were claimed before this time (nanoseconds on the monotonic clock) and not fetched: each is told
    /// once, with where it leads, and is not fetched any more.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn unspent(&mut self, before: u64) -> Result<Vec<(u32, SocketAddr)>, KernelError> {
        // Collected first: what changes under an iteration makes it begin again.
        let all: Vec<(FlowWords, TakenWords)> = self.0.iter().filter_map(Result::ok).collect();
        let mut found = Vec::new();
        for (key, words) in all {
            let taken: Taken = bytemuck::cast(words);
            if taken.spent == 0 && taken.time < before {
                self.set(key, Taken { spent: GIVEN_BACK, ..taken })?;
                found.push((taken.token, origin(&bytemuck::cast(key))));
            }
        }
        Ok(found)
    }

    /// The entry itself must stay: the packets of the connection are found by it.
    fn set(&mut self, key: FlowWords, taken: Taken) -> Result<(), KernelError> {
        self.0.insert(key, bytemuck::cast::<_, TakenWords>(taken), 0).map_err(refused)
    }
}

fn refused(source: MapError) -> KernelError {
    KernelError::Map { map: FLOWS, source }
}

/// Where a connection leads.
fn origin(flow: &Flow) -> SocketAddr {
    let ip = Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(flow.origin)).to_canonical();
    let [_, _, high, low] = flow.ports.to_ne_bytes();
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}

fn flow(client: SocketAddr, origin: SocketAddr) -> Flow {
    let (client, origin): (Destination, Destination) = (redirect::record(client), redirect::record(origin));
    let [[a, b, ..], [c, d, ..]] = [client.port.to_ne_bytes(), origin.port.to_ne_bytes()];
    Flow { client: client.address, origin: origin.address, ports: u32::from_ne_bytes([a, b, c, d]), reserved: 0 }
}

/// What the program counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TproxyCounts {
    /// Connections taken over.
    pub claimed: u64,
    /// Connections to where every lease was claimed by somebody else, or called back.
    pub missed: u64,
    /// Connections left alone because the daemon had not beaten.
    pub stale: u64,
    /// Claims that led to nothing.
    pub forgotten: u64,
    /// Packets of connections that were taken over, without the first.
    pub packets: u64,
}

/// Reads what the program counts.
pub struct TproxyCounters(PerCpuArray<MapData, [u64; TPROXY_COUNTERS_LENGTH]>);

impl TproxyCounters {
    /// The sums over all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn read(&self) -> Result<TproxyCounts, KernelError> {
        let values = self.0.get(&0, 0).map_err(|source| KernelError::Map { map: TPROXY_COUNTERS, source })?;
        let sum = |counter: TproxyCounter| {
            values.iter().map(|processor| processor[counter as usize]).fold(0, u64::wrapping_add)
        };
        Ok(TproxyCounts {
            claimed: sum(TproxyCounter::Claimed),
            missed: sum(TproxyCounter::Missed),
            stale: sum(TproxyCounter::Stale),
            forgotten: sum(TproxyCounter::Forgotten),
            packets: sum(TproxyCounter::Packets),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_cross_as_they_are() {
        for text in ["192.0.2.7:258", "[2001:db8::7]:443"] {
            let to: SocketAddr = text.parse().unwrap();
            let flow = flow("192.0.2.9:4000".parse().unwrap(), to);
            assert_eq!(origin(&flow), to);
            // As in a packet.
            assert_eq!(flow.ports.to_ne_bytes()[..2], 4000_u16.to_be_bytes());
        }
    }
}
