//! Whole frames as a tokio-util `Decoder` and `Encoder`, for clients.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{Header, Peek};
use crate::limits::FRAME_HEADER_BYTES;

/// Cuts a stream into frames; passes on frames that are already encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

/// A frame with its body.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Bytes,
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        match Header::peek(buffer) {
            Peek::NeedMore => Ok(None),
            Peek::Whole(header) => {
                let mut frame = buffer.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                let body = frame.split_off(FRAME_HEADER_BYTES).freeze();
                Ok(Some(Frame { header, body }))
            }
            Peek::TooLarge(Header { length, .. }) | Peek::Malformed { length } => {
                let text = format!("a frame of length {length} is outside the protocol's limits");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}

impl Encoder<Bytes> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frames: Bytes, out: &mut BytesMut) -> io::Result<()> {
        out.extend_from_slice(&frames);
        Ok(())
    }
}
