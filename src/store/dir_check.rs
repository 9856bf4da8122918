//! What fjall takes without a word when it opens a directory, and should not: a keyspace whose manifest is missing is
//! deleted as never used, a manifest with a flipped bit may leave out tables, and those are then deleted as stray.
//!
//! ```text
//! keyspaces/<id>/current    number u64 · xxh3-128 of that manifest u128 · 0 u8
//! keyspaces/<id>/v<number>  manifest: the tables and blob files
//! ```

use std::fs;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// Looks at every manifest. A `current` that is lost, where its manifest is there, is written anew.
///
/// # Errors
/// What is damaged or missing, as a sentence; or the operating system's.
pub fn check(dir: &Path) -> io::Result<Result<(), String>> {
    let keyspaces = match fs::read_dir(dir.join("keyspaces")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        entries => entries?,
    };
    for keyspace in keyspaces {
        let keyspace = keyspace?.path();
        if keyspace.is_dir()
            && let Err(reason) = check_keyspace(&keyspace)?
        {
            return Ok(Err(reason));
        }
    }
    Ok(Ok(()))
}

fn check_keyspace(keyspace: &Path) -> io::Result<Result<(), String>> {
    let current = keyspace.join("current");
    let told = match fs::read(&current) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        told => told?,
    };
    if let Some((number, sum)) = parse(&told) {
        let manifest = keyspace.join(format!("v{number}"));
        match fs::read(&manifest) {
            Ok(bytes) if xxh3_128(&bytes) == sum => return Ok(Ok(())),
            Ok(_) => return Ok(Err(format!("{} does not match its checksum", manifest.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let Some(number) = newest_manifest(keyspace)? else {
        let is_used = ["tables", "blobs"].iter().any(|part| !is_empty(&keyspace.join(part)));
        let reason = || format!("{} has no manifest", keyspace.display());
        // One that was about to be created when the process died.
        return Ok(if is_used { Err(reason()) } else { Ok(()) });
    };
    let bytes = fs::read(keyspace.join(format!("v{number}")))?;
    let mut fresh = number.to_le_bytes().to_vec();
    fresh.extend(xxh3_128(&bytes).to_le_bytes());
    fresh.push(0);
    tracing::warn!(path = %current.display(), number, "lost, and written anew from the manifest there is");
    let beside = keyspace.join("current.fresh");
    fs::write(&beside, fresh)?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(beside, current)?;
    fs::File::open(keyspace)?.sync_all()?;
    Ok(Ok(()))
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    (rest == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*sum)))
}

/// The highest number of a manifest that is not empty.
fn newest_manifest(keyspace: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(keyspace)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix('v')?.parse().ok());
        if entry.metadata()?.len() > 0 {
            newest = newest.max(number);
        }
    }
    Ok(newest)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
