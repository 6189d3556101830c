//! Kafka's protocol as bytes: the requests that its brokers from 0.9 to 3.9 understand.
//!
//! Layouts after the protocol guide of Kafka: Produce v1, Fetch v1, Metadata v0, OffsetCommit v2,
//! OffsetFetch v1, FindCoordinator v0, and message sets of magic 0. All numbers are big-endian.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, BytesMut};

use super::Payloads;

/// What a request asks for: key and version.
#[derive(Clone, Copy, Debug)]
pub(super) enum Api {
    Produce,
    Fetch,
    Metadata,
    OffsetCommit,
    OffsetFetch,
    FindCoordinator,
}

impl Api {
    fn key_and_version(self) -> (i16, i16) {
        match self {
            Self::Produce => (0, 1),
            Self::Fetch => (1, 1),
            Self::Metadata => (3, 0),
            Self::OffsetCommit => (8, 2),
            Self::OffsetFetch => (9, 1),
            Self::FindCoordinator => (10, 0),
        }
    }
}

/// How long the broker may take to append, in milliseconds.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

/// Appends a request. Replies come in the order of the requests.
pub(super) fn put_request(out: &mut BytesMut, api: Api, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    let (key, version) = api.key_and_version();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(0);
    put_text(out, "qbench");
    body(out);
    let bytes = (out.len() - start - 4) as i32;
    if let Some(length) = out.get_mut(start..start + 4) {
        length.copy_from_slice(&bytes.to_be_bytes());
    }
}

/// Appends jobs to a partition, acknowledged when the broker has them.
pub(super) fn put_produce(out: &mut BytesMut, topic: &str, partition: i32, jobs: Payloads<'_>) {
    put_request(out, Api::Produce, |out| {
        out.put_i16(1);
        out.put_i32(PRODUCE_TIMEOUT_MS);
        out.put_i32(1);
        put_text(out, topic);
        out.put_i32(1);
        out.put_i32(partition);
        // Offset, size, crc, magic, attributes, no key, length of the value.
        let each = 8 + 4 + 4 + 1 + 1 + 4 + 4 + jobs.each;
        out.put_i32((each * jobs.iter().len()) as i32);
        for payload in jobs.iter() {
            out.put_i64(0);
            out.put_i32((each - 12) as i32);
            let mut sum = crc32fast::Hasher::new();
            let head = [&[0, 0][..], &(-1i32).to_be_bytes(), &(payload.len() as i32).to_be_bytes()];
            let head = head.concat();
            sum.update(&head);
            sum.update(payload);
            out.put_u32(sum.finalize());
            out.put_slice(&head);
            out.put_slice(payload);
        }
    });
}

/// Takes what `next` lets read out of a body that may be too short.
pub(super) struct Reply<'a>(pub(super) &'a [u8]);

impl<'a> Reply<'a> {
    pub(super) fn i16(&mut self) -> Result<i16> {
        self.0.try_get_i16().context("a reply that ends too soon")
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.0.try_get_i32().context("a reply that ends too soon")
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.0.try_get_i64().context("a reply that ends too soon")
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).context("a reply that ends too soon")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.i16()?;
        self.bytes(length.max(0) as usize)
    }

    /// Fails with what the broker calls an error by number.
    pub(super) fn no_error(&mut self, what: &str) -> Result<()> {
        match self.i16()? {
            0 => Ok(()),
            code => bail!("kafka answered error {code} to {what}"),
        }
    }
}

/// Hands over the messages of a set, by offset; a last one that was cut off is left out.
pub(super) fn each_message(mut set: &[u8], mut each: impl FnMut(i64, &[u8])) -> Result<()> {
    loop {
        let mut message = Reply(set);
        let (Ok(offset), Ok(bytes)) = (message.i64(), message.i32()) else { return Ok(()) };
        let Ok(body) = message.bytes(bytes as usize) else { return Ok(()) };
        set = message.0;
        let mut body = Reply(body);
        let [_crc, _, _, _, magic, attributes] = *body.bytes(6)? else {
            bail!("a message is shorter than its head");
        };
        let compressed = attributes & 7 != 0;
        if magic != 0 || compressed {
            bail!("the broker sent a message of magic {magic}, attributes {attributes}");
        }
        let key = body.i32()?;
        body.bytes(key.max(0) as usize)?;
        let length = body.i32()?;
        each(offset, body.bytes(length.max(0) as usize)?);
    }
}

/// Asks once, over a connection of its own kind, and waits for the answer.
pub(super) fn ask(
    stream: &mut TcpStream,
    api: Api,
    body: impl FnOnce(&mut BytesMut),
) -> Result<Vec<u8>> {
    let mut request = BytesMut::new();
    put_request(&mut request, api, body);
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    answer.drain(..4.min(answer.len()));
    Ok(answer)
}
