//! Any bytes as tikr's wire: our decoder and prost's generated one take the same messages and give the same
//! rows, alone and in a stream of odd ones.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/oracle/generate.rs"]
mod generate;
#[path = "../../tests/it/oracle/mod.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    let half = data.len() / 2;
    let (first, second) = data.split_at(half);
    oracle::compare([data, first, second]);
    // Odd but mostly valid messages around the raw ones, so that the decoder's memory is never empty.
    let seed = data.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rng = fastrand::Rng::with_seed(seed);
    let (before, after) = (generate::message(&mut rng), generate::message(&mut rng));
    oracle::compare([before.as_slice(), data, after.as_slice()]);
});
