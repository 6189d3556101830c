//! Frames: the header around every message, how to find one in a stream, and how to write one.

use bytes::{BufMut, BytesMut};

use crate::error_code::ErrorCode;
use crate::limits::{FRAME_HEADER_BYTES, FRAME_LENGTH_MAX, FRAME_LENGTH_MIN};
use crate::opcode::Opcode;
use crate::wire::put_text;

/// Set in every frame that a server sends.
pub const FLAG_REPLY: u8 = 0x01;
/// Set in a reply that another reply to the same request follows.
pub const FLAG_MORE: u8 = 0x02;

/// Longest text of an error reply in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 2048;

/// The fixed part of a frame. SPEC.md section 5 draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes behind the length field: the rest of the header and the body.
    pub length: u32,
    /// The command. Not every number is one: see [`Opcode::from_code`].
    pub opcode: u8,
    /// [`FLAG_REPLY`], [`FLAG_MORE`].
    pub flags: u8,
    /// 0 in requests and in replies that succeeded, else an [`ErrorCode`].
    pub status: u16,
    /// Chosen by the client, repeated in every reply to the request.
    pub correlation: u64,
}

impl Header {
    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        (self.length as usize).saturating_sub(FRAME_LENGTH_MIN)
    }

    /// Reads the header at the front of `buffer`.
    pub fn peek(buffer: &[u8]) -> Peek {
        let Some((head, _)) = buffer.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Self::peek_length(buffer);
        };
        let [l0, l1, l2, l3, opcode, flags, s0, s1, c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        let header = Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            opcode,
            flags,
            status: u16::from_le_bytes([s0, s1]),
            correlation: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        };
        match header.length as usize {
            length if length < FRAME_LENGTH_MIN => Peek::Malformed { length: header.length },
            length if length > FRAME_LENGTH_MAX => Peek::TooLarge(header),
            length if buffer.len() < length + 4 => Peek::NeedMore,
            _ => Peek::Whole(header),
        }
    }

    /// A length below the header is known to be wrong before the header is complete.
    fn peek_length(buffer: &[u8]) -> Peek {
        let length = buffer.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        match length {
            Some(length) if (length as usize) < FRAME_LENGTH_MIN => Peek::Malformed { length },
            _ => Peek::NeedMore,
        }
    }
}

/// What stands at the front of a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Not enough bytes for a frame yet. Not an error.
    NeedMore,
    /// A whole frame of `header.length + 4` bytes.
    Whole(Header),
    /// A frame over the limit. It can be answered, and passed over without being kept.
    TooLarge(Header),
    /// A length below the header: the stream can't be trusted any more.
    Malformed {
        /// The length given.
        length: u32,
    },
}

/// Writes a frame whose body `body` appends.
pub fn put_frame(out: &mut BytesMut, header: Header, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.reserve(FRAME_HEADER_BYTES);
    out.put_u32_le(0);
    out.put_u8(header.opcode);
    out.put_u8(header.flags);
    out.put_u16_le(header.status);
    out.put_u64_le(header.correlation);
    body(out);
    let length = (out.len() - start - 4) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

/// Writes a request.
pub fn put_request(
    out: &mut BytesMut,
    opcode: Opcode,
    correlation: u64,
    body: impl FnOnce(&mut BytesMut),
) {
    let header = Header { length: 0, opcode: opcode as u8, flags: 0, status: 0, correlation };
    put_frame(out, header, body);
}

/// Writes a reply that succeeded; `more` if another one to the same request follows.
pub fn put_reply(
    out: &mut BytesMut,
    opcode: Opcode,
    correlation: u64,
    more: bool,
    body: impl FnOnce(&mut BytesMut),
) {
    let flags = if more { FLAG_REPLY | FLAG_MORE } else { FLAG_REPLY };
    put_frame(out, Header { length: 0, opcode: opcode as u8, flags, status: 0, correlation }, body);
}

/// Writes an error reply with a text for people. `opcode` is the request's, 0 if it has none.
pub fn put_error(out: &mut BytesMut, opcode: u8, correlation: u64, code: ErrorCode, text: &str) {
    let header = Header { length: 0, opcode, flags: FLAG_REPLY, status: code as u16, correlation };
    put_frame(out, header, |out| put_text(out, text, ERROR_TEXT_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_at_both_bounds() {
        let with = |length: u32| {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.resize(FRAME_HEADER_BYTES, 0);
            Header::peek(&bytes)
        };
        for length in [0, 1, 11] {
            assert_eq!(with(length), Peek::Malformed { length });
            assert_eq!(Header::peek(&length.to_le_bytes()), Peek::Malformed { length });
        }
        assert!(matches!(with(12), Peek::Whole(_)));
        assert_eq!(with(13), Peek::NeedMore);
        assert_eq!(with(FRAME_LENGTH_MAX as u32), Peek::NeedMore);
        assert!(matches!(with(FRAME_LENGTH_MAX as u32 + 1), Peek::TooLarge(_)));
        assert!(matches!(with(u32::MAX), Peek::TooLarge(_)));
    }

    #[test]
    fn a_frame_is_found_only_when_it_is_whole() {
        let mut out = BytesMut::new();
        put_reply(&mut out, Opcode::Ping, 7, true, |out| out.put_slice(b"abc"));
        for end in 0..out.len() {
            assert_eq!(Header::peek(&out[..end]), Peek::NeedMore, "{end} bytes");
        }
        let Peek::Whole(header) = Header::peek(&out) else { panic!("not whole") };
        assert_eq!(header.body_bytes(), 3);
        assert_eq!((header.opcode, header.flags, header.correlation), (3, 3, 7));
    }
}
