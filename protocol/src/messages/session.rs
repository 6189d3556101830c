//! HELLO, GOODBYE and PING. GOODBYE and its reply have empty bodies; PING's body comes back.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::limits::HELD_TOKENS_MAX;
use crate::wire::{DecodeError, Reader, Token, in_range, put_text, put_token};

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
    /// 128 random bits, the same at each reconnect.
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

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        reader.bytes(MAGIC.len())?;
        let version_min = reader.u16()?;
        let version_max = reader.u16()?;
        let session = reader.id()?;
        let silence_ms = reader.u32()?;
        let agent = reader.text("agent")?;
        let count = reader.u32()?;
        in_range("held tokens", count.into(), 0..=HELD_TOKENS_MAX as u64, "at most 65536")?;
        let held = (0..count).map(|_| reader.token()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { version_min, version_max, session, silence_ms, agent, held })
    }
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

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let reply = Self {
            version: reader.u16()?,
            resumed: reader.u8()? != 0,
            silence_ms: reader.u32()?,
            leases_kept: reader.u32()?,
            leases_released: reader.u32()?,
            job_bytes_max: reader.u32()?,
            agent: reader.text("agent")?,
        };
        reader.finish()?;
        Ok(reply)
    }
}
