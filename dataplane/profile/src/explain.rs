//! Every key, its default, its meaning, and where the default comes from.

use crate::{Profile, Shards};

pub(crate) struct Key {
    pub(crate) name: &'static str,
    meaning: &'static str,
    source: &'static str,
}

pub(crate) const KEYS: [Key; 13] = [
    Key {
        name: "name",
        meaning: "name of this kind of machine, in reports and baselines",
        source: "must be given",
    },
    Key {
        name: "shards.count",
        meaning: "shards of novad, 1 to 24 and at most one a core: each has a thread, a ring, an arena and a part of the devices",
        source: "one shard serves a small machine and costs least there; on dedicated hosts one for each device (Spec C.1)",
    },
    Key {
        name: "shards.cores",
        meaning: "the core of each shard, as many as shards; empty leaves them to the kernel",
        source: "shared machines: a pinned shard would wait behind others on its core",
    },
    Key {
        name: "memory.arena_mib",
        meaning: "MiB of payload buffers of each shard, taken at start; at least 48",
        source: "DESIGN 3: small machines have 64 MiB",
    },
    Key {
        name: "memory.huge_pages",
        meaning: "\"try\" asks for huge pages and says when there are none; \"never\" does not ask",
        source: "most small machines reserve none",
    },
    Key {
        name: "poll.spin_us",
        meaning: "microseconds of busy polling before a shard parks; 0 parks at once",
        source: "DESIGN 3: polling is off where cores are shared; 20 to 50 on dedicated ones",
    },
    Key {
        name: "poll.preempt_timer_us",
        meaning: "microseconds a task may run before it is asked to yield",
        source: "measured: 250 gives urgent tasks 0.5 ms at the 99th percentile under full load",
    },
    Key {
        name: "device.requests_max",
        meaning: "requests in flight on one device; others wait in our queues, by priority",
        source: "a short device queue keeps priorities ours: 128 small requests",
    },
    Key {
        name: "device.in_flight_mib_max",
        meaning: "MiB in flight on one device",
        source: "a short device queue keeps priorities ours: 32 requests of 1 MiB",
    },
    Key {
        name: "device.client_share",
        meaning: "part of clients in the bytes that a device serves beside its log while every class waits, 1 to 100; what \
                  a class leaves goes to the others in proportion",
        source: "Spec B.3, P1: clients come first and cannot take all",
    },
    Key {
        name: "device.repair_share",
        meaning: "the same for copies that restore redundancy",
        source: "Spec B.3, P2: a lost replica is a danger, and its repair must not wait for idle clients",
    },
    Key {
        name: "device.background_share",
        meaning: "the same for checkpoints, compaction and tiering",
        source: "Spec B.3, P3: without checkpoints the log fills",
    },
    Key {
        name: "device.scrub_share",
        meaning: "the same for scrub, which also keeps the pace of novad's [scrub]",
        source: "Spec B.3, P4: at 10 of 90 a device of 4 TB at 1 GB/s is verified within half a day under full load",
    },
];

/// Default of every key as it stands in TOML, by dotted name.
pub(crate) fn defaults() -> Vec<(String, String)> {
    let profile = Profile {
        name: "laptop".into(),
        shards: Shards::default(),
        memory: Default::default(),
        poll: Default::default(),
        device: Default::default(),
    };
    let table = toml::Table::try_from(profile).expect("a profile is a table of plain values");
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                found.extend(
                    inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value.to_string())),
                );
            }
            plain => found.push((key, plain.to_string())),
        }
    }
    found
}

/// Every key with its default, its meaning and where the default comes from, as a page for people.
#[must_use]
pub fn explain() -> String {
    let defaults = defaults();
    let mut page = String::from("Keys of a hw-profile (TOML; unknown keys are refused):\n");
    for key in &KEYS {
        let default =
            defaults.iter().find(|(name, _)| name == key.name).map_or("", |(_, default)| default.as_str());
        let default = if key.name == "name" { "(none)" } else { default };
        page.push_str(&format!(
            "\n{} = {default}\n    {}\n    default: {}\n",
            key.name, key.meaning, key.source
        ));
    }
    page
}
