//! What a job carries so that it can be known again, and the ledger of who came back.
//!
//! ```text
//! 0      5      9        17         25                      n-4   n
//! +------+------+--------+----------+-----------------------+-----+
//! |QBJOB | run  | number | sent_ns  | filler from the number| crc |
//! +------+------+--------+----------+-----------------------+-----+
//! ```
//! Numbers are little-endian; the crc32 covers all before it. `sent_ns` is the *intended* time of
//! sending, on the clock of this process.

use anyhow::{Result, bail, ensure};

/// What every payload begins with; the cutting proxy looks for it.
pub(crate) const MARK: &[u8; 5] = b"QBJOB";
/// The smallest payload.
#[cfg(test)]
pub(crate) const BYTES_MIN: usize = 29;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) number: u64,
    pub(crate) sent_ns: u64,
}

/// Appends a payload of `bytes`, at least `BYTES_MIN`.
pub(crate) fn put(out: &mut Vec<u8>, stamp: Stamp, bytes: usize) {
    let start = out.len();
    out.extend_from_slice(MARK);
    out.extend_from_slice(&stamp.run.to_le_bytes());
    out.extend_from_slice(&stamp.number.to_le_bytes());
    out.extend_from_slice(&stamp.sent_ns.to_le_bytes());
    let end = start + bytes - 4;
    let mut word = stamp.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < end {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let room = (end - out.len()).min(8);
        out.extend(word.to_le_bytes().iter().take(room));
    }
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads a payload and checks it.
pub(crate) fn read(payload: &[u8]) -> Result<Stamp> {
    let Some((body, crc)) = payload.split_last_chunk::<4>() else {
        bail!("a payload of {} bytes came back", payload.len());
    };
    ensure!(
        crc32fast::hash(body) == u32::from_le_bytes(*crc),
        "a payload came back damaged: its checksum does not match"
    );
    let numbers = body.strip_prefix(MARK.as_slice()).and_then(|rest| rest.first_chunk::<20>());
    let Some([a, b, c, d, rest @ ..]) = numbers else {
        bail!("a payload came back that this tool did not make");
    };
    let (number, sent_ns) = rest.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let run = u32::from_le_bytes([*a, *b, *c, *d]);
    Ok(Stamp { run, number: word(number), sent_ns: word(sent_ns) })
}

/// Which jobs of a run have come back. Each must come back exactly once, undamaged.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    seen: Vec<bool>,
    back: u64,
    /// Jobs that came again after the server was killed; nothing before that.
    again: Option<u64>,
}

impl Ledger {
    /// For a run of so many jobs, numbered from 0.
    pub(crate) fn new(run: u32, jobs: u64) -> Self {
        Self { run, seen: vec![false; jobs as usize], back: 0, again: None }
    }

    /// The number that payloads of this run carry.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// Jobs that have come back.
    pub(crate) fn back(&self) -> u64 {
        self.back
    }

    /// The server has been killed: from now on a job that comes again is counted, not refused.
    pub(crate) fn after_kill(&mut self) {
        self.again = Some(0);
    }

    /// Jobs that came again after the server was killed.
    pub(crate) fn again(&self) -> u64 {
        self.again.unwrap_or(0)
    }

    /// Takes note of a job. Gives whether it is new.
    ///
    /// # Errors
    /// It is damaged, of another run, was never enqueued, or has come back before.
    pub(crate) fn note(&mut self, payload: &[u8], payload_bytes: usize) -> Result<(Stamp, bool)> {
        let stamp = read(payload)?;
        ensure!(payload.len() == payload_bytes, "job {} changed its length", stamp.number);
        ensure!(stamp.run == self.run, "a job of run {} came in run {}", stamp.run, self.run);
        match self.seen.get_mut(stamp.number as usize) {
            Some(seen) if !*seen => *seen = true,
            Some(_) if self.again.is_some() => {
                self.again = self.again.map(|count| count + 1);
                return Ok((stamp, false));
            }
            Some(_) => bail!("job {} was consumed twice", stamp.number),
            None => bail!("job {} came back, but was never enqueued", stamp.number),
        }
        self.back += 1;
        Ok((stamp, true))
    }

    /// Checks that all jobs are back.
    ///
    /// # Errors
    /// Some are missing.
    pub(crate) fn close(&self) -> Result<()> {
        let missing = self.seen.iter().position(|seen| !seen);
        if let Some(first) = missing {
            let count = self.seen.len() as u64 - self.back;
            bail!("{count} of {} jobs never came back; the first is {first}", self.seen.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: u64, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, Stamp { run: 7, number, sent_ns: 99 }, bytes);
        out
    }

    #[test]
    fn a_payload_is_read_back_and_every_flipped_byte_is_noticed() {
        for bytes in [BYTES_MIN, 100, 1024] {
            let good = payload(5, bytes);
            assert_eq!(good.len(), bytes);
            assert_eq!(read(&good).unwrap(), Stamp { run: 7, number: 5, sent_ns: 99 });
            for place in 0..bytes {
                let mut bad = good.clone();
                bad[place] ^= 1;
                assert!(read(&bad).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn the_ledger_refuses_twice_missing_and_foreign() {
        let mut ledger = Ledger::new(7, 2);
        ledger.note(&payload(1, 100), 100).unwrap();
        let wrong =
            |ledger: &mut Ledger, bytes: &[u8]| ledger.note(bytes, 100).unwrap_err().to_string();
        assert!(wrong(&mut ledger, &payload(1, 100)).contains("twice"));
        assert!(wrong(&mut ledger, &payload(2, 100)).contains("never enqueued"));
        assert!(wrong(&mut ledger, &payload(0, 99)).contains("length"));
        assert!(ledger.close().unwrap_err().to_string().contains("1 of 2 jobs never came back"));
        ledger.note(&payload(0, 100), 100).unwrap();
        ledger.close().unwrap();
        ledger.after_kill();
        assert!(!ledger.note(&payload(0, 100), 100).unwrap().1);
        assert_eq!(ledger.again(), 1);
        assert!(Ledger::new(8, 2).note(&payload(0, 100), 100).is_err());
    }
}
