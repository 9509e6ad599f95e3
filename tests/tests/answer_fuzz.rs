//! Changed frames over the program that answers: what passes is untouched, what is sent back is a whole answer to the
//! question that came.
#![expect(clippy::print_stdout, reason = "tests say there what they skip")]

use std::net::IpAddr;

use hickory_proto::op::Message;
use prewarm_tests::{
    answers::{Holder, is_sealed, message, network, seal, server},
    frames, kernel,
};
use prewarm_user::resolve::answers::Question;

const PASS: u32 = 2;
const TX: u32 = 3;
const ROUNDS: u32 = 30_000;

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

#[test]
fn changed_frames_pass_untouched_or_are_answered_whole() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let mut asked = Vec::new();
    let names = ["www.example.org", "a", "x.a-rather-long-name-of-several-labels.in-it.example.org"];
    for client in [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()] {
        for name in names {
            for kind in [1, 5] {
                let question = Question { name: name.parse().unwrap(), qtype: 1, kind };
                let mut reply = question.message(7);
                let end = 12 + question.name.as_wire().len() + 4;
                let opt = reply.split_off(end);
                reply[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
                reply[7] = 3;
                for last in 1..=3 {
                    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02");
                    reply.push(last);
                }
                reply.extend(opt);
                holder.lay(&question, &reply, server(client), 5_500_000_000).unwrap();
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let wrapping = frames::Question {
                        client,
                        tags: tags.to_vec(),
                        ..frames::Question::new(question.name.clone())
                    };
                    let datagram = frames::udp(40_000, 53, &question.message(0x1234));
                    let mut frame = frames::wrap(&wrapping, 17, &datagram, false);
                    seal(&mut frame);
                    asked.push(frame);
                }
            }
        }
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut answered = 0;
    for round in 0..ROUNDS {
        let mut frame = asked[numbers.below(asked.len())].clone();
        let begin = message(&frame);
        for _ in 0..numbers.below(4) {
            // Most changes where they matter: in the message.
            let from = if numbers.below(4) == 0 { 0 } else { begin };
            let at = from + numbers.below(frame.len() - from);
            match numbers.below(4) {
                0 => frame[at] = numbers.below(256) as u8,
                1 => frame[at] ^= 1 << numbers.below(8),
                2 => frame[at] = [0, 1, 0x3f, 0x40, 0xc0, 0xff][numbers.below(6)],
                _ => frame[at] ^= 0x20,
            }
        }
        match numbers.below(12) {
            0 => frame.truncate(14 + numbers.below(frame.len() - 14)),
            1 => frame.extend(vec![numbers.below(256) as u8; numbers.below(40)]),
            _ => {}
        }
        let (verdict, given) = holder.run(&frame).unwrap();
        if round.is_multiple_of(500) {
            holder.trial.discard();
        }
        if verdict == PASS {
            assert_eq!(given, frame, "round {round}: passed and written");
            continue;
        }
        assert_eq!(verdict, TX, "round {round}: {frame:02x?}");
        answered += 1;
        assert!(is_sealed(&given), "round {round}: {frame:02x?}\n{given:02x?}");
        let at = message(&frame);
        assert_eq!((network(&given), message(&given)), (network(&frame), at), "round {round}");
        let (question, answer) = (Message::from_vec(&frame[at..]), Message::from_vec(&given[at..]));
        let (question, answer) = (question.unwrap(), answer.unwrap());
        assert_eq!(answer.metadata.id, question.metadata.id, "round {round}");
        assert_eq!(format!("{:?}", answer.queries), format!("{:?}", question.queries), "round {round}");
        assert_eq!((answer.answers.len(), answer.edns.is_some()), (3, question.edns.is_some()), "round {round}");
        let ttls: Vec<u32> = answer.answers.iter().map(|record| record.ttl).collect();
        assert!(ttls.iter().all(|ttl| (3500..=3595).contains(ttl)), "round {round}: {ttls:?}");
    }
    println!("{answered} of {ROUNDS} changed frames were answered");
    assert!(answered > ROUNDS / 10, "{answered}");
}
