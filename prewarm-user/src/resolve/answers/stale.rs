//! Answers kept beyond their TTL, for when the server fails (RFC 8767); only where the settings ask for it.
//!
//! Comes in: answers that were laid ready, and questions whose server failed. Goes out: the same answer for another short
//! while. Never here: one that was too old for longer than allowed, or one whose server has said something since.

use std::{collections::HashMap, time::Duration};

use super::{Answer, Asked};
use crate::model::{ResourceId, Timestamp};

/// For how long a stale answer is given before the server is asked again, and what its TTLs say (RFC 8767, 4 and 5).
const LIFE: Duration = Duration::from_secs(30);

/// What may be given when its server fails.
#[derive(Debug)]
pub(super) struct Stale {
    /// For how long after its TTL.
    allowed: Duration,
    most: usize,
    kept: HashMap<Asked, Kept>,
}

#[derive(Debug)]
struct Kept {
    resource: ResourceId,
    answer: Answer,
    /// From when on it is not given even so.
    end: Timestamp,
}

impl Stale {
    /// Keeps at most so many for so long after their TTL; nothing at all where that is zero.
    pub(super) fn new(allowed: Duration, most: usize) -> Self {
        Self { allowed, most, kept: HashMap::new() }
    }

    /// Keeps what was laid ready, in the place of what was said before.
    pub(super) fn keep(&mut self, asked: &Asked, resource: ResourceId, answer: &Answer, expires: Timestamp) {
        if self.allowed.is_zero() || (self.kept.len() >= self.most && !self.kept.contains_key(asked)) {
            return;
        }
        let kept = Kept { resource, answer: answer.clone(), end: expires + self.allowed };
        self.kept.insert(asked.clone(), kept);
    }

    /// The answer for when the server failed, with what its TTLs say now.
    pub(super) fn instead(&self, asked: &Asked, now: Timestamp) -> Option<(ResourceId, Answer)> {
        let kept = self.kept.get(asked)?;
        let seconds = kept.end.since(now).min(LIFE).as_secs() as u32;
        (seconds > 0).then(|| (kept.resource, kept.answer.with_ttl(seconds)))
    }

    /// Forgets what the condition holds for.
    pub(super) fn forget(&mut self, is_it: impl Fn(&Asked) -> bool) {
        self.kept.retain(|asked, _| !is_it(asked));
    }

    /// Forgets what is too old.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.kept.retain(|_, kept| kept.end > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::answers::{Question, Server};

    fn asked(name: &str) -> Asked {
        let server = Server { address: [192, 0, 2, 53].into(), interface: 7 };
        Asked { server, question: Question { name: name.parse().unwrap(), qtype: 1, kind: 1 } }
    }

    fn answer(asked: &Asked) -> Answer {
        let mut message = asked.question.message(1);
        message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        message[7] = 1;
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
        Answer::read(&asked.question, 1, &message).unwrap()
    }

    #[test]
    fn an_answer_is_given_for_as_long_as_is_allowed_and_no_longer() {
        let at = |seconds: u64| Timestamp::ZERO + Duration::from_secs(seconds);
        let mut stale = Stale::new(Duration::from_secs(100), 2);
        let one = asked("a.example");
        stale.keep(&one, ResourceId(1), &answer(&one), at(300));
        let (resource, given) = stale.instead(&one, at(301)).unwrap();
        assert_eq!((resource, given.ttl), (ResourceId(1), 30));
        assert_eq!(given.body[6..10], 30_u32.to_be_bytes());
        assert!(given.agrees(&answer(&one)), "nothing but TTLs");
        assert_eq!(stale.instead(&one, at(390)).unwrap().1.ttl, 10);
        assert!(stale.instead(&one, at(400)).is_none());
        stale.tick(at(400));
        assert!(stale.kept.is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept_and_nothing_unless_asked_for() {
        let (mut stale, end) = (Stale::new(Duration::from_secs(9), 1), Timestamp::ZERO + Duration::from_secs(1));
        let (one, other) = (asked("a.example"), asked("b.example"));
        for asked in [&one, &other, &one] {
            stale.keep(asked, ResourceId(1), &answer(asked), end);
        }
        assert!(stale.instead(&one, end).is_some() && stale.instead(&other, end).is_none());
        stale.forget(|asked| *asked == one);
        assert!(stale.instead(&one, end).is_none());
        let mut none = Stale::new(Duration::ZERO, 9);
        none.keep(&one, ResourceId(1), &answer(&one), end);
        assert!(none.kept.is_empty());
    }
}
