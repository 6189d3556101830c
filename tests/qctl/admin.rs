//! `ping`, `queue` and `group`.

use crate::support::Place;

#[test]
fn ping_names_the_server() {
    let place = Place::new();
    assert!(place.ok(&["ping"]).starts_with("joblogd/"));
    let pong = place.json(&["ping"]).remove(0);
    assert_eq!(pong["protocol"], 1);
    assert!(pong["round_trip_us"].as_u64().is_some());
}

#[test]
fn a_queue_is_created_listed_shown_and_deleted() {
    let place = Place::new();
    assert_eq!(place.ok(&["queue", "list"]), "QUEUE  FIRST  NEXT  GROUPS\n");
    let create = ["queue", "create", "mail", "--failures-max", "3", "--backoff-first", "90s"];
    place.run(&create).expect(0, &["Queue mail is created."]);
    place.run(&["queue", "create", "mail"]).expect(1, &["QUEUE_EXISTS"]);
    place.enqueue("mail", "a\nb\n");
    place.fetch("mail");
    assert!(place.ok(&["queue", "list"]).contains("mail       0     2  default\n"));
    let listed = place.json(&["queue", "list"]);
    assert_eq!((listed.len(), &listed[0]["next_offset"]), (1, &2.into()));

    let text = place.ok(&["queue", "show", "mail"]);
    for line in [
        "jobs        2, from offset 0",
        "durability  fsync",
        "failures    dead after more than 3; retried after 90s, doubling to 1h",
        "default  work          0      0      1       1        0     0",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let shown = place.json(&["queue", "show", "mail"]).remove(0);
    assert_eq!(shown["settings"]["failures_max"], 3);
    assert_eq!(shown["groups"][0]["leased"], 1);

    place.run(&["queue", "delete", "mail", "--yes"]).expect(0, &["Queue mail is deleted."]);
    place.run(&["queue", "show", "mail"]).expect(1, &["NO_SUCH_QUEUE", "qctl queue list"]);
    place.run(&["queue", "delete", "mail", "--yes"]).expect(1, &["NO_SUCH_QUEUE"]);
}

#[test]
fn a_bad_setting_is_refused_with_what_is_allowed() {
    let place = Place::new();
    let run = place.run(&["queue", "create", "q", "--backoff-longest", "9999d"]);
    run.expect(1, &["backoff_longest_ms", "BAD_SETTING"]);
    assert!(place.json(&["queue", "list"]).is_empty());
}

#[test]
fn a_long_list_of_queues_is_complete() {
    let place = Place::new();
    let names: Vec<String> = (0..30).map(|number| format!("q{number:02}")).collect();
    names.iter().for_each(|name| drop(place.ok(&["queue", "create", name])));
    let listed = place.json(&["queue", "list"]);
    let queues: Vec<_> = listed.iter().map(|queue| queue["queue"].as_str().unwrap()).collect();
    assert_eq!(queues, names);
}

#[test]
fn a_group_is_created_listed_shown_and_deleted() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    place.run(&["group", "create", "q", "audit", "--from", "2"]).expect(0, &["is created"]);
    place.run(&["group", "create", "q", "audit"]).expect(1, &["GROUP_EXISTS"]);
    place.ok(&["group", "create", "q", "tail", "--kind", "stream", "--from", "end"]);
    let groups = place.json(&["group", "list", "q"]);
    let seen: Vec<_> =
        groups.iter().map(|group| (&group["group"], &group["kind"], &group["ready"])).collect();
    assert_eq!(
        seen,
        [
            (&"audit".into(), &"work".into(), &1.into()),
            (&"tail".into(), &"stream".into(), &0.into())
        ]
    );
    let text = place.ok(&["group", "list", "q"]);
    assert!(text.starts_with("GROUP  KIND    COMMITTED"), "{text}");
    assert!(place.ok(&["group", "show", "q", "audit"]).contains("audit  work"));
    assert_eq!(place.json(&["group", "show", "q", "tail"])[0]["committed_offset"], 3);

    place.ok(&["group", "delete", "q", "tail", "--yes"]);
    place.run(&["group", "show", "q", "tail"]).expect(1, &["NO_SUCH_GROUP", "qctl group list"]);
    place.run(&["fetch", "q", "--group", "tial"]).expect(1, &["NO_SUCH_GROUP"]);
    place.run(&["group", "list", "none"]).expect(1, &["NO_SUCH_QUEUE"]);
}
