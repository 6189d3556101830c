//! Frames: their lengths, their headers, and how they are cut into packets.

use bytes::BytesMut;
use joblog_protocol::frame::put_request;
use joblog_protocol::limits::FRAME_LENGTH_MAX;
use joblog_protocol::{ErrorCode, Opcode};

use crate::common::{Dice, Raw, new_session};
use crate::support::{
    announced, assert_error, assert_no_queue, enqueue_body, frame_bytes, hello_body, one_job,
    server,
};

#[test]
fn a_length_below_the_header_ends_the_connection() {
    let (server, _dir) = server();
    for length in [0_u32, 1, 11] {
        for greeted in [false, true] {
            let mut raw = Raw::connect(server.address()).unwrap();
            if greeted {
                raw.hello(new_session(), 0, &[]).unwrap();
            }
            raw.send(&length.to_le_bytes()).unwrap();
            let frame = raw.frame().unwrap();
            let allowed = ["12", "8388608", &length.to_string()];
            assert_error(&frame, ErrorCode::MalformedFrame, &allowed);
            assert_eq!((frame.header.opcode, frame.header.correlation), (0, 0));
            raw.assert_closed();
        }
    }
    Raw::greeted(server.address()).assert_open();
}

#[test]
fn a_frame_over_the_limit_is_refused_at_once_and_a_good_one_behind_it_is_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let length = FRAME_LENGTH_MAX as u32 + 1;
    for correlation in [77, 78] {
        raw.send(&announced(length, Opcode::Enqueue as u8, correlation)).unwrap();
        let frame = raw.frame().unwrap();
        assert_error(&frame, ErrorCode::FrameTooLarge, &["8388608", &length.to_string()]);
        assert_eq!(frame.header.opcode, Opcode::Enqueue as u8);
        assert_eq!(frame.header.correlation, correlation, "its own correlation id");
        // Its body looks like frames, which must not be taken for some.
        let inside = frame_bytes(Opcode::Ping as u8, 0, 0, 9, &[]);
        let body: Vec<u8> = inside.iter().cycle().take(length as usize - 12).copied().collect();
        raw.send(&body).unwrap();
        raw.assert_open();
    }
}

#[test]
fn the_largest_length_is_answered_without_its_body() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.send(&announced(u32::MAX, 0xee, 5)).unwrap();
    let frame = raw.frame().unwrap();
    assert_error(&frame, ErrorCode::FrameTooLarge, &["4294967295"]);
    assert_eq!((frame.header.opcode, frame.header.correlation), (0xee, 5));
}

#[test]
fn a_frame_of_the_largest_length_allowed_is_read() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let large = vec![7; FRAME_LENGTH_MAX - 12];
    let correlation = 9;
    let mut bytes = announced(FRAME_LENGTH_MAX as u32, Opcode::Ping as u8, correlation);
    bytes.extend_from_slice(&large);
    raw.send(&bytes).unwrap();
    let reply = raw.reply_to(correlation).unwrap();
    assert_eq!((reply.code(), reply.body.len()), (None, large.len()));
}

#[test]
fn an_oversize_job_is_not_read_into_memory() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.assert_open();
    let before_bytes = server.resident_bytes();
    let total = 100 * 1024 * 1024_u32;
    raw.send(&announced(total + 12, Opcode::Enqueue as u8, 1)).unwrap();
    let (piece, mut largest_bytes) = ([0x5a; 64 * 1024], 0);
    for nth in 0..total as usize / piece.len() {
        raw.send(&piece).unwrap();
        if nth % 100 == 0 {
            largest_bytes = largest_bytes.max(server.resident_bytes());
        }
    }
    assert_error(&raw.frame().unwrap(), ErrorCode::FrameTooLarge, &["8388608"]);
    raw.assert_open();
    let grown_bytes = largest_bytes.saturating_sub(before_bytes);
    assert!(grown_bytes < 16 * 1024 * 1024, "memory grew by {grown_bytes} bytes");
}

#[test]
fn a_frame_that_is_cut_off_has_no_effect() {
    let (server, _dir) = server();
    let builder = one_job(b"never");
    let whole = frame_bytes(0x20, 0, 0, 1, &enqueue_body("cut", builder.batch()));
    for end in [1, 3, 4, 15, 16, 20, whole.len() - 1] {
        let mut raw = Raw::greeted(server.address());
        raw.send(&whole[..end]).unwrap();
        raw.shut_sending();
        raw.assert_closed();
    }
    assert_no_queue(&mut Raw::greeted(server.address()), "cut");
}

#[test]
fn two_frames_in_one_packet_are_both_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let both = [frame_bytes(3, 0, 0, 100, b"a"), frame_bytes(3, 0, 0, 101, b"b")].concat();
    raw.send(&both).unwrap();
    assert_eq!(raw.reply_to(100).unwrap().body, b"a");
    assert_eq!(raw.reply_to(101).unwrap().body, b"b");
}

#[test]
fn one_frame_in_many_packets_is_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let builder = one_job(b"slow");
    let bytes = frame_bytes(0x20, 0, 0, 100, &enqueue_body("slow", builder.batch()));
    for byte in bytes {
        raw.send(&[byte]).unwrap();
    }
    assert_eq!(raw.reply_to(100).unwrap().code(), None);
    assert_eq!(raw.fetch(&["slow"], 10, 0).unwrap()[0].payload, b"slow");
}

#[test]
fn requests_are_not_cut_by_how_they_are_packed() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let mut out = BytesMut::new();
    for correlation in 1000..1500 {
        put_request(&mut out, Opcode::Ping, correlation, |out| {
            out.extend_from_slice(&correlation.to_le_bytes());
        });
    }
    let mut dice = Dice::new(7);
    let mut rest = &out[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(1 + dice.below(200) as usize));
        raw.send(piece).unwrap();
        rest = behind;
    }
    for correlation in 1000_u64..1500 {
        assert_eq!(raw.reply_to(correlation).unwrap().body, correlation.to_le_bytes());
    }
}

#[test]
fn reserved_bits_of_a_header_are_refused() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    for (flags, status) in [(0x01, 0), (0x02, 0), (0x80, 0), (0, 1), (0, 0xffff)] {
        raw.send(&frame_bytes(Opcode::Ping as u8, flags, status, 50, b"x")).unwrap();
        let reply = raw.reply_to(50).unwrap();
        assert_error(&reply, ErrorCode::Unsupported, &["0"]);
        raw.assert_open();
    }
}

#[test]
fn reserved_bits_of_a_hello_are_refused_too() {
    let (server, _dir) = server();
    let mut raw = Raw::connect(server.address()).unwrap();
    for (flags, status) in [(0x01, 0), (0x80, 0), (0, 1)] {
        let opcode = Opcode::Hello as u8;
        raw.send(&frame_bytes(opcode, flags, status, 50, &hello_body(|_| {}))).unwrap();
        assert_error(&raw.reply_to(50).unwrap(), ErrorCode::Unsupported, &["0"]);
    }
    raw.hello(new_session(), 0, &[]).unwrap();
}

#[test]
fn an_unknown_opcode_is_refused() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    for opcode in (0..=u8::MAX).filter(|opcode| Opcode::from_code(*opcode).is_none()) {
        raw.send(&frame_bytes(opcode, 0, 0, 60, b"what?")).unwrap();
        let reply = raw.reply_to(60).unwrap();
        assert_eq!(reply.header.opcode, opcode);
        assert_error(&reply, ErrorCode::UnknownOpcode, &[&format!("{opcode:#04x}")]);
    }
    raw.assert_open();
}
