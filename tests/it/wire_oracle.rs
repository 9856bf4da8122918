//! Our decoder of tikr's wire takes and refuses what prost's generated one does, and gives the same rows.

#[path = "oracle/generate.rs"]
mod generate;
#[path = "oracle/mod.rs"]
mod oracle;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn odd_and_broken_messages_read_as_prost_reads_them(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let messages: Vec<Vec<u8>> = (0..6).map(|_| generate::message(&mut rng)).collect();
        oracle::compare(messages.iter().map(Vec::as_slice));
    }

    #[test]
    fn arbitrary_bytes_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::compare([bytes.as_slice()]);
    }
}
