//! The daemon itself as a proxy: who may go where, what it learns, and how it ends.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use prewarm_tests::{
    clock,
    daemon::{self, Daemon, DaemonOptions},
    needs::{self, Need},
    netns::{Addresses, Namespace, VethEnd, veth},
};

const HOST: Addresses = Addresses { v4: Ipv4Addr::new(10, 84, 0, 1), v6: Ipv6Addr::new(0xfd84, 0, 0, 0, 0, 0, 0, 1) };
const GUEST: Addresses = Addresses { v4: Ipv4Addr::new(10, 84, 0, 2), v6: Ipv6Addr::new(0xfd84, 0, 0, 0, 0, 0, 0, 2) };
const WAIT: Duration = Duration::from_secs(10);

/// Asks a SOCKS proxy for an address, and gives its reply's code.
fn ask(from: &Namespace, proxy: SocketAddr, to: (IpAddr, u16)) -> u8 {
    let IpAddr::V4(address) = to.0 else { panic!("an IPv4 address") };
    let request = [&[5, 1, 0, 5, 1, 0, 1][..], &address.octets(), &to.1.to_be_bytes()].concat();
    reply(from, proxy, &request)
}

fn reply(from: &Namespace, proxy: SocketAddr, request: &[u8]) -> u8 {
    let asked = from.enter(|| {
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.write_all(request)?;
        let mut reply = [0; 4];
        stream.read_exact(&mut reply)?;
        Ok(reply[3])
    });
    asked.unwrap()
}

#[test]
fn clients_go_where_they_may_and_are_learnt_from() {
    if needs::skip(&[Need::Root, Need::Binary]) {
        return;
    }
    let binary = daemon::binary().unwrap();
    let (host, guest) = (Namespace::create("host").unwrap(), Namespace::create("guest").unwrap());
    let ends = [
        VethEnd { namespace: &host, interface: "pw-host", addresses: HOST },
        VethEnd { namespace: &guest, interface: "pw-guest", addresses: GUEST },
    ];
    veth(&ends[0], &ends[1]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let configuration = "[resolve]\nservers = [\"127.0.0.1:53\"]\ntimeout_ms = 200\n\
         [policy.guard]\ndeny_networks = [\"10.84.9.0/24\"]\n\
         [handover.socks]\nlisten = [\"0.0.0.0:1080\"]\nclients = [\"127.0.0.0/8\", \"10.84.0.0/24\"]\n\
         [handover.connect]\nlisten = [\"127.0.0.1:8080\"]\n";
    let options = DaemonOptions {
        interfaces: vec!["pw-host".to_owned()],
        configuration: configuration.to_owned(),
        ingress: true,
    };
    let mut daemon = Daemon::start(&host, &binary, &options, folder.path()).unwrap();

    let served = |namespace: &Namespace| namespace.enter(|| Ok(TcpListener::bind("0.0.0.0:0")?)).unwrap();
    let (inner, outer) = (served(&host), served(&guest));
    let (inner_port, outer_port) = (inner.local_addr().unwrap().port(), outer.local_addr().unwrap().port());
    let (near, far): (SocketAddr, SocketAddr) = ((Ipv4Addr::LOCALHOST, 1080).into(), (HOST.v4, 1080).into());
    let loopback = IpAddr::from([127, 0, 0, 1]);

    // A program of the host could go there by itself.
    assert_eq!(ask(&host, near, (GUEST.v4.into(), outer_port)), 0);
    assert_eq!(ask(&host, near, (loopback, inner_port)), 0);
    assert_eq!(ask(&host, near, ([10, 84, 9, 1].into(), 80)), 2, "what is denied is denied to all");
    // A guest could not, and shall not through us.
    assert_eq!(ask(&guest, far, (loopback, inner_port)), 2);
    assert_eq!(ask(&guest, far, (HOST.v4.into(), inner_port)), 2);
    assert_eq!(ask(&guest, far, ([169, 254, 169, 254].into(), 80)), 2);
    assert_eq!(ask(&guest, far, ([192, 168, 7, 7].into(), 80)), 2);
    // By name, which nobody here can look up; it is learnt all the same.
    let name = b"www.example.org";
    let request = [&[5, 1, 0, 5, 1, 0, 3, name.len() as u8][..], name, &443_u16.to_be_bytes()].concat();
    assert_eq!(reply(&guest, far, &request), 4);
    let known = clock::wait_for("the name", WAIT, || {
        let names = daemon.command(&["names", "--json"]);
        Ok(names.ok().filter(|names| names.contains("www.example.org")))
    });
    assert!(known.unwrap().contains("443"), "with its port");

    kill(daemon.pid(), Signal::SIGTERM).unwrap();
    let ended = clock::wait_for("the daemon to end", WAIT, || Ok(daemon.check().is_err().then_some(())));
    ended.unwrap();
    let gone = host.enter(|| Ok(TcpStream::connect(near).is_err()));
    assert!(gone.unwrap(), "nobody listens any more");
}
