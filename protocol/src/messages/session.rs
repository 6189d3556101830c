//! HELLO, GOODBYE and PING. GOODBYE and its reply have empty bodies; PING's body comes back.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::limits::{HELD_TOKENS_MAX, SILENCE_MS_MAX, SILENCE_MS_MIN};
use crate::wire::{DecodeError, Reader, Token, cut, in_range, put_text, put_token};

/// The first four bytes of a HELLO.
pub const MAGIC: [u8; 4] = *b"JLOG";
/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// Longest name that a client or server gives itself, in bytes.
const AGENT_BYTES_MAX: usize = 255;

/// HELLO: who the client is, and which tokens it holds from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Lowest version that the client speaks.
    pub version_min: u16,
    /// Highest version that the client speaks.
    pub version_max: u16,
    /// 128 random bits, the same at each reconnect; never all zero.
    pub session: [u8; 16],
    /// Silence in milliseconds after which the session may be ended; 0 for the server's default.
    pub silence_ms: u32,
    /// What the client calls itself, for people.
    pub agent: &'a str,
    /// The tokens that it holds. All other leases of the session are released.
    pub held: SmallVec<[Token; 2]>,
}

impl<'a> Hello<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u16_le(self.version_min);
        out.put_u16_le(self.version_max);
        out.put_slice(&self.session);
        out.put_u32_le(self.silence_ms);
        put_text(out, self.agent, AGENT_BYTES_MAX);
        out.put_u32_le(self.held.len() as u32);
        self.held.iter().for_each(|token| put_token(out, token));
    }

    /// Whether a body begins as a HELLO of this protocol does, whatever its version.
    pub fn has_magic(body: &[u8]) -> bool {
        body.starts_with(&MAGIC)
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.bytes(MAGIC.len())?;
        let version_min = reader.u16()?;
        let version_max = reader.u16()?;
        in_range("version_min", version_min.into(), 0..=version_max.into(), "at most version_max")?;
        let session = reader.array()?;
        if session == [0; 16] {
            let allowed = "any 16 bytes that are not all zero";
            return Err(DecodeError::Range { field: "session", value: 0, allowed });
        }
        let silence_ms = reader.u32()?;
        check_silence(silence_ms)?;
        let agent = cut(reader.text("agent")?, AGENT_BYTES_MAX);
        let count = reader.u32()?;
        in_range("held tokens", count.into(), 0..=HELD_TOKENS_MAX as u64, "at most 65536")?;
        let held = (0..count).map(|_| reader.token()).collect::<Result<_, _>>()?;
        Ok(Self { version_min, version_max, session, silence_ms, agent, held })
    }
}

fn check_silence(silence_ms: u32) -> Result<(), DecodeError> {
    if silence_ms == 0 {
        return Ok(());
    }
    in_range(
        "silence_ms",
        silence_ms.into(),
        SILENCE_MS_MIN as u64..=SILENCE_MS_MAX as u64,
        "0 (the server's default) or 500 ms to 1 h",
    )
}

/// The reply to HELLO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReply<'a> {
    /// The version to speak from here on.
    pub version: u16,
    /// Whether the server knew the session.
    pub resumed: bool,
    /// Silence in milliseconds after which the session is ended. Send something every third of it.
    pub silence_ms: u32,
    /// Leases of the session that go on.
    pub leases_kept: u32,
    /// Leases of the session that were released because HELLO did not name their tokens.
    pub leases_released: u32,
    /// Largest job body that this server takes, in bytes.
    pub job_bytes_max: u32,
    /// What the server calls itself, for people.
    pub agent: &'a str,
}

impl<'a> HelloReply<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.version);
        out.put_u8(u8::from(self.resumed));
        out.put_u32_le(self.silence_ms);
        out.put_u32_le(self.leases_kept);
        out.put_u32_le(self.leases_released);
        out.put_u32_le(self.job_bytes_max);
        put_text(out, self.agent, AGENT_BYTES_MAX);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: reader.u16()?,
            resumed: reader.u8()? != 0,
            silence_ms: reader.u32()?,
            leases_kept: reader.u32()?,
            leases_released: reader.u32()?,
            job_bytes_max: reader.u32()?,
            agent: cut(reader.text("agent")?, AGENT_BYTES_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(change: impl FnOnce(&mut Hello<'_>)) -> Result<(), DecodeError> {
        let mut hello = Hello {
            version_min: 1,
            version_max: 1,
            session: [7; 16],
            silence_ms: 0,
            agent: "test",
            held: SmallVec::new(),
        };
        change(&mut hello);
        let mut body = BytesMut::new();
        hello.encode(&mut body);
        Hello::decode(&body).map(drop)
    }

    #[test]
    fn a_hello_outside_its_ranges_is_refused() {
        assert_eq!(decoded(|_| {}), Ok(()));
        for good in [0, SILENCE_MS_MIN as u32, SILENCE_MS_MAX as u32] {
            assert_eq!(decoded(|hello| hello.silence_ms = good), Ok(()));
        }
        for bad in [1, SILENCE_MS_MIN as u32 - 1, SILENCE_MS_MAX as u32 + 1] {
            assert!(decoded(|hello| hello.silence_ms = bad).is_err(), "{bad} ms");
        }
        assert!(decoded(|hello| hello.session = [0; 16]).is_err());
        assert!(decoded(|hello| hello.version_min = 2).is_err());
    }
}
