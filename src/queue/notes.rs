//! What workers say of the jobs of a group that are not consumed.
//!
//! It costs memory only where they say something: the bytes and about 60 more for each job that is
//! out and has a note of its progress, and for each that failed and is to be tried again.

use std::collections::BTreeMap;

use crate::types::Offset;

/// Bytes that are kept of the last error of a job that is to be tried again; what a dead one's
/// worker said last is kept whole.
pub const LAST_ERROR_BYTES_MAX: usize = 256;

/// The notes of one group.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Of their progress, while they are out.
    progress: BTreeMap<Offset, Box<str>>,
    /// Why they failed last.
    errors: BTreeMap<Offset, Box<str>>,
}

impl Notes {
    /// What was said of a job's progress, and when it failed last.
    pub(super) fn of(&self, offset: Offset) -> (Option<&str>, Option<&str>) {
        let progress = self.progress.get(&offset).map(|note| &**note);
        (progress, self.errors.get(&offset).map(|error| &**error))
    }

    /// All notes of progress, by offset.
    pub(super) fn progress(&self) -> impl Iterator<Item = (Offset, &str)> {
        self.progress.iter().map(|(offset, note)| (*offset, &**note))
    }

    /// All last errors, by offset.
    pub(super) fn errors(&self) -> impl Iterator<Item = (Offset, &str)> {
        self.errors.iter().map(|(offset, error)| (*offset, &**error))
    }

    /// Notes the progress of a job that is out; an empty note takes it away. False if there was
    /// one.
    pub(super) fn set_progress(&mut self, offset: Offset, note: &str) -> bool {
        match note {
            "" => self.progress.remove(&offset).is_none(),
            note => self.progress.insert(offset, note.into()).is_none(),
        }
    }

    /// Notes why a job failed, as far as it is kept. False if that was known, or is nothing.
    pub(super) fn set_error(&mut self, offset: Offset, message: &str) -> bool {
        let end = message.floor_char_boundary(LAST_ERROR_BYTES_MAX);
        match message.get(..end).unwrap_or_default() {
            "" => false,
            error => self.errors.insert(offset, error.into()).is_none(),
        }
    }

    /// Forgets all about a job that is consumed or dead.
    pub(super) fn forget(&mut self, offset: Offset) {
        self.progress.remove(&offset);
        self.errors.remove(&offset);
    }
}
