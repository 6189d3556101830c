//! Every limit of the protocol, once. SPEC.md section 12 lists the same, and a test compares them.

/// One limit as SPEC.md lists it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The name of the constant.
    pub name: &'static str,
    /// Its value; the unit is in the name.
    pub value: u64,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: usize = $value;)*

        /// All limits in the order of SPEC.md.
        pub const LIMITS: &[Limit] = &[
            $(Limit { name: stringify!($name), value: $name as u64 },)*
        ];
    };
}

limits! {
    /// Bytes of the frame header, its length field included.
    FRAME_HEADER_BYTES = 16;
    /// Smallest value of a frame's length field: the header behind it and no body.
    FRAME_LENGTH_MIN = 12;
    /// Largest value of a frame's length field.
    FRAME_LENGTH_MAX = 8 * 1024 * 1024;
    /// Bytes of a queue's or a group's name.
    NAME_BYTES_MAX = 255;
    /// Bytes of a unique key.
    UNIQUE_KEY_BYTES_MAX = 255;
    /// Bytes of a token.
    TOKEN_BYTES_MAX = 32;
    /// Bytes of one job's body, as a server allows by default; it may set a lower limit.
    JOB_BYTES_MAX = 1024 * 1024;
    /// Bytes of all bodies of one ENQUEUE.
    BATCH_BYTES_MAX = 4 * 1024 * 1024;
    /// Jobs of one ENQUEUE.
    BATCH_JOBS_MAX = 65_536;
    /// Bytes of a job's attributes (key and headers).
    ATTRIBUTES_BYTES_MAX = 65_535;
    /// The priority of the most urgent jobs; 0 is that of jobs that say nothing.
    PRIORITY_MAX = 9;
    /// Groups of one queue.
    QUEUE_GROUPS_MAX = 1_000;
    /// Queues of one FETCH.
    FETCH_QUEUES_MAX = 255;
    /// Jobs of one FETCH or READ reply; a request for more gets this many.
    FETCH_JOBS_MAX = 10_000;
    /// Bytes of bodies in one FETCH or READ reply, but for a first job that is larger.
    FETCH_BYTES_MAX = 4 * 1024 * 1024;
    /// Longest wait of a FETCH in milliseconds; a longer one is cut to this.
    FETCH_WAIT_MS_MAX = 600_000;
    /// Jobs named by one COMMIT, RELEASE, FAIL, EXTEND or the commits of one FETCH.
    HANDLES_MAX = 65_536;
    /// Tokens that a HELLO may say it holds.
    HELD_TOKENS_MAX = 65_536;
    /// Bytes of the text that a FAIL gives as its reason; a longer one is cut.
    REASON_BYTES_MAX = 4096;
    /// Bytes of what a worker says of its progress; a longer text is cut.
    PROGRESS_BYTES_MAX = 1024;
    /// Bytes of a job's result.
    RESULT_BYTES_MAX = 65_536;
    /// Jobs that one command about many jobs names or acts on.
    BULK_JOBS_MAX = 4096;
    /// Jobs that one PURGE looks at.
    PURGE_JOBS_MAX = 16_384;
    /// Bytes of the body of a schedule's job.
    SCHEDULE_BODY_BYTES_MAX = 32_768;
    /// Bytes of a schedule's cron expression, and of its time zone's name.
    SCHEDULE_CRON_BYTES_MAX = 255;
    /// Shortest time in milliseconds between two due times of a schedule.
    SCHEDULE_EVERY_MS_MIN = 1_000;
    /// Longest such time in milliseconds (a year of 366 days).
    SCHEDULE_EVERY_MS_MAX = 31_622_400_000;
    /// Next due times that SCHEDULE_LIST gives of each schedule.
    SCHEDULE_TIMES_MAX = 100;
    /// Sequence numbers of a producer and queue, up to the highest, whose batches are remembered.
    PRODUCER_WINDOW = 64;
    /// Milliseconds without a batch after which a producer may be forgotten (a day).
    PRODUCER_KEPT_MS_MIN = 86_400_000;
    /// FETCHes that may wait at once on one connection.
    WAITING_FETCHES_MAX = 1024;
    /// WAITs that may wait at once on one connection.
    JOB_WAITS_MAX = 1024;
    /// Shortest lease in milliseconds.
    LEASE_MS_MIN = 100;
    /// Longest lease in milliseconds (30 days); it can be extended.
    LEASE_MS_MAX = 2_592_000_000;
    /// Longest delay in milliseconds (a year of 366 days).
    DELAY_MS_MAX = 31_622_400_000;
    /// Shortest silence in milliseconds after which a session may be ended.
    SILENCE_MS_MIN = 500;
    /// Longest silence in milliseconds.
    SILENCE_MS_MAX = 3_600_000;
}
