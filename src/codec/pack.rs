//! One column of numbers, compressed.
//!
//! Three ways, told apart by the first byte: one value for all rows; varints of differences, for blocks too
//! small to describe a distribution; and pco for the rest. pco's own search for a good mode costs more than
//! the compression itself, so integers get the one mode that fits columns of ticks, and differences are tried
//! only where a sample says they are smaller.

use pco::data_types::Number;
use pco::metadata::{DeltaEncoding, Mode};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::block_header::CorruptBlock;
use super::varint::{put_varint, unzigzag, zigzag};
use super::wire::Reader;

const CONSTANT: u8 = 0;
const PLAIN: u8 = 1;
const PCO: u8 = 2;

/// Below this many values pco's description of the column costs more than it saves.
const MIN_PCO: usize = 48;
/// A sample is this many runs of this many neighbours.
const RUNS: usize = 8;
const RUN: usize = 32;

/// How much time compression may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// On the way of a tick: two bins per column. Level 2 takes twice as long for about 2 % fewer bytes of market ticks in
    /// order of arrival.
    Quick,
    /// In the background: as many bins as pay, and a search for common divisors (times in milliseconds, say). Columns
    /// clustered by series need it, because they jump from one series to the next.
    Thorough,
}

impl Effort {
    fn level(self) -> usize {
        match self {
            Self::Quick => 1,
            Self::Thorough => 8,
        }
    }

    fn mode<T: Word>(self) -> ModeSpec {
        match self {
            Self::Quick => T::MODE,
            Self::Thorough => ModeSpec::Auto,
        }
    }
}

/// A number a column can be made of.
pub trait Word: Number + PartialEq {
    /// How pco looks for structure in such numbers.
    const MODE: ModeSpec;

    /// Order-preserving bits.
    fn ordinal(self) -> u64;

    /// Bits that are small where the number resembles the one before.
    fn relative_to(self, previous: Self) -> u64;

    /// The inverse of [`Word::relative_to`]; `None` where the bits are no such number.
    fn resolve(bits: u64, previous: Self) -> Option<Self>;
}

impl Word for u32 {
    const MODE: ModeSpec = ModeSpec::Classic;

    fn ordinal(self) -> u64 {
        self.into()
    }

    fn relative_to(self, previous: Self) -> u64 {
        zigzag(i64::from(self) - i64::from(previous))
    }

    fn resolve(bits: u64, previous: Self) -> Option<Self> {
        i64::from(previous).checked_add(unzigzag(bits))?.try_into().ok()
    }
}

impl Word for u64 {
    const MODE: ModeSpec = ModeSpec::Classic;

    fn ordinal(self) -> u64 {
        self
    }

    fn relative_to(self, previous: Self) -> u64 {
        zigzag(self.wrapping_sub(previous) as i64)
    }

    fn resolve(bits: u64, previous: Self) -> Option<Self> {
        Some(previous.wrapping_add(unzigzag(bits) as u64))
    }
}

impl Word for i64 {
    const MODE: ModeSpec = ModeSpec::Classic;

    fn ordinal(self) -> u64 {
        self as u64 ^ 1 << 63
    }

    fn relative_to(self, previous: Self) -> u64 {
        zigzag(self.wrapping_sub(previous))
    }

    fn resolve(bits: u64, previous: Self) -> Option<Self> {
        Some(previous.wrapping_add(unzigzag(bits)))
    }
}

impl Word for f64 {
    // Doubles mostly are decimals with few digits, which pco finds and shrinks to a third.
    const MODE: ModeSpec = ModeSpec::Auto;

    fn ordinal(self) -> u64 {
        let bits = self.to_bits();
        if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits }
    }

    fn relative_to(self, previous: Self) -> u64 {
        (self.to_bits() ^ previous.to_bits()).swap_bytes()
    }

    fn resolve(bits: u64, previous: Self) -> Option<Self> {
        Some(Self::from_bits(bits.swap_bytes() ^ previous.to_bits()))
    }
}

/// Appends `values`, compressed. Nothing for none.
pub fn pack<T: Word + Default>(values: &[T], effort: Effort, out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value.ordinal() == first.ordinal()) {
        out.push(CONSTANT);
        put_varint(out, first.relative_to(T::default()));
        return;
    }
    let start = out.len();
    if values.len() >= MIN_PCO && pack_pco(values, effort, out).is_ok() {
        return;
    }
    out.truncate(start);
    out.push(PLAIN);
    let mut previous = T::default();
    for &value in values {
        put_varint(out, value.relative_to(previous));
        previous = value;
    }
}

fn pack_pco<T: Word>(values: &[T], effort: Effort, out: &mut Vec<u8>) -> pco::errors::PcoResult<()> {
    let delta = if neighbours_are_close(values) { DeltaSpec::TryConsecutive(1) } else { DeltaSpec::NoOp };
    let config = ChunkConfig::default()
        .with_compression_level(effort.level())
        .with_mode_spec(effort.mode::<T>())
        .with_delta_spec(delta)
        .with_paging_spec(pco::PagingSpec::Exact(vec![values.len()]));
    out.push(PCO);
    let file = FileCompressor::default();
    file.write_header(&mut *out)?;
    let mut chunk = file.chunk_compressor(values, &config)?;
    chunk.write_meta(&mut *out)?;
    chunk.write_page(0, &mut *out)?;
    Ok(())
}

