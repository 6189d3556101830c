//! The commands of the protocol, once. SPEC.md section 8 lists the same, and a test compares them.

macro_rules! opcodes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// What a frame asks for; a reply carries the opcode of its request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode { $($(#[$doc])* $variant = $code,)* }

        impl Opcode {
            /// All opcodes in the order of SPEC.md.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The opcode with this number.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name that SPEC.md uses.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

opcodes! {
    /// Greets, names the session, and agrees on a version.
    Hello = 0x01, "HELLO";
    /// Ends the session; its leases end at once.
    Goodbye = 0x02, "GOODBYE";
    /// Asks for an answer; also the heartbeat.
    Ping = 0x03, "PING";
    /// Takes no more jobs on this connection.
    Drain = 0x04, "DRAIN";
    /// Creates a queue.
    CreateQueue = 0x10, "CREATE_QUEUE";
    /// Deletes a queue with its groups and jobs.
    DeleteQueue = 0x11, "DELETE_QUEUE";
    /// Lists queues by name.
    ListQueues = 0x12, "LIST_QUEUES";
    /// Describes one queue with its groups.
    DescribeQueue = 0x13, "DESCRIBE_QUEUE";
    /// Changes settings of a queue.
    UpdateQueue = 0x14, "UPDATE_QUEUE";
    /// Creates a group on a queue.
    CreateGroup = 0x18, "CREATE_GROUP";
    /// Deletes a group.
    DeleteGroup = 0x19, "DELETE_GROUP";
    /// Lists the groups of a queue.
    ListGroups = 0x1a, "LIST_GROUPS";
    /// Describes one group, its dead jobs included.
    DescribeGroup = 0x1b, "DESCRIBE_GROUP";
    /// Sets a group to another place.
    SeekGroup = 0x1c, "SEEK_GROUP";
    /// Appends a batch of jobs to one queue.
    Enqueue = 0x20, "ENQUEUE";
    /// Takes ready jobs under a lease, and may carry commits.
    Fetch = 0x30, "FETCH";
    /// Consumes jobs.
    Commit = 0x31, "COMMIT";
    /// Hands jobs back without fault.
    Release = 0x32, "RELEASE";
    /// Hands jobs back with a reason; the retry policy decides what follows.
    Fail = 0x33, "FAIL";
    /// Renews leases.
    Extend = 0x34, "EXTEND";
    /// Reads jobs from an offset on, without a lease.
    Read = 0x35, "READ";
    /// Describes one job.
    JobInfo = 0x36, "JOB_INFO";
    /// Waits for the end of a job.
    Wait = 0x37, "WAIT";
    /// Lists dead jobs.
    DeadList = 0x40, "DEAD_LIST";
    /// Makes dead jobs ready again, as if they had never failed.
    DeadRetry = 0x41, "DEAD_RETRY";
    /// Gives dead jobs up: they are consumed.
    DeadDrop = 0x42, "DEAD_DROP";
    /// Cancels jobs; also what a server tells the worker of one.
    Cancel = 0x48, "CANCEL";
    /// Pauses a queue or a group of it.
    Pause = 0x49, "PAUSE";
    /// Ends a pause.
    Resume = 0x4a, "RESUME";
    /// Gives up all jobs of a queue that are not out with a worker.
    Purge = 0x4b, "PURGE";
    /// Makes delayed jobs ready now.
    Promote = 0x4c, "PROMOTE";
    /// Moves jobs to another queue.
    Move = 0x50, "MOVE";
    /// Adds a schedule, or gives one another plan.
    ScheduleAdd = 0x58, "SCHEDULE_ADD";
    /// Lists schedules by name, or shows one.
    ScheduleList = 0x59, "SCHEDULE_LIST";
    /// Pauses a schedule.
    SchedulePause = 0x5a, "SCHEDULE_PAUSE";
    /// Ends the pause of a schedule.
    ScheduleResume = 0x5b, "SCHEDULE_RESUME";
    /// Removes a schedule.
    ScheduleRemove = 0x5c, "SCHEDULE_REMOVE";
    /// Enqueues a schedule's job now.
    ScheduleRun = 0x5d, "SCHEDULE_RUN";
    /// Gives the numbers of queues and groups.
    Stats = 0x60, "STATS";
}
