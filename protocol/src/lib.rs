//! The wire protocol of Joblog.
