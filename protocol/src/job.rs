//! What a job is, for all who have to do with one: the layout of its body, its attributes, and the
//! batch of jobs that an ENQUEUE carries and a log entry keeps as it is.

mod batch;

use bytes::BufMut;

pub use self::batch::{
    Batch, BatchBuilder, EncodedJob, JobError, TABLE_ROW_BYTES, TableRow, body_range,
};
use crate::limits::{ATTRIBUTES_BYTES_MAX, DELAY_MS_MAX, PRIORITY_MAX};
use crate::unique::Unique;
use crate::wire::{DecodeError, Reader, in_range};

/// Attribute: the job's key, opaque bytes.
const ATTRIBUTE_KEY: u8 = 1;
/// Attribute: a header, a name with its length in a u8 before it and the value behind it.
const ATTRIBUTE_HEADER: u8 = 2;
/// Attribute: a u64, milliseconds from the enqueue until the job is delivered first.
const ATTRIBUTE_DELAY: u8 = 3;
/// Attribute: a u64, the time at which the job is delivered first.
const ATTRIBUTE_AT: u8 = 4;
/// Attribute: a u64, milliseconds from the enqueue after which the job is not delivered any more.
const ATTRIBUTE_TTL: u8 = 5;
/// Attribute: the job's unique key.
const ATTRIBUTE_UNIQUE: u8 = 8;

/// Attribute: a u8, how urgent the job is.
const ATTRIBUTE_PRIORITY: u8 = 6;
/// Attribute without a value: the job stands before the others of its priority.
const ATTRIBUTE_FRONT: u8 = 7;

/// A job as a producer makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// What the worker gets.
    pub payload: Vec<u8>,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Names and values, in this order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What sets it apart from the other jobs of its queue.
    pub terms: Terms,
    /// Its unique key, if it has one.
    pub unique: Option<Unique>,
}

/// What sets a job apart from the other jobs of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it is delivered first, if not at once.
    pub due: Option<NotBefore>,
    /// Milliseconds from the enqueue after which it is not delivered any more, if ever; at most
    /// [`DELAY_MS_MAX`].
    pub ttl_ms: Option<u64>,
    /// How urgent it is: 9 the most, 0 as all that say nothing.
    pub priority: u8,
    /// Whether it stands before the others of its priority.
    pub front: bool,
}

/// When a job is delivered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBefore {
    /// So many milliseconds after it is enqueued, whatever the wall clock does meanwhile; at most
    /// [`DELAY_MS_MAX`].
    In(u64),
    /// When the server's wall clock says so: milliseconds since the Unix epoch.
    At(u64),
}

impl Job {
    /// A job with this payload and nothing else.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Bytes that its body takes.
    pub fn body_bytes(&self) -> usize {
        4 + self.attributes_bytes() + self.payload.len()
    }

    fn attributes_bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| 3 + key.len());
        let headers = self.headers.iter().map(|(name, value)| 4 + name.len() + value.len());
        let unique = self.unique.as_ref().map_or(0, |unique| 3 + unique.value_bytes());
        key + headers.sum::<usize>() + self.terms.attributes_bytes() + unique
    }

    /// Appends the body.
    ///
    /// # Errors
    /// [`DecodeError::Range`] if the attributes or a header's name are over their limits.
    pub fn put_body(&self, out: &mut impl BufMut) -> Result<(), DecodeError> {
        let attributes = self.attributes_bytes();
        check_max("attributes", attributes, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_ALLOWED)?;
        check_priority(self.terms.priority)?;
        self.unique.as_ref().map_or(Ok(()), Unique::check)?;
        for (name, _) in &self.headers {
            check_max("header name", name.len(), 255, "at most 255 bytes")?;
        }
        out.put_u32_le(attributes as u32);
        if let Some(key) = &self.key {
            out.put_u8(ATTRIBUTE_KEY);
            out.put_u16_le(key.len() as u16);
            out.put_slice(key);
        }
        for (name, value) in &self.headers {
            out.put_u8(ATTRIBUTE_HEADER);
            out.put_u16_le((1 + name.len() + value.len()) as u16);
            out.put_u8(name.len() as u8);
            out.put_slice(name.as_bytes());
            out.put_slice(value);
        }
        self.terms.put(out);
        if let Some(unique) = &self.unique {
            out.put_u8(ATTRIBUTE_UNIQUE);
            out.put_u16_le(unique.value_bytes() as u16);
            unique.put(out);
        }
        out.put_slice(&self.payload);
        Ok(())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`DecodeError`] if it does not have the layout of SPEC.md.
    pub fn from_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut job = Self::default();
        let payload = read_attributes(body, |tag, value| {
            match tag {
                ATTRIBUTE_KEY => job.key = Some(value.bytes(value.remaining())?.to_vec()),
                ATTRIBUTE_HEADER => job.headers.push(read_header(value)?),
                ATTRIBUTE_UNIQUE => {
                    once(job.unique.is_some())?;
                    job.unique = Some(Unique::read(value)?.to_owned());
                }
                tag => job.terms.read(tag, value)?,
            }
            Ok(())
        })?;
        job.payload = payload.to_vec();
        Ok(job)
    }
}

