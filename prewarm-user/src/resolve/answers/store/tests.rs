//! The store on tables in the place of the kernel's maps.

use super::*;
use crate::resolve::answers::Question;

/// The kernel's maps as tables that are looked at.
struct Fake {
    slots: Vec<AnswerSlot>,
    uses: Vec<AnswerUse>,
    index: Vec<[u64; BUCKET]>,
}

impl Fake {
    fn new(entries: usize) -> Self {
        use bytemuck::Zeroable as _;
        Self {
            slots: vec![AnswerSlot::zeroed(); entries],
            uses: vec![AnswerUse::default(); entries],
            index: vec![[0; BUCKET]; INDEX_ENTRIES as usize],
        }
    }

    /// The slot that the kernel would find for a question.
    fn find(&self, asked: &Asked, resource: ResourceId) -> Option<usize> {
        let place = place(asked, resource);
        let named =
            self.index[bucket(place)].iter().find(|entry| (**entry ^ place) >> 32 == 0 && **entry as u32 != 0)?;
        Some(*named as u32 as usize - 1).filter(|&slot| self.slots[slot].resource == resource.0)
    }
}

impl Table for Fake {
    fn entries(&self) -> u32 {
        self.slots.len() as u32
    }

    fn write(&mut self, slot: u32, answer: &AnswerSlot) -> Result<(), KernelError> {
        self.slots[slot as usize] = *answer;
        Ok(())
    }

    fn name(&mut self, bucket: u32, slots: [u64; BUCKET]) -> Result<(), KernelError> {
        self.index[bucket as usize] = slots;
        Ok(())
    }

    fn uses(&self, slot: u32) -> Result<AnswerUse, KernelError> {
        Ok(self.uses[slot as usize])
    }

