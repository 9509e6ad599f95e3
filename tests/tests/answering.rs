//! Answers of the kernel beside a real resolver: the same to every question, never too old, never wrong.

use std::{net::IpAddr, time::Duration};

use nix::sys::signal::{Signal, kill};
use prewarm_tests::{
    answering::{ANSWERED, CLIENT, Generator, Kind, OTHER_ANSWER, OTHER_CLIENT, PLAIN, World, compare},
    clock,
    needs::{Need, skip},
    question,
};

const NEEDS: &[Need] = &[Need::Root, Need::Packages, Need::Resolvers, Need::Binary];

/// Asks everything that can be answered by the kernel until it is, or ten times.
fn warm(world: &World, addresses: &[IpAddr]) -> u64 {
    let plain = Generator::new(1).plain();
    let mut held = 0;
    for _ in 0..10 {
        for &address in addresses {
            for batch in plain.chunks(4000) {
                world.ask_all(address, batch).unwrap();
            }
        }
        clock::pause(Duration::from_millis(1200));
        held = world.numbers().unwrap()["held"].as_u64().unwrap();
        if held > 1500 {
            break;
        }
    }
    held
}

fn differential(kind: Kind, count: u16) {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(kind).unwrap();
    world.answer("audit = 0\nfills_per_second = 20000\nper_second = 0\n").unwrap();
    let addresses: [(IpAddr, IpAddr); 2] =
        [(ANSWERED.v4.into(), PLAIN.v4.into()), (ANSWERED.v6.into(), PLAIN.v6.into())];
    let held = warm(&world, &addresses.map(|(answered, _)| answered));
    assert!(held > 1000, "{held} answers are held: {:#}", world.numbers().unwrap());
    let since = clock::now();
    let mut generator = Generator::new(7);
    let messages: Vec<Vec<u8>> = (0..count).map(|id| generator.next(id)).collect();
    let mut differences = Vec::new();
    for batch in messages.chunks(500) {
        for (answered, plain) in addresses {
            let (theirs, ours) = (world.ask_all(plain, batch).unwrap(), world.ask_all(answered, batch).unwrap());
            for ((ours, theirs), message) in ours.iter().zip(&theirs).zip(batch) {
                // Warming took up to ten rounds.
                let elapsed = (clock::now() - since).as_secs() as u32 + 60;
                let same = match (ours, theirs) {
                    (Some(ours), Some(theirs)) => compare(ours, theirs, elapsed).is_ok(),
                    (None, None) => true,
                    _ => false,
                };
                // A packet was lost, or the server asked anew in between: once more, one by one.
                if !same && let Some(difference) = world.differs((answered, plain), message, elapsed).unwrap() {
                    differences.push(format!("{difference:?}: {message:02x?}\n {ours:02x?}\n {theirs:02x?}"));
                }
            }
        }
    }
    let numbers = world.numbers().unwrap();
    assert!(
        differences.is_empty(),
        "{} differ: {}",
        differences.len(),
        differences[..differences.len().min(5)].join("\n")
    );
    let answered = numbers["answered"].as_u64().unwrap();
    // About half of them are of a kind that the kernel answers.
    assert!(answered > u64::from(count) / 3, "{answered} of {count}: {numbers:#}");
}

#[test]
fn answers_are_those_of_unbound() {
    differential(Kind::Unbound, 3000);
}

#[test]
fn answers_are_those_of_knot_resolver() {
    differential(Kind::KnotResolver, 3000);
}

/// The first address in an answer.
fn address(answer: &[u8]) -> Option<IpAddr> {
    let message = hickory_proto::op::Message::from_vec(answer).ok()?;
    message.answers.first()?.data.ip_addr()
}

fn answered(world: &World) -> u64 {
    world.numbers().unwrap()["answered"].as_u64().unwrap()
}

