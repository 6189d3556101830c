//! The error codes, once. SPEC.md section 11 lists the same, and a test compares them.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal,
        retry: $retry:literal, closes: $closes:literal;)*) => {
        /// Why a request, or one job of it, was not done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $variant = $code,)* }

        impl ErrorCode {
            /// All codes in the order of SPEC.md.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code with this number.
            pub fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name that SPEC.md uses.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }

            /// Whether the server closes the connection behind this error.
            pub fn closes(self) -> bool {
                match self { $(Self::$variant => $closes,)* }
            }
        }

        impl std::fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

error_codes! {
    /// A frame's length is below its header: where the next one begins can't be known.
    MalformedFrame = 1, "MALFORMED_FRAME", retry: false, closes: true;
    /// A frame is longer than `FRAME_LENGTH_MAX`; its bytes are passed over unread.
    FrameTooLarge = 2, "FRAME_TOO_LARGE", retry: false, closes: false;
    /// The first frame is not a HELLO of this protocol.
    NotGreeted = 3, "NOT_GREETED", retry: false, closes: true;
    /// No version in the client's range is spoken here.
    UnsupportedVersion = 4, "UNSUPPORTED_VERSION", retry: false, closes: true;
    /// No command has this opcode in the agreed version.
    UnknownOpcode = 5, "UNKNOWN_OPCODE", retry: false, closes: false;
    /// A body does not have its command's layout.
    BadRequest = 6, "BAD_REQUEST", retry: false, closes: false;
    /// A reserved flag, field or attribute is set.
    Unsupported = 7, "UNSUPPORTED", retry: false, closes: false;
    /// Another connection has taken this session over.
    SessionReplaced = 8, "SESSION_REPLACED", retry: false, closes: true;
    /// A name is outside the grammar.
    BadName = 16, "BAD_NAME", retry: false, closes: false;
    /// A setting is outside its range.
    BadSetting = 17, "BAD_SETTING", retry: false, closes: false;
    /// A token has no form that this server gives out.
    BadToken = 18, "BAD_TOKEN", retry: false, closes: false;
    /// A job's bytes do not match its checksum.
    BadChecksum = 19, "BAD_CHECKSUM", retry: true, closes: false;
    /// One job is over the limit.
    JobTooLarge = 20, "JOB_TOO_LARGE", retry: false, closes: false;
    /// A batch has no job, too many jobs or too many bytes, for any queue or for this one.
    BatchTooLarge = 21, "BATCH_TOO_LARGE", retry: false, closes: false;
    /// No queue has this name.
    NoSuchQueue = 32, "NO_SUCH_QUEUE", retry: false, closes: false;
    /// A queue of this name exists.
    QueueExists = 33, "QUEUE_EXISTS", retry: false, closes: false;
    /// No group of the queue has this name.
    NoSuchGroup = 34, "NO_SUCH_GROUP", retry: false, closes: false;
    /// The queue has a group of this name.
    GroupExists = 35, "GROUP_EXISTS", retry: false, closes: false;
    /// A work command on a stream group, or a stream command on a work group.
    WrongGroupKind = 36, "WRONG_GROUP_KIND", retry: false, closes: false;
    /// The queue has as many jobs or bytes as its settings allow.
    QueueFull = 37, "QUEUE_FULL", retry: true, closes: false;
    /// The group has consumed this job before: what a repeated COMMIT is told. A success.
    AlreadyConsumed = 48, "ALREADY_CONSUMED", retry: false, closes: false;
    /// The job is not consumed, and this token's lease on it has ended.
    LeaseLost = 49, "LEASE_LOST", retry: false, closes: false;
    /// The offset is at or beyond the end of the queue.
    BeyondEnd = 50, "BEYOND_END", retry: false, closes: false;
    /// The offset is below the first job that the queue still has.
    NoSuchJob = 51, "NO_SUCH_JOB", retry: false, closes: false;
    /// The batch's sequence number is below the producer's window.
    SequenceTooOld = 52, "SEQUENCE_TOO_OLD", retry: false, closes: false;
    /// The lease is extended, but the job was cancelled: its worker is to stop.
    CancelRequested = 53, "CANCEL_REQUESTED", retry: false, closes: false;
    /// The job has ended, and how is not known any more.
    ResultGone = 56, "RESULT_GONE", retry: false, closes: false;
    /// Queues that must lie in one log do not.
    OtherLog = 57, "OTHER_LOG", retry: false, closes: false;
    /// A result of more than `RESULT_BYTES_MAX` bytes.
    ResultTooLarge = 58, "RESULT_TOO_LARGE", retry: false, closes: false;
    /// A result from another group than the queue's primary group.
    NotPrimaryGroup = 59, "NOT_PRIMARY_GROUP", retry: false, closes: false;
    /// No schedule has this name.
    NoSuchSchedule = 60, "NO_SUCH_SCHEDULE", retry: false, closes: false;
    /// A schedule of this name exists.
    ScheduleExists = 61, "SCHEDULE_EXISTS", retry: false, closes: false;
    /// A schedule's times or its job are not allowed.
    BadSchedule = 62, "BAD_SCHEDULE", retry: false, closes: false;
    /// The write failed after it was begun: it may or may not survive.
    OutcomeUnknown = 64, "OUTCOME_UNKNOWN", retry: false, closes: false;
    /// The log takes no writes until the server is started again.
    LogPoisoned = 65, "LOG_POISONED", retry: true, closes: false;
    /// There is no room on the disk for more jobs.
    DiskFull = 66, "DISK_FULL", retry: true, closes: false;
    /// The server is stopping.
    ShuttingDown = 67, "SHUTTING_DOWN", retry: true, closes: false;
    /// A bound on connections, waiting requests or groups is reached.
    TooMany = 68, "TOO_MANY", retry: true, closes: false;
    /// Stored bytes are damaged.
    Damaged = 69, "DAMAGED", retry: false, closes: false;
}
