//! How fjall stores a space, by what is in it.

use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, KeyspaceCreateOptions, KvSeparationOptions};

/// Bytes of a space of blocks or bars gathered in memory before they are flushed.
pub const BUFFER: u64 = 8 << 20;
/// The same of any other space.
const SMALL_BUFFER: u64 = 2 << 20;
/// Values from this size on lie apart from their keys.
const SEPARATE_FROM: u32 = 1 << 10;

/// The options of a new space.
pub fn options(space: &str) -> KeyspaceCreateOptions {
    let plain = KeyspaceCreateOptions::default();
    let apart =
        |compression| Some(KvSeparationOptions::default().separation_threshold(SEPARATE_FROM).compression(compression));
    let bloom = |bits| FilterPolicy::new([FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bits))]);
    if ["ticks/", "sorted/", "side/"].iter().any(|family| space.starts_with(family)) {
        // Blocks are compressed already, and read by ranges of keys that always exist.
        let apart = apart(CompressionType::None);
        plain.max_memtable_size(BUFFER).with_kv_separation(apart).filter_policy(FilterPolicy::disabled())
    } else if space.starts_with("contents/") {
        // Many bars in a value, read in a row, of keys that always exist.
        let apart = apart(CompressionType::Lz4);
        plain.max_memtable_size(BUFFER).with_kv_separation(apart).filter_policy(FilterPolicy::disabled())
    } else if space.starts_with("bars/") {
        plain
            .max_memtable_size(BUFFER)
            .data_block_size_policy(BlockSizePolicy::all(8 << 10))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .filter_policy(bloom(10.0))
    } else {
        plain.max_memtable_size(SMALL_BUFFER)
    }
}