#[test]
fn a_record_that_changes_is_never_told_beyond_its_ttl() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    world.answer("audit = 0\n").unwrap();
    // h3 has a TTL of 7 s.
    let (server, asked) = (ANSWERED.v4.into(), question::bytes("h3.example.org"));
    let before: IpAddr = [192, 0, 2, 4].into();
    clock::wait_for("an answer of the kernel", Duration::from_secs(20), || {
        let answer = world.ask(server, &asked)?;
        assert_eq!(answer.as_deref().and_then(address), Some(before));
        clock::pause(Duration::from_millis(100));
        Ok((answered(&world) > 0).then_some(()))
    })
    .unwrap();
    let changed = prewarm_tests::answering::zone().replace("h3 7 A 192.0.2.4", "h3 7 A 192.0.2.104");
    world.replace_zone(&changed).unwrap();
    let since = clock::now();
    let after: IpAddr = [192, 0, 2, 104].into();
    let mut first = None;
    clock::wait_for("the new address", Duration::from_secs(20), || {
        let told = world.ask(server, &asked)?.as_deref().and_then(address);
        let now = clock::now() - since;
        if told == Some(after) {
            first = first.or(Some(now));
        } else {
            assert_eq!(told, Some(before));
            assert!(first.is_none(), "the old one came back");
            assert!(now < Duration::from_secs(8), "the old address after {now:?}");
        }
        Ok(first.filter(|first| now > *first + Duration::from_secs(2)))
    })
    .unwrap();
}

#[test]
fn a_daemon_that_hangs_or_dies_leaves_every_question_to_the_server() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    world.answer("audit = 0\n").unwrap();
    let (server, asked) = (ANSWERED.v4.into(), question::bytes("h1.example.org"));
    let right: IpAddr = [192, 0, 2, 2].into();
    let is_right =
        |world: &World| assert_eq!(world.ask(server, &asked).unwrap().as_deref().and_then(address), Some(right));
    clock::wait_for("an answer of the kernel", Duration::from_secs(20), || {
        is_right(&world);
        clock::pause(Duration::from_millis(100));
        Ok((answered(&world) > 0).then_some(()))
    })
    .unwrap();
    let pid = world.daemon.as_ref().unwrap().pid();
    kill(pid, Signal::SIGSTOP).unwrap();
    let since = clock::now();
    while clock::now() - since < Duration::from_millis(2600) {
        is_right(&world);
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let stale = world.numbers().unwrap()["kernel"]["stale_daemon"].as_u64().unwrap();
    assert!(stale > 0, "after two seconds the kernel answers nothing");
    kill(pid, Signal::SIGKILL).unwrap();
    for _ in 0..200 {
        is_right(&world);
    }
    world.daemon = None;
    is_right(&world);
}

#[test]
fn what_is_flushed_is_asked_anew() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    world.answer("audit = 0\nexclude = [\"h9.example.org\"]\n").unwrap();
    let names = ["h1.example.org", "h5.example.org", "h9.example.org"];
    let server = ANSWERED.v4.into();
    let listed = |world: &World| {
        let list = world.daemon.as_ref().unwrap().command(&["answers", "--json"]);
        let list: serde_json::Value =
            list.map_or_else(|_| serde_json::json!({"answers": []}), |t| serde_json::from_str(&t).unwrap());
        let mut names: Vec<String> =
            list["answers"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    clock::wait_for("two names", Duration::from_secs(20), || {
        for name in names {
            world.ask(server, &question::bytes(name))?;
        }
        clock::pause(Duration::from_millis(100));
        Ok((listed(&world) == ["h1.example.org", "h5.example.org"]).then_some(()))
    })
    .unwrap();
    let command = |arguments: &[&str]| world.daemon.as_ref().unwrap().command(arguments).unwrap();
    assert_eq!(command(&["answers", "flush", "h1.example.org"]).trim(), "1 answers let go of");
    assert_eq!(listed(&world), ["h5.example.org"]);
    let before = answered(&world);
    world.ask(server, &question::bytes("h1.example.org")).unwrap().unwrap();
    assert_eq!(answered(&world), before, "the server answers");
    assert_eq!(command(&["answers", "flush", "--zone", "example.org"]).trim(), "1 answers let go of");
    assert_eq!(command(&["answers", "flush", "--all"]).trim(), "0 answers let go of");
}

#[test]
fn a_name_that_is_answered_by_client_is_left_alone() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    world.answer("audit = 0\n").unwrap();
    let (server, asked) = (ANSWERED.v4.into(), question::bytes("h1.example.org"));
    let (usual, other): (IpAddr, IpAddr) = ([192, 0, 2, 2].into(), OTHER_ANSWER.into());
    clock::wait_for("an answer of the kernel", Duration::from_secs(20), || {
        assert_eq!(world.ask(server, &asked)?.as_deref().and_then(address), Some(usual));
        clock::pause(Duration::from_millis(100));
        Ok((answered(&world) > 0).then_some(()))
    })
    .unwrap();
    clock::pause(Duration::from_millis(1500));
    // The server has not answered this client, so the first question goes to it, whatever is held.
    assert_eq!(world.ask_as_other(&asked).unwrap().as_deref().and_then(address), Some(other));
    clock::wait_for("the name to be left alone", Duration::from_secs(5), || {
        Ok((world.numbers()?["by_client"] == serde_json::json!(["h1.example.org"])).then_some(()))
    })
    .unwrap();
    for _ in 0..20 {
        assert_eq!(world.ask_as_other(&asked).unwrap().as_deref().and_then(address), Some(other));
        assert_eq!(world.ask(server, &asked).unwrap().as_deref().and_then(address), Some(usual));
    }
    assert_eq!(world.numbers().unwrap()["held"], 0);
}