/// Hands each attribute of a body to `each`, its tag and its value. Gives the payload.
#[inline]
fn read_attributes<'a>(
    body: &'a [u8],
    mut each: impl FnMut(u8, &mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let mut reader = Reader::new(body);
    let length = reader.u32()? as usize;
    let mut attributes = Reader::new(reader.bytes(length)?);
    while attributes.remaining() > 0 {
        let (tag, length) = (attributes.u8()?, attributes.u16()?);
        each(tag, &mut Reader::new(attributes.bytes(usize::from(length))?))?;
    }
    reader.bytes(reader.remaining())
}

fn read_header(value: &mut Reader<'_>) -> Result<(String, Vec<u8>), DecodeError> {
    let length = value.u8()?;
    let name = std::str::from_utf8(value.bytes(usize::from(length))?)
        .map_err(|_| DecodeError::Text { field: "header name" })?;
    Ok((name.to_owned(), value.bytes(value.remaining())?.to_vec()))
}

fn reserved_tag(tag: u8) -> DecodeError {
    DecodeError::Reserved { field: "attribute tag", value: u64::from(tag) }
}

const ATTRIBUTES_ALLOWED: &str = "at most 65535 bytes of attributes";

impl Terms {
    /// Whether it is to stand before other jobs.
    pub fn is_ranked(&self) -> bool {
        self.priority > 0 || self.front
    }

    fn attributes_bytes(&self) -> usize {
        let priority = if self.priority > 0 { 4 } else { 0 };
        11 * self.times().count() + priority + if self.front { 3 } else { 0 }
    }

    /// Its attributes that are times, each with its tag.
    fn times(&self) -> impl Iterator<Item = (u8, u64)> {
        let due = self.due.map(|due| match due {
            NotBefore::In(delay_ms) => (ATTRIBUTE_DELAY, delay_ms),
            NotBefore::At(at_ms) => (ATTRIBUTE_AT, at_ms),
        });
        due.into_iter().chain(self.ttl_ms.map(|ttl_ms| (ATTRIBUTE_TTL, ttl_ms)))
    }

    fn put(&self, out: &mut impl BufMut) {
        for (tag, value) in self.times() {
            out.put_u8(tag);
            out.put_u16_le(8);
            out.put_u64_le(value);
        }
        if self.priority > 0 {
            out.put_u8(ATTRIBUTE_PRIORITY);
            out.put_u16_le(1);
            out.put_u8(self.priority);
        }
        if self.front {
            out.put_u8(ATTRIBUTE_FRONT);
            out.put_u16_le(0);
        }
    }

    /// Reads one attribute, to the end of its value.
    fn read(&mut self, tag: u8, value: &mut Reader<'_>) -> Result<(), DecodeError> {
        let most = DELAY_MS_MAX as u64;
        match tag {
            ATTRIBUTE_DELAY | ATTRIBUTE_AT => {
                once(self.due.is_some())?;
                let ms = value.u64()?;
                if tag == ATTRIBUTE_DELAY {
                    in_range("delay_ms", ms, 0..=most, "0 to 366 days")?;
                }
                self.due =
                    Some(if tag == ATTRIBUTE_AT { NotBefore::At(ms) } else { NotBefore::In(ms) });
            }
            ATTRIBUTE_TTL => {
                once(self.ttl_ms.is_some())?;
                let ms = value.u64()?;
                in_range("ttl_ms", ms, 1..=most, "1 ms to 366 days")?;
                self.ttl_ms = Some(ms);
            }
            ATTRIBUTE_PRIORITY => {
                once(self.priority > 0)?;
                let priority = value.u8()?;
                check_priority(priority)?;
                self.priority = priority;
            }
            ATTRIBUTE_FRONT => {
                once(self.front)?;
                self.front = true;
            }
            tag => return Err(reserved_tag(tag)),
        }
        match value.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::Surplus { count }),
        }
    }
}

fn check_priority(priority: u8) -> Result<(), DecodeError> {
    in_range("priority", priority.into(), 0..=PRIORITY_MAX as u64, "0 to 9, 9 the most urgent")
}

/// Some attributes come once at most.
fn once(known: bool) -> Result<(), DecodeError> {
    let times = 1 + u64::from(known);
    in_range("number of attributes of one sort", times, 1..=1, "one")
}

/// What a job asks of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// What sets it apart from the other jobs.
    pub terms: Terms,
    /// Its unique key.
    pub unique: Option<Unique<&'a [u8]>>,
}

