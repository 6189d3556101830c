//! The bodies of requests and replies, one file for each role.
//!
//! Every message has `encode(&self, &mut BytesMut)`, which appends its body, and
//! `decode(&[u8])`, which reads a whole body and refuses what the layout does not allow. Its fields
//! are read by `read_from`.

pub mod admin;
pub mod bulk;
pub mod enqueue;
pub mod fetch;
pub mod handles;
pub mod job_info;
pub mod lease;
pub mod moving;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod stats;
pub mod wait;

/// Gives messages their `decode`: their fields as `read_from` reads them, and nothing behind.
macro_rules! decoded_whole {
    ($($message:ty),* $(,)?) => { $(
        impl<'a> $message {
            /// Reads the body.
            ///
            /// # Errors
            /// [`DecodeError`](crate::wire::DecodeError).
            pub fn decode(body: &'a [u8]) -> Result<Self, crate::wire::DecodeError> {
                crate::wire::whole(body, Self::read_from)
            }
        }
    )* };
}

decoded_whole! {
    enqueue::Enqueue<'a>, enqueue::EnqueueReply,
    fetch::Fetch<'a>, fetch::FetchReply<'a>, fetch::Read<'a>, fetch::ReadReply<'a>,
    lease::CancelNotice<'a>, lease::ChainReply, lease::Commit<'a>, lease::Extend<'a>,
    lease::Fail<'a>, lease::Release<'a>,
    moving::Move<'a>, moving::MoveReply,
    session::Hello<'a>, session::HelloReply<'a>,
    wait::Wait<'a>, wait::WaitReply<'a>,
}
