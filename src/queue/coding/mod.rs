//! Facts and records as bytes, and back.
//!
//! `docs/log-format.md` has the tables of these layouts; a test compares the tags. All numbers are
//! little-endian. A fact or a record begins with its tag; there is no length, because one that
//! can't be read can't be passed over: the state behind it would be wrong.
//!
//! Facts and records are declared with [`declare!`], their fields and what these are made of are
//! in `fields`.

mod fields;
#[cfg(test)]
pub(super) mod tests;

use bytes::{Buf, BufMut};

/// What is read, or why it can't be.
pub(super) type Read<T> = Result<T, &'static str>;

const SHORT: &str = "it ends too soon";

/// What a fact, a record or a part of them is as bytes.
pub(super) trait Codec: Sized {
    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one at the start of `bytes`, and moves `bytes` behind it.
    fn decode(bytes: &mut &[u8]) -> Read<Self>;

    /// Appends one that may be missing: whether it is there, and then itself.
    fn encode_option(value: Option<&Self>, out: &mut Vec<u8>) {
        out.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            value.encode(out);
        }
    }

    /// Reads one that may be missing.
    fn decode_option(bytes: &mut &[u8]) -> Read<Option<Self>> {
        bool::decode(bytes)?.then(|| Self::decode(bytes)).transpose()
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode_option(self.as_ref(), out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        T::decode_option(bytes)
    }
}

impl<T: Codec> Codec for Box<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        T::decode(bytes).map(Self::new)
    }
}

macro_rules! numbers {
    ($($type:ty: $put:ident $get:ident,)*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.$put(*self);
            }

            fn decode(bytes: &mut &[u8]) -> Read<Self> {
                bytes.$get().map_err(|_| SHORT)
            }
        }
    )*};
}

numbers! {
    u8: put_u8 try_get_u8,
    u16: put_u16_le try_get_u16_le,
    u32: put_u32_le try_get_u32_le,
    u64: put_u64_le try_get_u64_le,
}

impl Codec for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        match u8::decode(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag in it is neither 0 nor 1"),
        }
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        Ok((A::decode(bytes)?, B::decode(bytes)?))
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_all(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        decode_all(bytes)
    }
}

/// Appends a count and as many items.
#[inline]
fn encode_all<T: Codec>(items: &[T], out: &mut Vec<u8>) {
    out.put_u32_le(items.len() as u32);
    items.iter().for_each(|item| item.encode(out));
}

/// Reads a count and as many items. Nothing is allocated for those that are not there.
fn decode_all<T: Codec, All: FromIterator<T>>(bytes: &mut &[u8]) -> Read<All> {
    let count = u32::decode(bytes)?;
    (0..count).map(|_| T::decode(bytes)).collect()
}

fn encode_bytes(string: &[u8], out: &mut Vec<u8>) {
    out.put_u32_le(string.len() as u32);
    out.put_slice(string);
}

fn decode_bytes<'a>(bytes: &mut &'a [u8]) -> Read<&'a [u8]> {
    let length = u32::decode(bytes)? as usize;
    bytes.split_off(..length).ok_or(SHORT)
}

/// Declares facts or records by subject, each with its tag and its name in `docs/log-format.md`.
///
/// Makes the enums, how they are written and read, and an instance of each for the tests. The
/// fields stand in the log in the order in which they stand here.
macro_rules! declare {
    ($(#[$doc:meta])* $all:ident: $(
        $(#[$subject_doc:meta])* $subject:ident($enum:ident) {$(
            $(#[$variant_doc:meta])* $variant:ident = $tag:literal $name:literal {$(
                $(#[$field_doc:meta])* $field:ident: $type:ty,
            )*}
        )*}
    )*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $all {$(
            $(#[$subject_doc])*
            $subject($enum),
        )*}

        $(
            $(#[$subject_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub enum $enum {$(
                $(#[$variant_doc])*
                $variant {$(
                    $(#[$field_doc])*
                    $field: $type,
                )*},
            )*}
        )*

        impl $all {
            /// The tag of each, and its name in the document of the format.
            pub const TAGS: &[(u8, &str)] = &[$($(($tag, $name),)*)*];

            /// Appends its bytes.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {$($(
                    Self::$subject($enum::$variant { $($field),* }) => {
                        out.push($tag);
                        $($crate::queue::coding::Codec::encode($field, out);)*
                    }
                )*)*}
            }

            /// Reads one at the start of `bytes`, and moves `bytes` behind it.
            ///
            /// # Errors
            /// What is wrong with it.
            #[deny(unreachable_patterns)]
            pub fn decode(bytes: &mut &[u8]) -> Result<Self, &'static str> {
                use $crate::queue::coding::{Codec, UNKNOWN_TAG};
                Ok(match u8::decode(bytes)? {
                    $($($tag => Self::$subject($enum::$variant {
                        $($field: Codec::decode(bytes)?,)*
                    }),)*)*
                    _ => return Err(UNKNOWN_TAG),
                })
            }
        }

        #[cfg(test)]
        impl $crate::queue::coding::tests::samples::Sample for $all {
            fn sample(seed: usize) -> Self {
                let makers: &[fn(usize) -> Self] = &[$($(|_seed| {
                    Self::$subject($enum::$variant {
                        $($field: $crate::queue::coding::tests::samples::Sample::sample(_seed),)*
                    })
                },)*)*];
                $crate::queue::coding::tests::samples::one_of(makers, seed)
            }
        }
    };
}

pub(super) const UNKNOWN_TAG: &str = "its tag is unknown; a newer version may have written it";

pub(super) use declare;
