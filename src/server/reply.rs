//! Replies that wait until what they tell of is released, and how they become bytes.

use std::collections::VecDeque;

use bytes::BytesMut;
use joblog_protocol::frame::{put_error, put_reply};
use joblog_protocol::limits::FRAME_LENGTH_MAX;
use joblog_protocol::messages::admin::encode as encode_json;
use joblog_protocol::messages::enqueue::EnqueueReply;
use joblog_protocol::messages::fetch::{Delivery, FetchReply, ReadReply};
use joblog_protocol::messages::handles::Statuses;
use joblog_protocol::messages::job_info;
use joblog_protocol::messages::lease::encode_statuses;
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::SmallVec;

use super::convert;
use super::errors::Refused;
use crate::broker::{
    Gate, GateState, Gates, GrantedJob, Grants, JobLocation, JobView, LogError, Logs, ReadJobs,
};

/// Bytes of replies that wait for the socket; more replies are made when some have left.
pub(super) const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// A reply that is to leave when its gates are released.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) gates: Gates,
    pub(super) opcode: u8,
    pub(super) correlation: u64,
    pub(super) body: Body,
}

/// What it says.
#[derive(Debug)]
pub(super) enum Body {
    Error(Refused),
    /// Nothing but that it was done.
    Empty,
    /// Bytes made at once: a JSON body, a HELLO's, a PING's.
    Bytes(BytesMut),
    Enqueued(EnqueueReply),
    /// Statuses of jobs; `more` if another reply to the same request follows.
    Statuses {
        statuses: Statuses,
        more: bool,
    },
    Jobs(Grants),
    Read(ReadJobs),
    /// One job, described, and where its bytes lie, which are looked at when the reply leaves.
    Job(Box<(job_info::JobDescription, Option<JobLocation>)>),
}

impl Body {
    /// A body that is made at once.
    pub(super) fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Self {
        let mut bytes = BytesMut::new();
        encode(&mut bytes);
        Self::Bytes(bytes)
    }
}

/// The replies of one connection that have not left yet, in the order of their gates.
#[derive(Debug, Default)]
pub(super) struct HeldReplies {
    replies: VecDeque<Reply>,
}

impl HeldReplies {
    pub(super) fn push(&mut self, reply: Reply) {
        // Gates come in order but for replies without one and a grant that another thread made:
        // a later gate in front only lets a reply leave later than it could.
        self.replies.push_back(reply);
    }

    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }

    /// Writes what may leave, while `out` is below its bound. Gives the gate that the next one
    /// waits for, if that is what holds it.
    ///
    /// Jobs that can't be read are left out of their replies.
    pub(super) fn release(&mut self, logs: &Logs, out: &mut BytesMut) -> Option<Gate> {
        while let Some(reply) = self.replies.front()
            && out.len() < OUTPUT_BYTES_MAX
        {
            match logs.release_of(&reply.gates) {
                (GateState::Released, _) => encode(out, reply, logs),
                (GateState::Held, gate) => return gate,
                (GateState::Lost, _) => put_lost(out, reply),
            }
            self.replies.pop_front();
        }
        None
    }

    /// Takes out the grants, when the client is gone.
    pub(super) fn take_grants(&mut self) -> Vec<Grants> {
        let mut taken = Vec::new();
        self.replies.retain_mut(|reply| {
            let Body::Jobs(grants) = &mut reply.body else { return true };
            taken.push(std::mem::replace(grants, Grants::none()));
            false
        });
        taken
    }
}

fn put_lost(out: &mut BytesMut, reply: &Reply) {
    let text = "the log failed while this was being written: whether it survives is not known; \
                when the server is back, look, or ask again";
    put_error(out, reply.opcode, reply.correlation, ErrorCode::OutcomeUnknown, text);
}

fn encode(out: &mut BytesMut, reply: &Reply, logs: &Logs) {
    let Reply { opcode, correlation, ref body, .. } = *reply;
    if let Body::Error(Refused { code, text }) = body {
        return put_error(out, opcode, correlation, *code, text);
    }
    // What is answered otherwise is a request whose opcode is known.
    let Some(known) = Opcode::from_code(opcode) else { return };
    let start = out.len();
    let more = matches!(body, Body::Statuses { more: true, .. });
    let mut encoded = Ok(());
    put_reply(out, known, correlation, more, |out| {
        encoded = encode_body(out, body, logs);
    });
    if let Err(error) = encoded {
        tracing::error!(%error, "a job could not be read");
        out.truncate(start);
        put_error(out, opcode, correlation, ErrorCode::Damaged, &error.to_string());
    }
    // The length field does not count itself.
    let bytes = out.len() - start - 4;
    if bytes > FRAME_LENGTH_MAX {
        out.truncate(start);
        let text = format!("the answer has {bytes} bytes; at most {FRAME_LENGTH_MAX} fit a frame");
        put_error(out, opcode, correlation, ErrorCode::FrameTooLarge, &text);
    }
}

fn encode_body(out: &mut BytesMut, body: &Body, logs: &Logs) -> Result<(), LogError> {
    match body {
        Body::Error(_) | Body::Empty => {}
        Body::Bytes(bytes) => out.extend_from_slice(bytes),
        Body::Enqueued(reply) => reply.encode(out),
        Body::Statuses { statuses, .. } => encode_statuses(out, statuses),
        Body::Jobs(grants) => encode_grants(out, grants, logs),
        Body::Job(job) => {
            let (description, location) = &**job;
            // A job whose bytes are damaged can be described all the same.
            let view = location.as_ref().and_then(|location| location.read().ok());
            let enqueued_at_ms = view.map(|view| view.stamp.wall_ms);
            encode_json(out, &job_info::JobDescription { enqueued_at_ms, ..description.clone() });
        }
        Body::Read(read) => {
            ReadReply::encode_head(out, read.next.0, read.end.0, read.jobs.len() as u32);
            for (offset, location) in &read.jobs {
                Delivery { offset: offset.0, ..unnamed(location.read()?) }.encode(out);
            }
        }
    }
    Ok(())
}

/// A job that can't be read is left out: it is to be dead, and the others are served.
fn encode_grants(out: &mut BytesMut, grants: &Grants, logs: &Logs) {
    let mut readable: SmallVec<[(&GrantedJob, JobView<'_>); 1]> = SmallVec::new();
    for job in &grants.jobs {
        match job.location.read() {
            Ok(view) => readable.push((job, view)),
            Err(error) => logs.damage(job, &error),
        }
    }
    FetchReply::encode_head(out, grants.lease_ms, readable.len() as u32);
    for (job, view) in readable {
        let token = Some(convert::token(job.log, job.grant));
        let GrantedJob { queue_ordinal, attempt, .. } = *job;
        let offset = job.offset.0;
        Delivery { queue_ordinal, offset, token, attempt, ..unnamed(view) }.encode(out);
    }
}

/// A job as READ delivers it, but for its offset.
fn unnamed(view: JobView<'_>) -> Delivery<'_> {
    Delivery {
        queue_ordinal: 0,
        offset: 0,
        token: None,
        attempt: 0,
        enqueued_at_ms: view.stamp.wall_ms,
        flags: view.flags,
        crc32: view.crc,
        body: view.body,
    }
}
