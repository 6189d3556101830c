//! Reads the hex of SPEC.md: blocks tagged `hex` with lines `C: 0c 00 ..` and `S: ..`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test uses a part, and may stop at what it did not expect"
)]

use joblog_protocol::Opcode;
use joblog_protocol::frame::{Header, Peek};
use joblog_protocol::limits::FRAME_HEADER_BYTES;

/// The document.
pub(crate) const SPEC: &str = include_str!("../../SPEC.md");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) side: Side,
    pub(crate) header: Header,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_BYTES..]
    }

    pub(crate) fn opcode(&self) -> Opcode {
        Opcode::from_code(self.header.opcode).expect("a known opcode")
    }
}

/// The frames of all hex blocks in `text`, in order. A block must end with a whole frame.
pub(crate) fn frames(text: &str) -> Vec<Frame> {
    let mut frames = Vec::new();
    for block in text.split("```hex\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut rest = [Vec::new(), Vec::new()];
        for line in block.lines() {
            let line = line.split('#').next().unwrap().trim();
            let Some((side, bytes)) = line.split_once(':') else {
                assert!(line.is_empty(), "{line:?} is neither hex nor a remark");
                continue;
            };
            let side = match side {
                "C" => Side::Client,
                "S" => Side::Server,
                other => panic!("{other:?} is neither C nor S"),
            };
            let buffer = &mut rest[side as usize];
            let bytes = bytes.split_whitespace();
            buffer.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
            if let Peek::Whole(header) = Header::peek(buffer) {
                let bytes: Vec<_> = buffer.drain(..4 + header.length as usize).collect();
                frames.push(Frame { side, header, bytes });
            }
        }
        assert!(rest.iter().all(Vec::is_empty), "a frame is cut off in:\n{block}");
    }
    frames
}

pub(crate) fn section(title: &str) -> &'static str {
    let rest = &SPEC[SPEC.find(&format!("\n## {title}\n")).unwrap() + 4..];
    &rest[..rest.find("\n## ").unwrap()]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}
