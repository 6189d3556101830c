//! What the names in a log's directory say: whether there is a log, and up to where a checkpoint
//! claims that it was synced.

use crate::types::EntryIndex;

use super::manifest;
use super::segment::FileKind;

/// The extensions of checkpoints: of the first file, and of its twin.
pub const CHECKPOINT_EXTENSIONS: [&str; 2] = ["checkpoint", "twin"];

/// The index in the name of a checkpoint, if it is one. The log was synced up to there before it
/// got this name.
pub(super) fn checkpoint_in(name: &str) -> Option<EntryIndex> {
    let (index, extension) = name.split_once('.')?;
    let is_one = CHECKPOINT_EXTENSIONS.contains(&extension) && index.len() == 20;
    is_one.then(|| index.parse().ok().map(EntryIndex)).flatten()
}

/// The entry up to which the log was synced, by the names of its checkpoints; 0 if there is none.
pub(super) fn checkpointed(names: &[String]) -> EntryIndex {
    names.iter().filter_map(|name| checkpoint_in(name)).max().unwrap_or_default()
}

/// Whether there is a log among these names, or what is left of one.
pub(super) fn is_log(names: &[String]) -> bool {
    let kinds = [FileKind::Segment, FileKind::Jobs];
    names.iter().any(|name| {
        name == manifest::NAME
            || checkpoint_in(name).is_some()
            || kinds.iter().any(|kind| kind.id_in(name).is_some())
    })
}
