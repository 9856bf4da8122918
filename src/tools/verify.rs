//! Every value that is kept, checked: its checksum, that it decodes, that it agrees with its key, that the series it names
//! exist. And repaired, where that is asked for and possible.
//!
//! What is corrupt is moved aside, where it hurts nobody and can be looked at. A bar is then derived again, if the journal
//! still has every tick of its window; so is a bar that is missing, where late ticks amend. Records of the store about
//! itself are written anew. What cannot be brought back is told one by one.

mod check;
mod repair;
mod walk;

use serde::{Deserialize, Serialize};

use super::replay::Grounds;
use super::watch::{ToolError, Watch};
use crate::store::Kv;
use walk::Walk;

/// The most damages told one by one.
const TOLD: usize = 200;

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// What was checked, by kind.
    pub kinds: Vec<KindCount>,
    /// What is damaged, as much as can be told.
    pub damages: Vec<Damage>,
    /// Damages that could not be made good.
    pub left: u64,
    /// Bars that were missing and have been derived again.
    pub restored: u64,
    /// Arrival numbers that no block in order of arrival holds, `[from, to)`: rewritten by series, expired, dropped or
    /// lost.
    pub gaps: Vec<(u64, u64)>,
    /// Whether to repair.
    pub repair: bool,
}

/// Values of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// `series`, `block`, `side`, `sorted`, `bar`, `meta`, `cursor`, `refused`, `outbox`, `inbox`, `quarantine` or `other`.
    pub kind: String,
    /// How many there are.
    pub values: u64,
    /// Their bytes, keys included.
    pub bytes: u64,
    /// How many are damaged.
    pub bad: u64,
    /// How many of these were made good.
    pub repaired: u64,
}

/// One damaged value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its kind.
    pub kind: String,
    /// The key space.
    pub space: String,
    /// The key, in hexadecimal; of a record, its name.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What that means, or what has been done.
    pub outcome: String,
    /// Whether it has been made good.
    pub repaired: bool,
}

/// Checks everything, and repairs if asked to.
///
/// # Errors
/// `watch` breaks, or the port fails otherwise than by giving a damaged value.
pub fn verify(grounds: Grounds<'_>, repair: bool, watch: &mut Watch<'_>) -> Result<VerifyReport, ToolError> {
    let found = look(&**grounds.store.kv(), watch)?;
    if repair { mend(grounds, found, watch) } else { Ok(found.report()) }
}

/// Checks everything in a port. To be called before a store is opened over it, which mends some of what it meets.
///
/// # Errors
/// As [`verify`].
pub fn look(kv: &dyn Kv, watch: &mut Watch<'_>) -> Result<Found, ToolError> {
    Walk::over(kv, watch).map(Found)
}

/// Repairs what was found.
///
/// # Errors
/// As [`verify`].
pub fn mend(grounds: Grounds<'_>, mut found: Found, watch: &mut Watch<'_>) -> Result<VerifyReport, ToolError> {
    let restored = repair::repair(grounds, &mut found.0, watch)?;
    Ok(found.0.report(true, restored))
}

/// What a check has found.
pub struct Found(Walk);

impl Found {
    /// What there is to tell of it.
    pub fn report(self) -> VerifyReport {
        self.0.report(false, 0)
    }
}

impl VerifyReport {
    /// Whether nothing is damaged any more.
    pub fn is_sound(&self) -> bool {
        self.left == 0
    }
}
