//! Primitive types: reading them from a body with every length checked, and writing them.

use bytes::BufMut;
use smallvec::SmallVec;

use crate::error_code::ErrorCode;
use crate::limits::TOKEN_BYTES_MAX;
use crate::name::{self, BadName};

/// Why a body could not be read. Each one has its error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("the body ends inside a field: {need} more bytes are needed, {have} are left")]
    Short {
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// Bytes are left behind the last field.
    #[error("{count} bytes are left behind the last field; allowed is none")]
    Surplus {
        /// How many.
        count: usize,
    },
    /// A field has a value outside its range.
    #[error("{field} is {value}; allowed is {allowed}")]
    Range {
        /// The field.
        field: &'static str,
        /// What was given.
        value: u64,
        /// What may be given.
        allowed: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    Text {
        /// The field.
        field: &'static str,
    },
    /// A JSON body can't be read.
    #[error("the JSON body can't be read: {reason}")]
    Json {
        /// What the JSON reader says.
        reason: String,
    },
    /// A name is outside the grammar.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A token is longer than any that is given out.
    #[error("a token has {length} bytes; allowed are 1 to 32")]
    Token {
        /// Its length in bytes.
        length: usize,
    },
    /// A reserved flag or field is set.
    #[error("{field} has reserved bits set: {value:#x}; allowed is 0 in this version")]
    Reserved {
        /// The field.
        field: &'static str,
        /// What was given.
        value: u64,
    },
    /// A result is over the limit.
    #[error("the result has {bytes} bytes; allowed are at most 65536")]
    Result {
        /// Its bytes.
        bytes: usize,
    },
    /// A schedule is not allowed as it is.
    #[error("{reason}")]
    Schedule {
        /// What is allowed.
        reason: &'static str,
    },
    /// A batch is over a limit.
    #[error("the batch has {field} {value}; allowed is {allowed}")]
    Batch {
        /// What is over the limit.
        field: &'static str,
        /// What was given.
        value: u64,
        /// What may be given.
        allowed: &'static str,
    },
}

impl DecodeError {
    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::BadName,
            Self::Token { .. } => ErrorCode::BadToken,
            Self::Reserved { .. } => ErrorCode::Unsupported,
            Self::Schedule { .. } => ErrorCode::BadSchedule,
            Self::Batch { .. } => ErrorCode::BatchTooLarge,
            Self::Result { .. } => ErrorCode::ResultTooLarge,
            Self::Short { .. }
            | Self::Surplus { .. }
            | Self::Range { .. }
            | Self::Text { .. }
            | Self::Json { .. } => ErrorCode::BadRequest,
        }
    }
}

/// The fencing token of a lease: at most 32 opaque bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    length: u8,
    bytes: [u8; TOKEN_BYTES_MAX],
}

impl Token {
    /// The token with these bytes.
    ///
    /// # Errors
    /// [`DecodeError::Token`] for none or more than 32 bytes.
    pub fn new(token: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = [0; TOKEN_BYTES_MAX];
        match (token.is_empty(), bytes.get_mut(..token.len())) {
            (false, Some(place)) => place.copy_from_slice(token),
            _ => {
                return Err(DecodeError::Token { length: token.len() });
            }
        }
        Ok(Self { length: token.len() as u8, bytes })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Display for Token {
    /// Hexadecimal, as the command line shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({self})")
    }
}

impl std::str::FromStr for Token {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let wrong = DecodeError::Token { length: text.len() / 2 };
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || digits.len() > 2 * TOKEN_BYTES_MAX {
            return Err(wrong);
        }
        let bytes: Option<SmallVec<[u8; TOKEN_BYTES_MAX]>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        Self::new(&bytes.ok_or(wrong)?)
    }
}

/// Reads the fields of one body from front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes as they are.
    ///
    /// # Errors
    /// [`DecodeError::Short`], as with all methods here that read.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let short = DecodeError::Short { need: count, have: self.rest.len() };
        let (head, rest) = self.rest.split_at_checked(count).ok_or(short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let short = DecodeError::Short { need: N, have: self.rest.len() };
        let (head, rest) = self.rest.split_first_chunk().ok_or(short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next byte, of flags of which some are `known`; the others are reserved.
    pub(crate) fn flags(&mut self, field: &'static str, known: u8) -> Result<u8, DecodeError> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            flags => Err(DecodeError::Reserved { field, value: flags.into() }),
        }
    }

    /// A text with its length in a u16 before it.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Text`].
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u16()?;
        let bytes = self.bytes(usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Text { field })
    }

    /// A name with its length in a u8 before it, inside the grammar.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Name`].
    pub fn name(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.name_or_empty()?;
        name::check(name)?;
        Ok(name)
    }

    /// A name that may be empty, which stands for a default.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Name`].
    pub fn name_or_empty(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u8()?;
        let bytes = self.bytes(usize::from(length))?;
        let name = std::str::from_utf8(bytes)
            .map_err(|_| BadName { name: String::from_utf8_lossy(bytes).into_owned() })?;
        if !name.is_empty() {
            name::check(name)?;
        }
        Ok(name)
    }

    /// A token with its length in a u8 before it.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Token`].
    pub fn token(&mut self) -> Result<Token, DecodeError> {
        let length = self.u8()?;
        Token::new(self.bytes(usize::from(length))?)
    }

    /// Says that the body ends here.
    ///
    /// # Errors
    /// [`DecodeError::Surplus`] if it does not.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Surplus { count }),
        }
    }
}

/// Reads a body that is one thing, and nothing behind it.
pub(crate) fn whole<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader::new(body);
    let read = read(&mut reader)?;
    reader.finish()?;
    Ok(read)
}

/// Checks that `value` lies in `allowed`; `text` says the range in words.
///
/// # Errors
/// [`DecodeError::Range`] if it does not.
pub fn in_range(
    field: &'static str,
    value: u64,
    allowed: std::ops::RangeInclusive<u64>,
    text: &'static str,
) -> Result<(), DecodeError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(DecodeError::Range { field, value, allowed: text })
}

/// Writes a name with its length in a u8 before it. It must be checked: at most 255 bytes.
pub fn put_name(out: &mut impl BufMut, name: &str) {
    debug_assert!(name.len() <= crate::limits::NAME_BYTES_MAX);
    out.put_u8(name.len() as u8);
    out.put_slice(name.as_bytes());
}

/// Writes a text with its length in a u16 before it, cut at `bytes_max` between characters.
pub fn put_text(out: &mut impl BufMut, text: &str, bytes_max: usize) {
    let text = cut(text, bytes_max.min(usize::from(u16::MAX)));
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// Writes a token with its length in a u8 before it.
pub fn put_token(out: &mut impl BufMut, token: &Token) {
    out.put_u8(token.length);
    out.put_slice(token.as_bytes());
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or_default()
}