/// Reads a body's attributes and keeps what they ask for, as a server does before it takes the
/// job.
fn check_body(body: &[u8]) -> Result<Asked<'_>, DecodeError> {
    let length = Reader::new(body).u32()?;
    check_max("attributes", length as usize, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_ALLOWED)?;
    let mut asked = Asked::default();
    read_attributes(body, |tag, value| {
        match tag {
            ATTRIBUTE_KEY => {}
            ATTRIBUTE_HEADER => drop(read_header(value)?),
            ATTRIBUTE_UNIQUE => {
                once(asked.unique.is_some())?;
                asked.unique = Some(Unique::read(value)?);
            }
            tag => asked.terms.read(tag, value)?,
        }
        Ok(())
    })?;
    Ok(asked)
}

/// The key in a body, if it has one; none also for a body that can't be read.
pub fn key_of(body: &[u8]) -> Option<&[u8]> {
    let mut key = None;
    let read = read_attributes(body, |tag, value| {
        if tag == ATTRIBUTE_KEY {
            key = Some(value.bytes(value.remaining())?);
        }
        Ok(())
    });
    read.ok().and(key)
}

fn check_max(
    field: &'static str,
    value: usize,
    max: usize,
    allowed: &'static str,
) -> Result<(), DecodeError> {
    in_range(field, value as u64, 0..=max as u64, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Job {
        Job {
            payload: b"pay".to_vec(),
            key: Some(b"k".to_vec()),
            headers: vec![("h".into(), b"v".to_vec()), (String::new(), Vec::new())],
            terms: Terms { due: Some(NotBefore::In(7)), ttl_ms: Some(8), priority: 9, front: true },
            unique: Some(Unique { key: b"u".to_vec(), window_ms: Some(9), replace: true }),
        }
    }

    #[test]
    fn a_body_comes_back_and_no_beginning_of_it_passes() {
        let mut body = Vec::new();
        sample().put_body(&mut body).unwrap();
        assert_eq!(body.len(), sample().body_bytes());
        assert_eq!(Job::from_body(&body).unwrap(), sample());
        for end in 0..body.len() - 3 {
            assert!(Job::from_body(&body[..end]).is_err(), "{end} bytes");
            assert!(check_body(&body[..end]).is_err(), "{end} bytes");
        }
    }

    fn with_attributes(attributes: &[u8]) -> Result<Terms, DecodeError> {
        let mut body = (attributes.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(attributes);
        assert_eq!(check_body(&body).is_ok(), Job::from_body(&body).is_ok(), "{attributes:?}");
        check_body(&body).map(|asked| asked.terms)
    }

    #[test]
    fn a_job_has_one_due_time_within_its_range() {
        let delay = |ms: u64| [&[ATTRIBUTE_DELAY, 8, 0][..], &ms.to_le_bytes()].concat();
        let at = |ms: u64| [&[ATTRIBUTE_AT, 8, 0][..], &ms.to_le_bytes()].concat();
        let due = |attributes: &[u8]| with_attributes(attributes).map(|terms| terms.due);
        assert_eq!(due(&[]), Ok(None));
        assert_eq!(due(&delay(DELAY_MS_MAX as u64)), Ok(Some(NotBefore::In(DELAY_MS_MAX as u64))));
        assert_eq!(due(&at(u64::MAX)), Ok(Some(NotBefore::At(u64::MAX))));
        assert!(due(&delay(DELAY_MS_MAX as u64 + 1)).is_err());
        assert!(due(&[delay(1), at(1)].concat()).is_err());
        assert!(due(&[ATTRIBUTE_DELAY, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(due(&[ATTRIBUTE_AT, 7, 0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_job_has_one_time_to_live_within_its_range() {
        let ttl = |ms: u64| [&[ATTRIBUTE_TTL, 8, 0][..], &ms.to_le_bytes()].concat();
        let most = DELAY_MS_MAX as u64;
        assert_eq!(with_attributes(&ttl(most)).unwrap().ttl_ms, Some(most));
        for wrong in [ttl(0), ttl(most + 1), [ttl(1), ttl(1)].concat()] {
            assert!(with_attributes(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_job_has_one_priority_within_its_range_and_is_at_the_front_once() {
        let priority = |value: u8| [ATTRIBUTE_PRIORITY, 1, 0, value];
        let front = [ATTRIBUTE_FRONT, 0, 0];
        for (value, found) in [(0, Ok(0)), (9, Ok(9))] {
            assert_eq!(with_attributes(&priority(value)).map(|terms| terms.priority), found);
        }
        assert_eq!(with_attributes(&front).map(|terms| terms.front), Ok(true));
        let both = with_attributes(&[&priority(3)[..], &front].concat()).unwrap();
        assert_eq!((both.priority, both.front), (3, true));
        let wrong: [&[u8]; 5] = [
            &priority(10),
            &[ATTRIBUTE_PRIORITY, 2, 0, 1, 0],
            &[ATTRIBUTE_FRONT, 1, 0, 1],
            &[priority(1), priority(2)].concat(),
            &[front, front].concat(),
        ];
        for attributes in wrong {
            assert!(with_attributes(attributes).is_err(), "{attributes:?}");
        }
        let terms = Terms { priority: 10, ..Terms::default() };
        assert!(Job { terms, ..Job::new("x") }.put_body(&mut Vec::new()).is_err());
    }
}