#[test]
fn the_first_question_for_a_predicted_name_is_answered_by_the_kernel() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    // The authority answers at once, so by default the policy would rather wait until it is surer.
    world.answer("audit = 0\n[policy.cost]\nresolve_ms = 0.01\n").unwrap();
    let server = ANSWERED.v4.into();
    let ask = |name: &str| world.ask(server, &question::bytes(name)).unwrap().unwrap();
    // Two names with a TTL of 7 s, the second always half a second after the first.
    let (first, follower) = ("h3.example.org", "h7.example.org");
    let mut warm = 0;
    for round in 0..9 {
        ask(first);
        clock::pause(Duration::from_millis(500));
        let before = answered(&world);
        ask(follower);
        warm = answered(&world) - before;
        if warm > 0 && world.numbers().unwrap()["expected"].as_u64().unwrap() > 0 {
            println!("answered warm in round {round}");
            break;
        }
        clock::pause(Duration::from_millis(7600));
    }
    assert_eq!(warm, 1, "{:#}", world.numbers().unwrap());
}

#[test]
fn the_address_that_a_lease_waits_for_comes_first() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    let [listens, silent] = [OTHER_CLIENT, CLIENT.v4].map(IpAddr::from);
    let _listener = world.client.enter(|| Ok(std::net::TcpListener::bind((listens, 80))?)).unwrap();
    world
        .answer(
            "audit = 0\n[policy.guard]\nallow_networks = [\"10.77.0.0/24\"]\n[[lease.keep]]\n\
             origin = \"near.example.org:80\"\ncount = 1\n",
        )
        .unwrap();
    clock::wait_for("a lease", Duration::from_secs(20), || {
        let list = world.daemon.as_ref().unwrap().command(&["leases", "--json"]).unwrap_or_default();
        Ok(list.contains(&format!("\"{listens}:80\"")).then_some(()))
    })
    .unwrap();
    let (server, asked) = (ANSWERED.v4.into(), question::bytes("near.example.org"));
    // The server itself lets both take turns, by the question's number.
    let numbered = |number: u16| {
        let mut asked = asked.clone();
        asked[..2].copy_from_slice(&number.to_be_bytes());
        asked
    };
    let plain: Vec<_> =
        (0..20).map(|id| world.ask(PLAIN.v4.into(), &numbered(id)).unwrap().as_deref().and_then(address)).collect();
    assert!([listens, silent].iter().all(|address| plain.contains(&Some(*address))), "{plain:?}");
    clock::wait_for("answers of the kernel", Duration::from_secs(20), || {
        world.ask(server, &asked)?;
        clock::pause(Duration::from_millis(100));
        Ok((answered(&world) > 0).then_some(()))
    })
    .unwrap();
    let before = answered(&world);
    for id in 0..20 {
        let answer = world.ask(server, &numbered(id)).unwrap().unwrap();
        assert_eq!(address(&answer), Some(listens));
        let all = hickory_proto::op::Message::from_vec(&answer).unwrap();
        assert_eq!(all.answers.len(), 2, "the order, never the content");
    }
    assert_eq!(answered(&world) - before, 20);
}

