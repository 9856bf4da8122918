//! A backup becomes a data directory again: checked before, copied, and read back.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::backup::{CACHE, MANIFEST, Manifest, STORE, SpaceSum, be_empty, copy_all, file_error, sums};
use super::verify::{VerifyReport, look};
use super::watch::{ToolError, Watch};
use crate::store::{Fjall, Kv, meta};

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The data directory.
    pub data_dir: String,
    /// When the backup was taken, in nanoseconds since 1970.
    pub taken_ns: i64,
    /// Pairs restored.
    pub pairs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The next arrival number.
    pub journal_end: u64,
    /// What was found when every value was checked.
    pub found: VerifyReport,
}

/// Checks a backup and copies it into an empty data directory.
///
/// # Errors
/// It is no whole backup, or not what its manifest says, or of another format; the data directory is not empty; `watch`
/// breaks; or something fails. Then nothing can be run on what is in the data directory.
pub fn restore(backup: &Path, data_dir: &Path, watch: &mut Watch<'_>) -> Result<RestoreReport, ToolError> {
    let manifest = read_manifest(backup)?;
    be_empty(data_dir, "name an empty or a new directory to restore into")?;
    let copy = Fjall::open(&backup.join(STORE), CACHE)?;
    let found = look(&copy, watch)?.report();
    let total = manifest.spaces.iter().map(|sum| sum.bytes).sum();
    let restored = put_back(&copy, &manifest, data_dir, total, watch);
    if restored.is_err() {
        // What is there is not what was asked for, and was not there before.
        let _ = std::fs::remove_dir_all(data_dir);
    }
    restored?;
    Ok(RestoreReport {
        data_dir: data_dir.display().to_string(),
        taken_ns: manifest.taken_ns,
        pairs: manifest.spaces.iter().map(|sum| sum.pairs).sum(),
        bytes: total,
        journal_end: manifest.journal_end,
        found,
    })
}

fn put_back(
    copy: &Fjall,
    manifest: &Manifest,
    data_dir: &Path,
    total: u64,
    watch: &mut Watch<'_>,
) -> Result<(), ToolError> {
    let copied = copy_all(&*copy.snapshot()?, &Fjall::open(data_dir, CACHE)?, total, watch)?;
    compare(&manifest.spaces, &copied.spaces, "the backup")?;
    // Opened anew, so that what is compared is what the next process will read.
    let back = sums(&*Fjall::open(data_dir, CACHE)?.snapshot()?, total, watch)?;
    compare(&manifest.spaces, &back, "what was restored")
}

fn read_manifest(backup: &Path) -> Result<Manifest, ToolError> {
    let path = backup.join(MANIFEST);
    let refused = |why: String| ToolError::Refused(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            refused("there is no manifest, so this is no backup, or one that did not come to its end".to_owned())
        }
        _ => file_error(&path, error),
    })?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| refused(format!("the manifest is damaged: {error}")))?;
    match manifest.format {
        meta::FORMAT => Ok(manifest),
        other => Err(refused(format!(
            "the backup is of format {other}, this barline reads {}; use the barline that wrote it",
            meta::FORMAT
        ))),
    }
}

fn compare(expected: &[SpaceSum], found: &[SpaceSum], whose: &str) -> Result<(), ToolError> {
    let of = |space: &str| found.iter().find(|sum| sum.space == space);
    let known = |space: &str| expected.iter().any(|sum| sum.space == space);
    let wrong = expected.iter().find(|sum| of(&sum.space) != Some(sum)).map(|sum| &sum.space);
    let wrong = wrong.or(found.iter().find(|sum| !known(&sum.space)).map(|sum| &sum.space));
    let Some(space) = wrong else { return Ok(()) };
    let shown = |sum: Option<&SpaceSum>| match sum {
        Some(sum) => format!("{} pairs of {} bytes, xxh3 {}", sum.pairs, sum.bytes, sum.xxh3),
        None => "nothing".to_owned(),
    };
    let expected = shown(expected.iter().find(|sum| sum.space == *space));
    let found = shown(of(space));
    Err(ToolError::Refused(format!(
        "{whose} is not what its manifest says: {space} has {found}, it should have {expected}; use another backup"
    )))
}
