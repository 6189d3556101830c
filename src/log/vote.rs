//! The vote: a few bytes that a replica must not forget, in a file of their own.

use std::io::{self, Read};
use std::path::Path;

use super::error::LogError;
use super::files::Files;
use super::format::*;

/// The name of the file.
pub(super) const NAME: &str = "vote";
/// Its name while it is made.
pub(super) const NEW_NAME: &str = "vote.new";

/// The most bytes that a vote may have.
pub const VOTE_BYTES_MAX: usize = 4096;

/// Reads the vote in `dir`. None if there is none.
pub(super) fn load(
    files: &dyn Files,
    dir: &Path,
    log_id: [u8; 16],
) -> Result<Option<Vec<u8>>, LogError> {
    let path = dir.join(NAME);
    let mut file = match files.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| LogError::io("opening", &path, error))?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| LogError::io("reading", &path, error))?;
    let covered = bytes.get(VOTE_COVERED_FROM..).unwrap_or_default();
    let is_whole = bytes.starts_with(&VOTE_MAGIC)
        && VOTE_FIELD_VERSION.u32(&bytes) == FORMAT_VERSION
        && VOTE_FIELD_CRC.u32(&bytes) == crc32fast::hash(covered)
        && VOTE_FIELD_LOG_ID.id(&bytes) == log_id;
    match bytes.get(VOTE_HEADER_BYTES..) {
        Some(vote) if is_whole => Ok(Some(vote.to_vec())),
        _ => Err(LogError::damaged(&path, 0, "the vote is not what was written")),
    }
}

/// Makes `vote` the one in `dir`, durably.
pub(super) fn store(
    files: &dyn Files,
    dir: &Path,
    log_id: [u8; 16],
    vote: &[u8],
) -> Result<(), LogError> {
    if vote.len() > VOTE_BYTES_MAX {
        return Err(LogError::InvalidEntry { reason: "a vote has at most 4096 bytes" });
    }
    let mut bytes = vec![0; VOTE_HEADER_BYTES];
    VOTE_FIELD_MAGIC.put(&mut bytes, VOTE_MAGIC);
    VOTE_FIELD_VERSION.put(&mut bytes, FORMAT_VERSION.to_le_bytes());
    VOTE_FIELD_LOG_ID.put(&mut bytes, log_id);
    bytes.extend_from_slice(vote);
    let crc = crc32fast::hash(bytes.get(VOTE_COVERED_FROM..).unwrap_or_default());
    VOTE_FIELD_CRC.put(&mut bytes, crc.to_le_bytes());
    let (new, path) = (dir.join(NEW_NAME), dir.join(NAME));
    let io = |operation, error| LogError::io(operation, &new, error);
    let file = files.create_growing(&new).map_err(|error| io("creating", error))?;
    file.write_all_at(&bytes, 0)
        .and_then(|()| file.sync_data())
        .map_err(|error| io("writing", error))?;
    files.rename(&new, &path).map_err(|error| io("renaming", error))?;
    files.sync_dir(dir).map_err(|error| LogError::io("syncing", dir, error))
}
