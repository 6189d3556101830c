//! One connection: its socket, its buffers, and how far its outgoing stream has got.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use joblog_protocol::codec::{Frame, FrameCodec};
use joblog_protocol::frame::FLAG_REPLY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Bytes that the kernel has taken since the connection was made.
    written: u64,
    last_heard: Instant,
}

impl Connection {
    /// Connects and greets. Returns the first frame that the server sends.
    ///
    /// A server that accepts but does not answer is stalled, and more connections would not help
    /// it: so the greeting has a patience of its own.
    pub(crate) async fn open(
        address: String,
        hello: bytes::Bytes,
        connect_timeout: Duration,
        hello_timeout: Duration,
    ) -> io::Result<(Self, Frame)> {
        let late = |what: &str, time: Duration| {
            let text = format!("{what} within {} ms", time.as_millis());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let stream = timeout(connect_timeout, TcpStream::connect(&address))
            .await
            .map_err(|_| late("no connection", connect_timeout))??;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::from(hello),
            written: 0,
            last_heard: Instant::now(),
        };
        let greeted = timeout(hello_timeout, connection.first_frame()).await.map_err(|_| {
            late("the connection was accepted, but no greeting came", hello_timeout)
        })?;
        let frame = greeted?;
        Ok((connection, frame))
    }

    async fn first_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame);
            }
            self.turn().await?;
        }
    }

    /// Appends a whole frame to what goes out. Returns where it ends in the outgoing stream.
    pub(crate) fn push(&mut self, frame: &[u8]) -> u64 {
        self.outgoing.extend_from_slice(frame);
        self.written + self.outgoing.len() as u64
    }

    /// Bytes that wait to be written.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Bytes that the kernel has taken. What ends behind them can't have reached the server.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Reads some bytes or writes some. Nothing is lost if the future is dropped.
    pub(crate) async fn turn(&mut self) -> io::Result<()> {
        self.incoming.reserve(READ_BYTES);
        let (mut read, mut write) = self.stream.split();
        tokio::select! {
            count = read.read_buf(&mut self.incoming) => {
                if count? == 0 {
                    return Err(closed_by_server());
                }
                self.last_heard = Instant::now();
            }
            count = write.write_buf(&mut self.outgoing), if self.outgoing.has_remaining() => {
                self.written += count? as u64;
            }
        }
        Ok(())
    }

    /// The next whole frame among the bytes that were read.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let frame = FrameCodec.decode(&mut self.incoming)?;
        if let Some(Frame { header, .. }) = &frame
            && header.flags & FLAG_REPLY == 0
        {
            let text = "the peer sends requests: it is no Joblog server";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(frame)
    }

    /// Fails if the server has been silent for longer than this.
    ///
    /// The socket is read first: if this process was stopped for a while, the server's bytes may
    /// be there already.
    pub(crate) fn check_heard(&mut self, silence: Duration) -> io::Result<()> {
        if self.last_heard.elapsed() < silence {
            return Ok(());
        }
        self.incoming.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.incoming) {
            Ok(0) => Err(closed_by_server()),
            Ok(_) => {
                self.last_heard = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("nothing was heard for {} ms", silence.as_millis());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Err(error) => Err(error),
        }
    }
}

fn closed_by_server() -> io::Error {
    let text = "the server closed the connection";
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}
