//! Origins of every kind on the bed: real servers from Debian packages with short patience, and stand-ins for what no
//! package does to order.
//!
//! In: a bed, a directory; out: a list of ports with what is spoken there. Short patience means that leases die all the
//! time, in each server's own way: silently, with a 408, after a greeting.

mod odd;
mod packaged;

use std::net::SocketAddr;

use anyhow::Result;

use super::{Bed, folder};
use crate::client::requests::{Counterpart, Speech};
use crate::daemon::Daemon;
use crate::path::Path;
use crate::service::Service;

use odd::{Habit, Odd};

/// Every origin, up until this is dropped.
#[derive(Debug)]
pub struct Origins {
    _packaged: Vec<Service>,
    _odd: Vec<Odd>,
    /// Where they are.
    pub list: Vec<Listed>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// For the report.
    pub name: &'static str,
    /// What is spoken.
    pub speech: Speech,
    /// Its port.
    pub port: u16,
}

const NGINX: Listed = Listed { name: "nginx", speech: Speech::Http, port: 8001 };
const NGINX_LIMIT: Listed = Listed { name: "nginx-limit", speech: Speech::Http, port: 8002 };
const APACHE: Listed = Listed { name: "apache", speech: Speech::Http, port: 8003 };
const NODE: Listed = Listed { name: "node", speech: Speech::Http, port: 8004 };
const NODE_LIMIT: Listed = Listed { name: "node-limit", speech: Speech::Http, port: 8005 };
const OPENSSH: Listed = Listed { name: "openssh", speech: Speech::Ssh, port: 8022 };
const POSTFIX: Listed = Listed { name: "postfix", speech: Speech::Smtp, port: 8026 };

const ODD: [(Listed, Habit); 7] = [
    (Listed { name: "closes-idle", speech: Speech::Http, port: 8101 }, Habit::ClosesIdle),
    (Listed { name: "resets-idle", speech: Speech::Http, port: 8102 }, Habit::ResetsIdle),
    (Listed { name: "408-idle", speech: Speech::Http, port: 8103 }, Habit::Complains),
    (Listed { name: "limits", speech: Speech::Http, port: 8104 }, Habit::Limits),
    (Listed { name: "breaks", speech: Speech::Http, port: 8105 }, Habit::Breaks),
    (Listed { name: "closes-at-once", speech: Speech::Http, port: 8106 }, Habit::ClosesAtOnce),
    (Listed { name: "accepts-nothing", speech: Speech::Http, port: 8107 }, Habit::AcceptsNothing),
];

/// Where every attempt waits in vain, this many say as much as a thousand.
const IN_VAIN: u32 = 3;

impl Origins {
    /// Requests to each, as the plain client is told on this way: so many where there is an answer.
    pub fn counterparts(&self, bed: &Bed, path: Path, daemon: Option<&Daemon>, count: u32) -> Vec<Counterpart> {
        let counterpart = |listed: &Listed| Counterpart {
            name: listed.name.to_owned(),
            speech: listed.speech,
            count: if listed.name == "accepts-nothing" { count.min(IN_VAIN) } else { count },
            target: bed.target(path, daemon, listed.port),
        };
        self.list.iter().map(counterpart).collect()
    }

    /// Starts all of them and waits until the packaged ones answer.
    ///
    /// # Errors
    /// When a server doesn't start, with the end of its log.
    pub fn start(bed: &Bed) -> Result<Self> {
        let at = |listed: Listed| -> SocketAddr { bed.origin(listed.port) };
        let packaged = vec![
            packaged::nginx(bed, &folder(bed, "nginx")?, at(NGINX), at(NGINX_LIMIT))?,
            packaged::apache(bed, &folder(bed, "apache")?, at(APACHE))?,
            packaged::node(bed, &folder(bed, "node")?, at(NODE), at(NODE_LIMIT))?,
            packaged::openssh(bed, &folder(bed, "openssh")?, at(OPENSSH))?,
            packaged::postfix(bed, &folder(bed, "postfix")?, at(POSTFIX))?,
        ];
        let odd = ODD.map(|(listed, habit)| Odd::start(&bed.server, at(listed), habit));
        let odd = odd.into_iter().collect::<Result<_>>()?;
        let real = [NGINX, NGINX_LIMIT, APACHE, NODE, NODE_LIMIT, OPENSSH, POSTFIX];
        let list = real.into_iter().chain(ODD.map(|(listed, _)| listed)).collect();
        Ok(Self { _packaged: packaged, _odd: odd, list })
    }
}
