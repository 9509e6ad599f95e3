//! Whether two answers to one question are the same but for time and the order of records in a set.

use hickory_proto::op::Message;

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(pub String);

/// Compares the answer that the kernel may have given with the server's own, which was asked before it. A server may have
/// asked anew since what the kernel gives was laid ready, so TTLs may be less than its, by as many seconds as have passed
/// at most, `elapsed`; they may not be more.
///
/// # Errors
/// What differs.
pub fn compare(ours: &[u8], theirs: &[u8], elapsed: u32) -> Result<(), Difference> {
    if ours == theirs {
        return Ok(());
    }
    let differ = |what: String| Err(Difference(what));
    if ours.len() != theirs.len() {
        return differ(format!("{} and {} bytes", ours.len(), theirs.len()));
    }
    if ours.get(..12) != theirs.get(..12) {
        return differ(format!("headers {:02x?} and {:02x?}", &ours[..12], &theirs[..12]));
    }
    let (Ok(one), Ok(other)) = (Message::from_vec(ours), Message::from_vec(theirs)) else {
        return differ("bytes of messages that can't be read".to_owned());
    };
    let question = |message: &Message| message.queries.iter().map(|query| format!("{query}")).collect::<Vec<_>>();
    if question(&one) != question(&other) {
        return differ(format!("questions {:?} and {:?}", question(&one), question(&other)));
    }
    let edns = |message: &Message| format!("{:?}", message.edns);
    if edns(&one) != edns(&other) {
        return differ(format!("EDNS {} and {}", edns(&one), edns(&other)));
    }
    let (one, other) = (records(&one), records(&other));
    if one.len() != other.len() {
        return differ(format!("{} and {} records", one.len(), other.len()));
    }
    for ((record, ttl), (record_too, ttl_too)) in one.iter().zip(&other) {
        if record != record_too {
            return differ(format!("records {record} and {record_too}"));
        }
        if ttl > ttl_too || ttl + elapsed < *ttl_too {
            return differ(format!("TTLs {ttl} and {ttl_too} of {record}"));
        }
    }
    Ok(())
}

/// The records of all sections with their TTLs, sorted: a set has no order.
fn records(message: &Message) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for (section, records) in [(0, &message.answers), (1, &message.authorities), (2, &message.additionals)] {
        for record in records {
            let mut plain = record.clone();
            plain.ttl = 0;
            all.push((format!("{section} {plain}"), record.ttl));
        }
    }
    all.sort();
    all
}
