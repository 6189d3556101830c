//! CREATE_QUEUE, DELETE_QUEUE, LIST_QUEUES, DESCRIBE_QUEUE and UPDATE_QUEUE.

use joblog_protocol::messages::admin::{self, check_name, decode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::group::group_descriptions;
use super::{Answer, done, json};
use crate::broker::{Logs, QueueSettings, QueueSummary, UniqueInfo};

/// Queues in one page of LIST_QUEUES and STATS.
pub(super) const LIST_QUEUES_MAX: usize = 1_000;

pub(super) fn create(logs: &Logs, body: &[u8]) -> Answer {
    let admin::CreateQueue { queue, settings } = decode(body)?;
    check_name(&queue)?;
    settings.primary_group.as_deref().map_or(Ok(()), check_name)?;
    let settings = merged(&QueueSettings::default(), &settings, &[]);
    done(logs.of(&queue).create_queue(&queue, settings))
}

pub(super) fn delete(logs: &Logs, body: &[u8]) -> Answer {
    let admin::QueueName { queue } = decode(body)?;
    done(logs.of(&queue).delete_queue(&queue))
}

pub(super) fn list(logs: &Logs, body: &[u8]) -> Answer {
    let admin::ListQueues { after, limit } = decode(body)?;
    let limit = (limit as usize).clamp(1, LIST_QUEUES_MAX);
    json(logs.list_queues(&after, limit), |(queues, more)| {
        let summary = |queue: QueueSummary| admin::QueueSummary {
            queue: queue.name,
            first_offset: queue.first.0,
            next_offset: queue.next.0,
            groups: queue.groups.into_iter().map(|group| group.name).collect(),
        };
        admin::QueueList { queues: queues.into_iter().map(summary).collect(), more }
    })
}

pub(super) fn describe(logs: &Logs, body: &[u8]) -> Answer {
    let admin::QueueName { queue } = decode(body)?;
    let broker = logs.of(&queue);
    json(broker.describe_queue(&queue), |queue| {
        let (kept, bytes, displaced) = queue.results;
        admin::QueueDescription {
            first_offset: queue.summary.first.0,
            next_offset: queue.summary.next.0,
            durability: broker.durability().to_string(),
            paused: queue.summary.paused,
            settings: wire_settings(&queue.settings),
            unconsumed: queue.summary.unconsumed,
            unconsumed_bytes: queue.unconsumed_bytes,
            expired: queue.expired,
            results: admin::ResultCounts { kept, bytes, displaced },
            unique: unique(queue.unique),
            groups: group_descriptions(queue.summary.groups, &queue.summary.name),
            queue: queue.summary.name,
        }
    })
}

pub(super) fn update(logs: &Logs, body: &[u8]) -> Answer {
    let admin::UpdateQueue { queue, settings, reset } = decode(body)?;
    settings.primary_group.as_deref().map_or(Ok(()), check_name)?;
    let change = |base: &_| merged(base, &settings, &reset);
    json(logs.of(&queue).update_queue(&queue, change), |settings| wire_settings(&settings))
}

/// The settings `base` with the changes that a client asks for: those named in `reset` have their
/// defaults, and what `wire` has a value for has that.
fn merged(base: &QueueSettings, wire: &admin::QueueSettings, reset: &[String]) -> QueueSettings {
    let mut merged = fields(base);
    let named = |(name, _): &(String, Value)| reset.contains(name);
    merged.extend(fields(&QueueSettings::default()).into_iter().filter(named));
    merged.extend(fields(wire));
    serde_json::from_value(Value::Object(merged)).expect(SAME_SETTINGS)
}

fn wire_settings(settings: &QueueSettings) -> admin::QueueSettings {
    serde_json::from_value(Value::Object(fields(settings))).expect(SAME_SETTINGS)
}

const SAME_SETTINGS: &str = "both sides have the same names and types; a test compares them";

/// What the settings are, by name; the wire's without those that have no value.
fn fields(settings: &impl Serialize) -> Map<String, Value> {
    let json = serde_json::to_value(settings).and_then(serde_json::from_value);
    json.expect("a struct of plain fields is a JSON object")
}

/// Left out where there never was a unique key that mattered.
fn unique(info: UniqueInfo) -> Option<admin::UniqueKeys> {
    let UniqueInfo { held, duplicates, replaced } = info;
    (info != UniqueInfo::default()).then_some(admin::UniqueKeys { held, duplicates, replaced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_and_the_domain_have_the_same_settings() {
        let domain = fields(&QueueSettings::default());
        let names: Vec<_> = domain.keys().map(String::as_str).collect();
        let mut wire = admin::QueueSettings::NAMES.to_vec();
        wire.sort_unstable();
        assert_eq!(names, wire);
        // A value for each, none of them a default.
        let other = |(name, value): (String, Value)| match value {
            Value::Number(number) => (name, (number.as_u64().unwrap() + 1).into()),
            Value::Null => (name, 1.into()),
            Value::Bool(value) => (name, (!value).into()),
            Value::Array(_) => (name, vec![7].into()),
            _ => (name, "other".into()),
        };
        let all = Value::Object(domain.into_iter().map(other).collect());
        let wire: admin::QueueSettings = serde_json::from_value(all).unwrap();
        let default = QueueSettings::default();
        let changed = merged(&default, &wire, &[]);
        assert_eq!(wire_settings(&changed), wire);
        let names: Vec<_> = admin::QueueSettings::NAMES.iter().map(ToString::to_string).collect();
        assert_eq!(merged(&changed, &admin::QueueSettings::default(), &names), default);
        let one = admin::QueueSettings { max_jobs: Some(5), ..admin::QueueSettings::default() };
        let expected = QueueSettings { max_jobs: Some(5), ..default };
        assert_eq!(merged(&changed, &one, &names), expected);
    }
}