/// Whether the differences of neighbours need clearly fewer bits than the values, by a sample.
fn neighbours_are_close<T: Word>(values: &[T]) -> bool {
    let stride = (values.len() / RUNS).max(RUN);
    let runs = || values.chunks(stride).map(|chunk| &chunk[..chunk.len().min(RUN)]);
    let ordinals = || runs().flatten().map(|value| value.ordinal());
    let range = ordinals().max().unwrap_or(0) - ordinals().min().unwrap_or(0);
    let pairs = || runs().flat_map(|run| run.windows(2));
    let difference_bits = |pair: &[T]| bits(pair[0].ordinal().abs_diff(pair[1].ordinal()));
    // Two bits for the sign and the wider spread: differences of random values must not look smaller.
    let differences: u32 = pairs().map(|pair| difference_bits(pair) + 2).sum();
    differences < pairs().count() as u32 * bits(range)
}

fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Reads the `rows` values [`pack`] wrote. Takes no more memory than they need, whatever the bytes are.
///
/// # Errors
/// The bytes are not what `pack` writes for that many values.
pub fn unpack<T: Word + Default>(bytes: &[u8], rows: usize) -> Result<Vec<T>, CorruptBlock> {
    match bytes {
        [] if rows == 0 => Ok(Vec::new()),
        [CONSTANT, rest @ ..] => {
            let mut reader = Reader::new(rest);
            let value = read_relative(&mut reader, T::default())?;
            finish(reader, vec![value; rows])
        }
        [PLAIN, rest @ ..] if rest.len() >= rows => {
            let mut reader = Reader::new(rest);
            let mut values = Vec::with_capacity(rows);
            let mut previous = T::default();
            for _ in 0..rows {
                previous = read_relative(&mut reader, previous)?;
                values.push(previous);
            }
            finish(reader, values)
        }
        [PCO, rest @ ..] => unpack_pco(rest, rows),
        _ => Err(CorruptBlock("a column in no known encoding")),
    }
}

fn read_relative<T: Word>(reader: &mut Reader<'_>, previous: T) -> Result<T, CorruptBlock> {
    let bits = reader.varint().map_err(|_| CorruptBlock("a column ends early"))?;
    T::resolve(bits, previous).ok_or(CorruptBlock("a column's value is out of range"))
}

fn finish<T>(reader: Reader<'_>, values: Vec<T>) -> Result<Vec<T>, CorruptBlock> {
    if reader.is_empty() { Ok(values) } else { Err(CorruptBlock("a column has bytes left over")) }
}

fn unpack_pco<T: Word + Default>(bytes: &[u8], rows: usize) -> Result<Vec<T>, CorruptBlock> {
    let corrupt = |_| CorruptBlock("a column pco cannot read");
    let (file, rest) = FileDecompressor::new(bytes).map_err(corrupt)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(corrupt)?;
    // What `pack` never writes is refused before pco makes room for it: windows and dictionaries may be large.
    let meta = chunk.meta();
    let plain_mode = matches!(meta.mode, Mode::Classic | Mode::IntMult(_) | Mode::FloatMult(_) | Mode::FloatQuant(_));
    let plain_delta = matches!(meta.delta_encoding, DeltaEncoding::NoOp | DeltaEncoding::Consecutive { .. });
    if !plain_mode || !plain_delta {
        return Err(CorruptBlock("a column in a pco mode that is not in use"));
    }
    let mut page = chunk.page_decompressor(rest, rows).map_err(corrupt)?;
    let mut values = vec![T::default(); rows];
    let progress = page.read(&mut values).map_err(corrupt)?;
    if progress.n_processed == rows && progress.finished && page.into_src().is_empty() {
        Ok(values)
    } else {
        Err(CorruptBlock("a column has bytes left over"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T: Word + Default>(values: &[T]) -> usize {
        let [_, quick] = [Effort::Thorough, Effort::Quick].map(|effort| {
            let mut bytes = Vec::new();
            pack(values, effort, &mut bytes);
            let read: Vec<T> = unpack(&bytes, values.len()).unwrap();
            assert!(read.iter().map(|v| v.ordinal()).eq(values.iter().map(|v| v.ordinal())));
            assert!(unpack::<T>(&bytes, values.len() + 1).is_err() || bytes[0] != PLAIN);
            bytes.len()
        });
        quick
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_column_is_read_as_it_was_written(
            ints in prop::collection::vec(any::<i64>(), 0..120),
            shift in 0u32..64,
        ) {
            let small: Vec<i64> = ints.iter().map(|v| v >> shift).collect();
            round_trip(&small);
            round_trip(&small.iter().map(|v| *v as u64).collect::<Vec<_>>());
            round_trip(&small.iter().map(|v| *v as u32).collect::<Vec<_>>());
            round_trip(&small.iter().map(|v| f64::from_bits(*v as u64)).collect::<Vec<_>>());
            round_trip(&small.iter().map(|v| (*v % 10_000) as f64 / 100.0).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0u8..3, rows in 0usize..400) {
            let bytes = [vec![kind], bytes].concat();
            let _ = (unpack::<u32>(&bytes, rows), unpack::<i64>(&bytes, rows), unpack::<f64>(&bytes, rows));
        }
    }

    #[test]
    fn regular_and_constant_columns_cost_next_to_nothing() {
        assert!(round_trip(&(0..8192).map(|i| 1_000 * i).collect::<Vec<i64>>()) < 40);
        assert!(round_trip(&vec![7u32; 8192]) < 4);
        assert!(round_trip(&[5i64]) < 4);
    }
}