    fn set_use(&mut self, slot: u32, uses: AnswerUse) -> Result<(), KernelError> {
        self.uses[slot as usize] = uses;
        Ok(())
    }
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

fn asked(name: &str) -> (Asked, ResourceId) {
    let server = Server { address: IpAddr::from([192, 0, 2, 53]), interface: 7 };
    let question = Question { name: name.parse().unwrap(), qtype: 1, kind: 1 };
    // As uniform as the kernel's.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    });
    (Asked { server, question }, ResourceId(hash))
}

fn fresh(asked: &Asked, resource: ResourceId, ttl: u32, base: Timestamp) -> Fresh {
    let mut message = asked.question.message(1);
    message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
    message[7] = 1;
    message.extend(b"\xc0\x0c\0\x01\0\x01");
    message.extend(ttl.to_be_bytes());
    message.extend(b"\0\x04\xc0\0\x02\x01");
    let answer = Answer::read(&asked.question, 1, &message).unwrap();
    Fresh { resource, answer, base, expected: Timestamp::ZERO, rotates: true }
}

fn store(entries: usize) -> Store<Fake> {
    Store::new(Fake::new(entries), Duration::from_secs(3600), 3)
}

fn put(store: &mut Store<Fake>, now: Timestamp, name: &str, ttl: u32) -> bool {
    let (asked, resource) = asked(name);
    let fresh = fresh(&asked, resource, ttl, now);
    store.wanted(&asked, resource);
    store.put(now, &asked, fresh).is_ok()
}

fn hit(store: &mut Store<Fake>, name: &str) -> bool {
    let (asked, resource) = asked(name);
    let Some(slot) = store.table.find(&asked, resource) else { return false };
    store.table.uses[slot].hits += 1;
    true
}

#[test]
fn what_is_used_is_asked_again_before_its_end_and_at_it() {
    let mut store = store(64);
    assert!(put(&mut store, at(0.0), "a.example", 100) && put(&mut store, at(0.0), "idle.example", 100));
    assert!(hit(&mut store, "a.example"));
    assert_eq!(store.next_tick(), Some(at(90.0)));
    let (used, _) = asked("a.example");
    assert_eq!(store.tick(at(90.5)).unwrap(), std::slice::from_ref(&used));
    assert!(hit(&mut store, "a.example"), "it is still good");
    assert_eq!(store.tick(at(100.0)).unwrap(), [used]);
    assert!(!hit(&mut store, "a.example") && !hit(&mut store, "idle.example"));
    assert!(store.is_empty());
}

#[test]
fn what_is_expected_is_asked_again_unused() {
    let mut store = store(64);
    assert!(put(&mut store, at(0.0), "a.example", 100));
    let (asked, _) = asked("a.example");
    store.expect(&asked, at(95.0));
    assert_eq!(store.tick(at(90.0)).unwrap(), [asked]);
    assert_eq!(store.tick(at(101.0)).unwrap(), []);
}

#[test]
fn nothing_is_held_for_longer_than_allowed() {
    let mut store = Store::new(Fake::new(64), Duration::from_secs(50), 3);
    assert!(put(&mut store, at(0.0), "a.example", 86_400));
    let (asked, resource) = asked("a.example");
    let slot = store.table.find(&asked, resource).unwrap();
    assert_eq!(store.table.slots[slot].expires, at(50.0).as_nanos());
    // One that is too old already.
    let old = fresh(&asked, resource, 10, at(0.0));
    assert!(matches!(store.put(at(10.0), &asked, old), Err(Refused::Old)));
}

#[test]
fn a_slot_rests_before_it_is_written_again() {
    let mut store = store(64);
    assert!(put(&mut store, at(0.0), "a.example", 100));
    let (asked, resource) = asked("a.example");
    let slot = store.table.find(&asked, resource).unwrap();
    let before = store.table.slots[slot];
    // Renewed, and renewed, until all slots have had their turn.
    for step in 0..63 {
        let now = at(f64::from(step) * 0.01);
        assert!(put(&mut store, now, "a.example", 100), "{step}");
        assert_eq!(store.table.slots[slot], before, "{step}: a processor may be reading it");
    }
    let found = store.table.find(&asked, resource).unwrap();
    assert_ne!(found, slot);
    assert!(!put(&mut store, at(1.0), "a.example", 100), "all the others rest");
    assert_eq!(store.table.find(&asked, resource), Some(found), "what is held stays");
    assert!(put(&mut store, at(5.1), "a.example", 100));
}

#[test]
fn a_flood_of_names_leaves_what_is_used() {
    let mut store = store(1024);
    let popular: Vec<String> = (0..500).map(|n| format!("popular{n}.example")).collect();
    for name in &popular {
        assert!(put(&mut store, at(0.0), name, 3600));
    }
    let mut hits = 0;
    let mut tries = 0;
    for flood in 0..20_000 {
        let now = at(6.0 + f64::from(flood) * 0.01);
        put(&mut store, now, &format!("random{flood}.example"), 3600);
        // Each is asked for by a stranger twice, and never again; the others go on being asked.
        let name = &popular[flood as usize % popular.len()];
        tries += 1;
        hits += u32::from(hit(&mut store, name));
    }
    assert!(hits * 100 > tries * 95, "{hits} of {tries}");
    assert!(store.len() <= 1024 - 1024 / SPARE);
}

#[test]
fn a_newcomer_that_is_wanted_more_gets_a_place() {
    let mut store = store(64);
    for number in 0..64 {
        put(&mut store, at(0.0), &format!("n{number}.example"), 3600);
    }
    let held: Vec<String> = store.iter().map(|(asked, _)| asked.question.name.to_string()).collect();
    for name in &held {
        assert!(hit(&mut store, name) && hit(&mut store, name));
    }
    let tries = (0..20).position(|_| put(&mut store, at(6.0), "new.example", 3600));
    assert!(tries.is_some_and(|tries| tries >= 2), "{tries:?}");
    assert_eq!(store.len(), held.len());
}

#[test]
fn flushing_empties_what_it_names() {
    let mut store = store(64);
    for name in ["a.example", "b.example", "a.test"] {
        assert!(put(&mut store, at(0.0), name, 100));
    }
    let zone: Name = "example".parse().unwrap();
    assert_eq!(store.flush(at(1.0), |asked| asked.question.name.is_within(&zone)).unwrap(), 2);
    assert!(!hit(&mut store, "a.example") && !hit(&mut store, "b.example") && hit(&mut store, "a.test"));
    assert_eq!(store.tick(at(95.0)).unwrap().len(), 1, "nothing of the others is due");
}
