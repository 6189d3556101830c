//! A bare connection: requests are written as bytes, replies are counted as they come.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use joblog_protocol::frame::{FLAG_MORE, Header, Peek, put_request};
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::session::{Hello, VERSION};
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A greeted connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: BytesMut,
}

impl Wire {
    /// Connects and greets.
    pub(crate) async fn connect(server: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut session = [0; 16];
        getrandom::fill(&mut session).map_err(io::Error::other)?;
        let mut wire = Self { stream, input: BytesMut::with_capacity(64 * 1024) };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            session,
            silence_ms: 0,
            agent: "qbench",
            held: SmallVec::new(),
        };
        let mut out = BytesMut::new();
        put_request(&mut out, Opcode::Hello, 0, |out| hello.encode(out));
        wire.send(&out).await?;
        wire.reply().await?;
        Ok(wire)
    }

    /// Writes requests.
    pub(crate) async fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.stream.write_all(requests).await
    }

    /// Reads the next last reply to a request: its correlation id and body.
    pub(crate) async fn reply(&mut self) -> io::Result<(u64, Bytes)> {
        loop {
            match Header::peek(&self.input) {
                Peek::Whole(header) => {
                    let mut frame = self.input.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                    frame.advance(FRAME_HEADER_BYTES);
                    if let Some(code) = ErrorCode::from_code(header.status) {
                        let text = String::from_utf8_lossy(&frame).into_owned();
                        return Err(io::Error::other(format!("{code}: {text}")));
                    }
                    if header.flags & FLAG_MORE == 0 {
                        return Ok((header.correlation, frame.freeze()));
                    }
                }
                Peek::NeedMore => {
                    self.input.reserve(16 * 1024);
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                peek => return Err(io::Error::other(format!("a wrong frame: {peek:?}"))),
            }
        }
    }
}
