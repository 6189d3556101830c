//! The settings of a queue, and UPDATE_QUEUE.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

macro_rules! queue_settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        /// The settings of a queue. In CREATE_QUEUE what is left out has its default, in
        /// UPDATE_QUEUE it stays as it is, and what is not known is refused; in a description what
        /// is not known is passed over.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct QueueSettings {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<$type>,)*
        }

        impl QueueSettings {
            /// The names of all settings.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];
        }
    };
}

queue_settings! {
    /// Failures after which a job is dead: it is tried once more than this.
    failures_max: u32;
    /// Milliseconds before the first retry after a failure; it doubles from there.
    backoff_first_ms: u64;
    /// Longest time in milliseconds before a retry after a failure.
    backoff_longest_ms: u64;
    /// Milliseconds before the first retry, the second, and so on, instead of the doubling; the
    /// last one repeats. Empty for the doubling.
    backoff_delays_ms: Vec<u64>;
    /// Crashes after which a job is dead.
    crashes_max: u32;
    /// Milliseconds before the redelivery after a second crash; it doubles from there.
    crash_backoff_first_ms: u64;
    /// Longest time in milliseconds before a redelivery after a crash.
    crash_backoff_longest_ms: u64;
    /// Milliseconds for which a dead job is kept; 0 for ever.
    dead_kept_ms: u64;
    /// Milliseconds for which consumed jobs are kept at least; 0 for not at all.
    keep_consumed_for_ms: u64;
    /// Age in milliseconds at which a job ends although nobody has consumed it; none for never.
    max_age_ms: u64;
    /// Jobs that may wait to be consumed; none for any number.
    max_jobs: u64;
    /// Bytes of bodies that may wait to be consumed; none for any number.
    max_bytes: u64;
    /// Jobs that a group may have out at once; none for any number.
    max_in_flight: u64;
    /// Jobs that a group is given per second; none for any number.
    rate_per_second: u64;
    /// Jobs of these that it is given at once at most; none for those of a second.
    rate_burst: u64;
    /// Whether each group is given the jobs of one key in their order, and one at a time.
    ordered_by_key: bool;
    /// Jobs of one key that may be out at a time in each group; none for any number.
    key_concurrency_max: u32;
    /// Whether a dead job goes on to hold the place of its key.
    dead_keeps_key: bool;
    /// Jobs of each group that may wait for others of their keys.
    parked_max: u64;
    /// The group that says when a job is done, where that matters beyond its groups.
    primary_group: String;
    /// Milliseconds for which the result of a job is kept.
    result_kept_ms: u64;
    /// Bytes of results that are kept, each counted with 128 bytes more.
    result_bytes_max: u64;
}

impl QueueSettings {
    /// A misspelt setting would be a default that nobody asked for.
    pub(super) fn deserialize_strictly<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Self, D::Error> {
        let settings = serde_json::Map::deserialize(from)?;
        settings.keys().try_for_each(|name| check_known(name))?;
        Self::deserialize(serde_json::Value::Object(settings)).map_err(D::Error::custom)
    }
}

/// UPDATE_QUEUE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateQueue {
    /// The queue's name.
    pub queue: String,
    /// The settings that get another value.
    #[serde(default, deserialize_with = "QueueSettings::deserialize_strictly")]
    pub settings: QueueSettings,
    /// The names of settings that get their defaults. One that has a value above, too, gets that.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known_names")]
    pub reset: Vec<String>,
}

fn known_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.iter().try_for_each(|name| check_known(name))?;
    Ok(names)
}

fn check_known<E: Error>(name: &str) -> Result<(), E> {
    match QueueSettings::NAMES.contains(&name) {
        true => Ok(()),
        false => Err(E::unknown_field(name, QueueSettings::NAMES)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin::{CreateQueue, decode};
    use super::*;

    #[test]
    fn an_unknown_setting_is_refused_in_a_request_and_passed_over_in_a_description() {
        let settings = br#"{"failures_max":3,"from_a_later_version":1}"#;
        assert_eq!(decode::<QueueSettings>(settings).unwrap().failures_max, Some(3));
        let request = [br#"{"queue":"q","settings":"#, &settings[..], b"}"].concat();
        let mut errors = vec![decode::<CreateQueue>(&request).unwrap_err().to_string()];
        errors.push(decode::<UpdateQueue>(&request).unwrap_err().to_string());
        let request = br#"{"queue":"q","reset":["max_age_ms","from_a_later_version"]}"#;
        errors.push(decode::<UpdateQueue>(request).unwrap_err().to_string());
        for error in errors {
            assert!(error.contains("from_a_later_version"), "{error}");
            assert!(error.contains("crash_backoff_longest_ms"), "{error}");
        }
    }
}
