//! The daemon itself on a gateway: it learns from forwarded connections that were left alone.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use prewarm_tests::{
    bed::{Bed, Peer},
    clock,
    daemon::binary,
    needs::{self, skip},
    path::Path,
};

const PORT: u16 = 9100;
const WAIT: Duration = Duration::from_secs(10);
/// The zone's name server.
const NAME_SERVER: ([u8; 4], u16) = ([198, 51, 100, 1], 53);

#[test]
fn the_daemon_learns_where_clients_go() {
    if skip(needs::DAEMON) {
        return;
    }
    let bed = Bed::build(None).unwrap();
    let _peer = Peer::start(&bed.server, bed.origin(PORT)).unwrap();
    let daemon = bed.start_daemon(Path::Tproxy, &binary().unwrap(), &[]).unwrap();
    for _ in 0..4 {
        let visited = bed.client.enter(|| {
            ask()?;
            Ok(TcpStream::connect_timeout(&bed.origin(PORT), WAIT)?)
        });
        drop(visited.unwrap());
        clock::pause(Duration::from_millis(100));
    }
    let learnt = clock::wait_for("the port", WAIT, || {
        let names: serde_json::Value = serde_json::from_str(&daemon.command(&["names", "--json"])?)?;
        let names = names["names"].as_array().cloned().unwrap_or_default();
        let known =
            names.into_iter().find(|name| name["name"].as_str().is_some_and(|name| name.contains("origin.bed")));
        Ok(known.filter(|name| name["ports"] == serde_json::json!([PORT])))
    });
    let complaint = || format!("{:?}", daemon.command(&["names", "--json"]));
    assert!(learnt.is_ok(), "{}", complaint());
}

/// Looks the origin's name up, as a program of the client would.
fn ask() -> std::io::Result<()> {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["origin", "bed", "example"] {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(SocketAddr::from(NAME_SERVER))?;
    socket.send(&question)?;
    socket.recv(&mut [0; 512]).map(|_| ())
}