#[test]
fn a_flood_of_random_names_leaves_popular_ones_their_answers() {
    if skip(NEEDS) {
        return;
    }
    let mut world = World::start(Kind::Unbound).unwrap();
    world.answer("audit = 0\nper_second = 0\nentries = 128\nfills_per_second = 1000\n").unwrap();
    let server = ANSWERED.v4.into();
    // Those with a TTL of an hour and of five minutes: none ends meanwhile.
    let ask = |id: u16, name: String| {
        let mut message = question::bytes(&name);
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    };
    let popular: Vec<Vec<u8>> =
        (0..40).filter(|host| host % 4 < 2).map(|host| ask(host, format!("h{host}.example.org"))).collect();
    let share = |world: &World| {
        let before = answered(world);
        for _ in 0..5 {
            let answers = world.ask_all(server, &popular).unwrap();
            assert!(answers.iter().all(Option::is_some), "the server answers all the same");
        }
        (answered(world) - before) as f64 / (5 * popular.len()) as f64
    };
    clock::wait_for("popular names to be answered", Duration::from_secs(20), || {
        let warm = share(&world);
        clock::pause(Duration::from_millis(200));
        Ok((warm > 0.99).then_some(()))
    })
    .unwrap();
    let before = world.numbers().unwrap();
    let (mut least, mut filled) = (1.0_f64, 0);
    for wave in 0..20_u32 {
        // Each twice, as whoever knows of the doorkeeper would ask.
        let flood: Vec<Vec<u8>> =
            (0..1000).map(|number| ask(number, format!("w{wave}-{}.example.org", number / 2))).collect();
        world.ask_all(server, &flood).unwrap();
        least = least.min(share(&world));
        filled = world.numbers().unwrap()["held"].as_u64().unwrap();
        assert!(filled <= 128, "{filled} are held");
    }
    let after = world.numbers().unwrap();
    assert!(least > 0.95, "{least} of the popular questions were answered by the kernel: {after:#}");
    // The flood did reach the answers, else nothing was shown.
    assert!(after["asked"].as_u64() > before["asked"].as_u64().map(|asked| asked + 200), "{before:#} {after:#}");
    assert!(filled > 64, "{after:#}");
}

#[test]
fn a_failing_server_is_stood_in_for_only_where_that_is_asked_for() {
    if skip(NEEDS) {
        return;
    }
    // h3 has a TTL of 7 s.
    let (server, asked) = (ANSWERED.v4.into(), question::bytes("h3.example.org"));
    let old: IpAddr = [192, 0, 2, 4].into();
    for stale_seconds in [0, 10] {
        let mut world = World::start(Kind::Unbound).unwrap();
        world.answer(&format!("audit = 0\nstale_seconds = {stale_seconds}\n")).unwrap();
        clock::wait_for("an answer of the kernel", Duration::from_secs(20), || {
            world.ask(server, &asked)?;
            clock::pause(Duration::from_millis(100));
            Ok((answered(&world) > 0).then_some(()))
        })
        .unwrap();
        world.end_authority();
        let since = clock::now();
        let mut last = Duration::ZERO;
        while clock::now() - since < Duration::from_secs(7 + 10 + 3) {
            let answer = world.ask(server, &asked).unwrap();
            if let Some(message) = answer.and_then(|answer| hickory_proto::op::Message::from_vec(&answer).ok())
                && let Some(record) = message.answers.first()
            {
                assert_eq!(record.data.ip_addr(), Some(old));
                assert!(record.ttl <= 30, "{record}");
                last = clock::now() - since;
            }
            clock::pause(Duration::from_millis(100));
        }
        // What the server itself says from its cache ends with the TTL.
        let (least, most) = if stale_seconds == 0 { (0, 8) } else { (12, 18) };
        assert!((least..=most).contains(&last.as_secs()), "{stale_seconds}: {last:?} {:#}", world.numbers().unwrap());
        assert_eq!(world.numbers().unwrap()["stale"].as_u64().unwrap() > 0, stale_seconds > 0);
    }
}
