//! Who gets no lease: other users, other network namespaces, and whoever does not speak the protocol.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process::Command,
};

use prewarm_tests::netns::Namespace;
use prewarm_user::{config::HandoverSettings, handover::peer::Rule, lease::netns_cookie};
use serde_json::{Value, json};

use super::{
    bench::{Daemon, Origin, wait_for},
    client, example, number, text,
};

/// Says one line to the daemon and reads the reply; the descriptor beside it is lost.
fn ask(daemon: &Daemon, request: &Value) -> Value {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(super::PATIENT)).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// One that every user may run.
const PYTHON: &str = "/usr/bin/python3";

fn take(id: u64, want: &Value) -> Value {
    json!({"v": 1, "id": id, "request": {"take": want}})
}

#[test]
fn another_user_is_refused_and_connects_as_ever() {
    const OTHER: u32 = 65534;
    let rule = Rule::new(&HandoverSettings { exclude_uids: vec![OTHER], ..HandoverSettings::default() });
    let (mut daemon, origin) = (Daemon::with(rule), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    daemon.open_to_all();
    let as_other = |program: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={OTHER}"), &format!("--regid={OTHER}"), "--clear-groups"]).args(program);
        text(&command.output().unwrap())
    };
    // What it is told.
    let request = take(7, &json!({"destination": origin.address}));
    let code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                s.sendall(sys.argv[2].encode() + b'\\n'); print(s.recv(4096).decode(), end='')";
    let (stdout, stderr) = as_other(&[PYTHON, "-c", code, daemon.socket.to_str().unwrap(), &request.to_string()]);
    let reply: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(7), &json!("forbidden")), "{reply}");
    // The page that says where leases are is not its business either.
    let hints = json!({"v": 1, "id": 8, "request": {"hints": {}}}).to_string();
    let (stdout, _) = as_other(&[PYTHON, "-c", code, daemon.socket.to_str().unwrap(), &hints]);
    assert!(stdout.contains("forbidden"), "{stdout}");
    // What becomes of its programs: nothing.
    let script = std::fs::read_to_string(example()).unwrap();
    let (host, port) = (origin.address.ip().to_string(), origin.address.port().to_string());
    let (stdout, stderr) = as_other(&[PYTHON, "-c", &script, &host, &port, daemon.socket.to_str().unwrap()]);
    assert_eq!(stdout, "opened\n1\n", "{stderr}");
    assert_eq!(daemon.desk.counters().forbidden, 3);
    // It was not taken from those who may have it.
    assert_eq!(daemon.ready(), 1);
    assert_eq!(number(client(&daemon).take(origin.address).unwrap().into_stream()), 0);
}

#[test]
fn another_namespace_gets_nothing_whatever_it_says() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let here = netns_cookie(std::os::fd::AsFd::as_fd(&UnixStream::pair().unwrap().0)).unwrap();
    let destination = json!({"destination": origin.address});
    let liar = json!({"destination": origin.address, "netns_cookie": here});
    let name = json!({"origin": format!("origin.example:{}", origin.address.port())});
    let namespace = Namespace::create("stranger").unwrap();
    namespace
        .enter(|| {
            for (id, want) in [&destination, &liar, &name].into_iter().enumerate() {
                let reply = ask(&daemon, &take(id as u64, want));
                assert_eq!(reply["ok"]["lease"], Value::Null, "{reply}");
            }
            assert!(client(&daemon).take(origin.address).is_none());
            Ok(())
        })
        .unwrap();
    // Asked from here, but for a socket over there.
    let there = json!({"destination": origin.address, "netns_cookie": here + 1});
    assert_eq!(ask(&daemon, &take(1, &there))["ok"]["lease"], Value::Null);
    assert_eq!(daemon.ready(), 1);
    // The same words from the right place: the test above can fail.
    assert_ne!(ask(&daemon, &take(1, &liar))["ok"]["lease"], Value::Null);
    wait_for("the lease that nobody reported on is lost", || daemon.pool.counters().lost == 1);
}

#[test]
fn a_lease_for_another_socket_is_none() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    for want in [
        json!({"destination": origin.address, "mark": 9}),
        json!({"destination": origin.address, "source": "127.0.0.2"}),
    ] {
        assert_eq!(ask(&daemon, &take(1, &want))["ok"]["lease"], Value::Null, "{want}");
    }
    let want = json!({"destination": origin.address, "source": "127.0.0.1"});
    assert_ne!(ask(&daemon, &take(1, &want))["ok"]["lease"], Value::Null);
}

#[test]
fn what_is_no_question_is_told_so() {
    let daemon = Daemon::start();
    for want in [json!({}), json!({"destination": "192.0.2.1:1", "origin": "a.example:1"}), json!({"origin": "a..b:1"})]
    {
        assert_eq!(ask(&daemon, &take(3, &want))["error"]["code"], "malformed", "{want}");
    }
    let other = json!({"v": 2, "id": 4, "request": {"take": {"destination": "192.0.2.1:1"}}});
    assert_eq!(ask(&daemon, &other)["error"]["code"], "version");
}

#[test]
fn a_client_that_never_reads_or_never_ends_its_line_harms_nobody() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let mut deaf = UnixStream::connect(&daemon.socket).unwrap();
    let question = format!("{}\n", take(1, &json!({"destination": "192.0.2.1:1"})));
    // Until the daemon has had enough of it.
    while deaf.write_all(question.as_bytes()).is_ok() {}
    let mut endless = UnixStream::connect(&daemon.socket).unwrap();
    while endless.write_all(&[b'x'; 4096]).is_ok() {}
    assert_eq!(number(client(&daemon).take(origin.address).unwrap().into_stream()), 0);
}
