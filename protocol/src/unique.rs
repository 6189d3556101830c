//! Unique keys: of jobs with the same one, a queue has one at a time.

use bytes::BufMut;

use crate::limits::{DELAY_MS_MAX, UNIQUE_KEY_BYTES_MAX};
use crate::wire::{DecodeError, Reader, in_range};

/// The key is held for a time, which follows.
const FLAG_WINDOW: u8 = 0x01;

/// A job with the key that is delayed gives way.
const FLAG_REPLACE: u8 = 0x02;

/// A job's unique key: while a job of the queue holds the same one, this job is not enqueued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unique<K = Vec<u8>> {
    /// The key, 1 to 255 bytes, compared byte for byte.
    pub key: K,
    /// How long the job holds the key after it is enqueued, in milliseconds, whatever becomes of
    /// it; none for until the job is done.
    pub window_ms: Option<u64>,
    /// Whether this job takes the place of one with the key that was enqueued with a delay which is
    /// not over: that one is withdrawn.
    pub replace: bool,
}

impl<K: AsRef<[u8]>> Unique<K> {
    /// The length of the attribute's value.
    pub(crate) fn value_bytes(&self) -> usize {
        1 + self.window_ms.map_or(0, |_| 8) + self.key.as_ref().len()
    }

    /// Checks the key and the window.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        check_key(self.key.as_ref())?;
        check_window(self.window_ms)
    }

    /// Writes the attribute's value.
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        let window = self.window_ms.map_or(0, |_| FLAG_WINDOW);
        out.put_u8(window | if self.replace { FLAG_REPLACE } else { 0 });
        self.window_ms.into_iter().for_each(|ms| out.put_u64_le(ms));
        out.put_slice(self.key.as_ref());
    }

    /// The same with an owned key.
    pub fn to_owned(&self) -> Unique {
        let key = self.key.as_ref().to_vec();
        Unique { key, window_ms: self.window_ms, replace: self.replace }
    }
}

impl<'a> Unique<&'a [u8]> {
    /// Reads the attribute's value, to its end.
    pub(crate) fn read(value: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = value.u8()?;
        if flags & !(FLAG_WINDOW | FLAG_REPLACE) != 0 {
            return Err(DecodeError::Reserved { field: "unique flags", value: flags.into() });
        }
        let window_ms = (flags & FLAG_WINDOW != 0).then(|| value.u64()).transpose()?;
        let key = value.bytes(value.remaining())?;
        let unique = Self { key, window_ms, replace: flags & FLAG_REPLACE != 0 };
        unique.check().map(|()| unique)
    }
}

fn check_key(key: &[u8]) -> Result<(), DecodeError> {
    let most = UNIQUE_KEY_BYTES_MAX as u64;
    in_range("the length of the unique key", key.len() as u64, 1..=most, "1 to 255 bytes")
}

fn check_window(window_ms: Option<u64>) -> Result<(), DecodeError> {
    let ms = window_ms.unwrap_or(1);
    in_range("unique window_ms", ms, 1..=DELAY_MS_MAX as u64, "1 ms to 366 days")
}
