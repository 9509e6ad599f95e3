//! The bodies of the fuzz targets `parser` and `answer`, over damaged messages, for a moment on every test run; ten
//! minutes of either are described in `docs/fuzzing.md`.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, SOA, TXT},
    },
};
use prewarm_tests::against;
use proptest::prelude::*;

/// Messages as programs and servers send them; the seeds of the fuzz targets are these.
fn messages() -> Vec<Vec<u8>> {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let mut all = Vec::new();
    for (kind, qtype) in [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::MX].into_iter().enumerate() {
        for (owner, edns) in [("www.example.org.", false), ("WwW.ExAmPlE.org.", true), (".", false)] {
            let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(name(owner), qtype));
            if edns {
                message.set_edns(Edns::new());
            }
            all.push(message.to_vec().unwrap());
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            let (chained, target) = (name(owner), name("edge.cdn.example.net."));
            let mut records = vec![Record::from_rdata(chained, 600, RData::CNAME(CNAME(target.clone())))];
            for last in 1..=3 {
                records.push(match kind {
                    0 => Record::from_rdata(target.clone(), 300, RData::A(A(Ipv4Addr::new(192, 0, 2, last)))),
                    1 => Record::from_rdata(target.clone(), 60, RData::AAAA(AAAA(Ipv6Addr::from([last; 16])))),
                    2 => Record::from_rdata(target.clone(), 5, RData::TXT(TXT::new(vec!["text".to_owned()]))),
                    _ => Record::from_rdata(target.clone(), 9, RData::MX(MX::new(10, name("mail.example.org.")))),
                });
            }
            message.answers = records.clone();
            all.push(message.to_vec().unwrap());
            // Without a chain, as an owner may have.
            message.answers = records
                .into_iter()
                .skip(1)
                .map(|mut record| {
                    record.name = name(owner);
                    record
                })
                .collect();
            all.push(message.to_vec().unwrap());
            message.answers = Vec::new();
            message.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(name("ns.example.org."), name("host.example.org."), 1, 2, 3, 4, 300);
            message.authorities = vec![Record::from_rdata(name("org."), 900, RData::SOA(soa))];
            all.push(message.to_vec().unwrap());
        }
    }
    all
}

#[test]
fn whole_messages_are_read_alike() {
    let key = against::key();
    let taken = messages().iter().filter(|bytes| against::answer(bytes)).count();
    assert!(taken >= 6, "only {taken} answers can be given again");
    for bytes in messages() {
        for end in 0..=bytes.len() {
            against::parser(&bytes[..end], key.words());
            against::answer(&bytes[..end]);
        }
    }
}

/// The fuzzers begin with these; `PREWARM_WRITE_SEEDS=1` writes them anew.
#[test]
fn the_seeds_are_these_messages() {
    for target in ["parser", "answer"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        for (number, bytes) in messages().into_iter().enumerate() {
            let path = folder.join(format!("{number:02}.dns"));
            if std::env::var_os("PREWARM_WRITE_SEEDS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{}", path.display());
        }
    }
}

/// An answer with a name server whose name ends in a pointer.
fn with_pointer(target: u16) -> Vec<u8> {
    let mut bytes = b"\x12\x67\x81\x80\0\x01\0\x01\0\x01\0\0\x01a\x07example\0\0\x01\0\x01".to_vec();
    // At 27; its TTL, at 33, could be read as a name.
    bytes.extend(b"\xc0\x0c\0\x01\0\x01\x01b\0\0\0\x04\xc0\0\x02\x01");
    bytes.extend(b"\xc0\x0e\0\x02\0\x01\0\0\x0e\x10\0\x05\x02ns");
    bytes.extend((0xc000 | target).to_be_bytes());
    bytes
}

/// Found by the fuzzer: a name of bytes that change with time is another name later.
#[test]
fn a_pointer_to_what_is_no_name_makes_an_answer_unfit() {
    assert!(against::answer(&with_pointer(12)));
    assert!(against::answer(&with_pointer(14)));
    // Into a label, a TTL, an address.
    for target in [16, 33, 39] {
        assert!(!against::answer(&with_pointer(target)), "{target}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_are_read_alike(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
    ) {
        let key = against::key();
        let all = messages();
        let mut bytes = all[which.index(all.len())].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        against::parser(&bytes, key.words());
        against::answer(&bytes);
    }
}
