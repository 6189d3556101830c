//! The wire format of Redis: commands as arrays of strings, and replies.

use anyhow::{Result, bail};
use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

/// A reply, its strings borrowed from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Nil,
    Integer(i64),
    /// A simple or a bulk string.
    Text(&'a [u8]),
    Error(&'a [u8]),
    Array(SmallVec<[Box<Self>; 4]>),
}

impl<'a> Value<'a> {
    /// The elements of an array; none of anything else.
    pub(crate) fn elements(&self) -> impl DoubleEndedIterator<Item = &Value<'a>> {
        let elements = if let Self::Array(elements) = self { elements.as_slice() } else { &[] };
        elements.iter().map(|element| &**element)
    }

    /// The bytes of a string.
    pub(crate) fn text(&self) -> Option<&'a [u8]> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Appends a command.
pub(crate) fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    put_head(out, parts.len());
    put_parts(out, parts);
}

/// Appends parts of a command.
pub(crate) fn put_parts(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| put_part(out, part));
}

/// Appends the head of a command of so many parts, which [`put_part`] adds.
pub(crate) fn put_head(out: &mut BytesMut, parts: usize) {
    put_number(out, b'*', parts);
}

/// Appends one part of a command.
pub(crate) fn put_part(out: &mut BytesMut, part: &[u8]) {
    put_number(out, b'$', part.len());
    out.put_slice(part);
    out.put_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, mark: u8, number: usize) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(mark);
    out.put_slice(digits.get(20 - count..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

/// Reads the reply at the front of `input`, and gives its length; nothing if it is not whole.
///
/// # Errors
/// It is no reply.
pub(crate) fn read(input: &[u8]) -> Result<Option<(Value<'_>, usize)>> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let Some((mark, line)) = input.get(..end).and_then(|line| line.split_first()) else {
        bail!("redis sent an empty line");
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let value = match mark {
        b'+' => Value::Text(line),
        b'-' => Value::Error(line),
        b':' => Value::Integer(number(line)?),
        b'$' => return read_bulk(input, end + 1, number(line)?),
        b'*' => return read_array(input, end + 1, number(line)?),
        mark => bail!("redis sent a reply that begins with {mark:#04x}"),
    };
    Ok(Some((value, end + 1)))
}

fn read_bulk(input: &[u8], start: usize, length: i64) -> Result<Option<(Value<'_>, usize)>> {
    let Ok(length) = usize::try_from(length) else { return Ok(Some((Value::Nil, start))) };
    let text = input.get(start..start + length + 2).and_then(|text| text.strip_suffix(b"\r\n"));
    Ok(text.map(|text| (Value::Text(text), start + length + 2)))
}

fn read_array(input: &[u8], start: usize, count: i64) -> Result<Option<(Value<'_>, usize)>> {
    if count < 0 {
        return Ok(Some((Value::Nil, start)));
    }
    let mut elements = SmallVec::new();
    let mut at = start;
    for _ in 0..count {
        let Some((element, length)) = read(input.get(at..).unwrap_or_default())? else {
            return Ok(None);
        };
        elements.push(Box::new(element));
        at += length;
    }
    Ok(Some((Value::Array(elements), at)))
}

fn number(line: &[u8]) -> Result<i64> {
    Ok(std::str::from_utf8(line)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_lengths() {
        let mut out = BytesMut::new();
        put(&mut out, &[b"LPOP", b"q", b"0123456789"]);
        assert_eq!(&out[..], b"*3\r\n$4\r\nLPOP\r\n$1\r\nq\r\n$10\r\n0123456789\r\n");
    }

    #[test]
    fn replies_are_read_only_when_whole() {
        let whole = b"*3\r\n$1\r\nq\r\n*1\r\n$2\r\n\r\n\r\n:-5\r\n";
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).unwrap(), None, "{end} bytes");
        }
        let (value, length) = read(whole).unwrap().unwrap();
        assert_eq!(length, whole.len());
        assert_eq!(value.elements().count(), 3);
        assert_eq!(
            value.elements().nth(1).unwrap().elements().next().unwrap().text(),
            Some(&b"\r\n"[..])
        );
        assert_eq!(read(b"$-1\r\nx").unwrap(), Some((Value::Nil, 5)));
        assert_eq!(read(b"-ERR no\r\n").unwrap(), Some((Value::Error(b"ERR no"), 9)));
        assert!(read(b"?\r\n").is_err());
    }
}
