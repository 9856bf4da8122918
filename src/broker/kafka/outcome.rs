//! What a cluster decided of a producer's last transaction: when all else has been forgotten its coordinator's own log still
//! tells it.
//!
//! ```text
//! __transaction_state   key:   version i16 · transactional id: length i16, bytes
//!                       value: version i16 · producer i64 · epoch i16 · timeout i32 · state i8 · …
//! ```

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::life::CALL;

/// Kafka's own topic of what its transaction coordinators decide.
const LOG: &str = "__transaction_state";
/// Where a value has the state.
const STATE: usize = 16;

/// What was decided of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be seen.
    Committed,
    /// It is not.
    Aborted,
}

/// What was decided last of a transaction of `id`; `None` where the log does not tell. `config` is a client's of the cluster.
///
/// # Errors
/// The log cannot be read.
pub fn last(config: &ClientConfig, id: &str) -> KafkaResult<Option<Outcome>> {
    let mut config = config.clone();
    config
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(LOG), CALL)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let Some(partition) = partition_of(id, partitions) else { return Ok(None) };
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(LOG, partition, Offset::Beginning)?;
    consumer.assign(&place)?;
    let (end, mut outcome) = (Instant::now() + CALL * 5, None);
    while Instant::now() < end {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.key().is_some_and(|key| is_of(key, id)) => {
                outcome = message.payload().and_then(decided).or(outcome);
            }
            Some(Ok(_)) | None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(outcome),
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Where the coordinator's log has a transactional id: by Java's hash of the text.
fn partition_of(id: &str, partitions: usize) -> Option<i32> {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX).checked_rem(i32::try_from(partitions).ok()?)
}

fn is_of(key: &[u8], id: &str) -> bool {
    key.get(4..) == Some(id.as_bytes())
}

/// What a record says was decided: to commit or abort, and that this has been done.
fn decided(value: &[u8]) -> Option<Outcome> {
    match value.get(STATE)? {
        2 | 4 => Some(Outcome::Committed),
        3 | 5 => Some(Outcome::Aborted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_where_javas_hash_puts_them() {
        // "hello".hashCode() is 99162322; of "polygenelubricants" it is the lowest number there is.
        assert_eq!(partition_of("hello", 50), Some(99_162_322 % 50));
        assert_eq!(partition_of("polygenelubricants", 50), Some(0));
        assert_eq!(partition_of("hello", 0), None);
    }

    #[test]
    fn the_state_of_a_record_is_read_and_no_bytes_are_a_panic() {
        let record = |state: u8| [&[0; STATE][..], &[state], b"more"].concat();
        let all: Vec<_> = (0..8).map(|state| decided(&record(state))).collect();
        let (committed, aborted) = (Some(Outcome::Committed), Some(Outcome::Aborted));
        assert_eq!(all, [None, None, committed, aborted, committed, aborted, None, None]);
        assert_eq!((decided(b"short"), is_of(b"", "id"), is_of(b"\0\0\0\x02id", "id")), (None, false, true));
    }
}
