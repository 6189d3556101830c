//! The settings of a queue, as `qctl queue create` and `qctl queue set` take them.

use std::time::Duration;

use joblog::client::QueueSettings;

use crate::values::parse_duration;

/// The settings of a queue.
#[derive(Debug, clap::Args)]
pub(crate) struct SettingsArgs {
    /// Let a job fail N times; after one more it is dead. [default: 25]
    #[arg(long, value_name = "N")]
    pub(crate) failures_max: Option<u32>,
    /// Wait for DURATION before the first retry; it doubles from there. [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) backoff_first: Option<Duration>,
    /// Wait for at most DURATION before a retry. [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) backoff_longest: Option<Duration>,
    /// Wait for each DURATION in turn before the retries, instead of doubling; the last one
    /// repeats: 1s,1m,1h. [default: none, doubling]
    #[arg(long, value_name = "DURATION,...", value_delimiter = ',', value_parser = parse_duration)]
    pub(crate) backoff_delays: Option<Vec<Duration>>,
    /// Let N leases of a job be lost; after one more it is dead. [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) crashes_max: Option<u32>,
    /// Wait for DURATION before a redelivery after the second lost lease; it doubles from there.
    /// [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) crash_backoff_first: Option<Duration>,
    /// Wait for at most DURATION before a redelivery after a lost lease. [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) crash_backoff_longest: Option<Duration>,
    /// Keep dead jobs for DURATION; 0 for ever. [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) dead_kept: Option<Duration>,
    /// Keep consumed jobs for at least DURATION, so that a group can be set back to them.
    /// [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) keep_consumed_for: Option<Duration>,
    /// End jobs that are older than DURATION although nobody has consumed them; they are counted
    /// as expired. [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_age: Option<Duration>,
    /// Refuse more jobs while N wait to be consumed. [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) max_jobs: Option<u64>,
    /// Refuse more jobs while BYTES of them wait to be consumed. [default: any number]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Let each group have N jobs out at once. [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) max_in_flight: Option<u64>,
    /// Give each group N jobs per second. [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) rate_per_second: Option<u64>,
    /// Give it at most N of these at once. [default: those of a second]
    #[arg(long, value_name = "N")]
    pub(crate) rate_burst: Option<u64>,
    /// Give each group the jobs of one key in their order, and one at a time: the next when the one
    /// before is done or dead, retries included. [default: false]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) ordered_by_key: Option<bool>,
    /// Have at most N jobs of one key out at a time in each group. [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) key_concurrency_max: Option<u32>,
    /// Have a dead job hold back the others of its key until it is retried or dropped.
    /// [default: false]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) dead_keeps_key: Option<bool>,
    /// Let N jobs of each group wait for others of their keys. [default: 1000000]
    #[arg(long, value_name = "N")]
    pub(crate) parked_max: Option<u64>,
    /// Let GROUP say when a job is done, for unique keys and results. [default: default]
    #[arg(long, value_name = "GROUP")]
    pub(crate) primary_group: Option<String>,
    /// Keep the results of jobs for DURATION. [default: 500s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) result_kept: Option<Duration>,
    /// Keep at most BYTES of results, each counted with 128 bytes more. [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) result_bytes_max: Option<u64>,
}

impl SettingsArgs {
    /// As they go to the server.
    pub(crate) fn settings(&self) -> QueueSettings {
        let ms = |time: Duration| time.as_millis() as u64;
        QueueSettings {
            failures_max: self.failures_max,
            backoff_first_ms: self.backoff_first.map(ms),
            backoff_longest_ms: self.backoff_longest.map(ms),
            backoff_delays_ms: self
                .backoff_delays
                .as_ref()
                .map(|delays| delays.iter().copied().map(ms).collect()),
            crashes_max: self.crashes_max,
            crash_backoff_first_ms: self.crash_backoff_first.map(ms),
            crash_backoff_longest_ms: self.crash_backoff_longest.map(ms),
            dead_kept_ms: self.dead_kept.map(ms),
            keep_consumed_for_ms: self.keep_consumed_for.map(ms),
            max_age_ms: self.max_age.map(ms),
            max_jobs: self.max_jobs,
            max_bytes: self.max_bytes,
            max_in_flight: self.max_in_flight,
            rate_per_second: self.rate_per_second,
            rate_burst: self.rate_burst,
            ordered_by_key: self.ordered_by_key,
            key_concurrency_max: self.key_concurrency_max,
            dead_keeps_key: self.dead_keeps_key,
            parked_max: self.parked_max,
            primary_group: self.primary_group.clone(),
            result_kept_ms: self.result_kept.map(ms),
            result_bytes_max: self.result_bytes_max,
        }
    }
}

/// The setting of an option's name: times have their unit in the setting's name.
pub(super) fn parse_setting(text: &str) -> Result<&'static str, String> {
    let name = text.trim_start_matches("--").replace('-', "_");
    let is_meant = |setting: &&&str| ***setting == name || **setting == format!("{name}_ms");
    let found = QueueSettings::NAMES.iter().find(is_meant);
    found.copied().ok_or_else(|| format!("there is no setting {text:?}; see the options"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Args;
    use super::*;

    #[test]
    fn every_setting_of_a_queue_has_its_option_and_can_be_reset() {
        let command = Args::command();
        let queue = command.find_subcommand("queue").unwrap();
        for name in QueueSettings::NAMES {
            let option = name.trim_end_matches("_ms").replace('_', "-");
            for command in ["create", "set"] {
                let command = queue.find_subcommand(command).unwrap();
                let found = command.get_arguments().any(|arg| arg.get_long() == Some(&option));
                assert!(found, "{command} has no --{option}");
            }
            assert_eq!(parse_setting(&option), Ok(*name));
            assert_eq!(parse_setting(name), Ok(*name));
        }
        assert!(parse_setting("speed").unwrap_err().contains("speed"));
    }
}
