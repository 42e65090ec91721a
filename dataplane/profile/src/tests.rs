use std::collections::BTreeSet;

use super::explain::{KEYS, defaults};
use super::{BUILT_IN, HugePages, Profile, ProfileError, explain};

fn refused(text: &str) -> String {
    let error = Profile::parse(text, "test.toml").unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {source}")
}

#[test]
fn the_profiles_that_come_with_the_program_are_valid() {
    for (name, _) in BUILT_IN {
        assert_eq!(Profile::built_in(name).unwrap().name, name);
    }
    let ci = Profile::built_in("ci").unwrap();
    assert_eq!((ci.shards.count, ci.arena_bytes(), ci.poll.spin_us), (1, 64 << 20, 0));
    assert!(ci.shards.cores.is_empty(), "unpinned");
    assert!(ci.check_start(1).is_ok());
    assert_eq!(Profile::built_in("mainframe"), None);
}

#[test]
fn a_profile_of_twelve_shards_starts_where_there_are_as_many_cores() {
    let storage = Profile::built_in("storage-nvme12-100g").unwrap();
    assert_eq!((storage.shards.count, storage.memory.huge_pages), (12, HugePages::Try));
    assert!(storage.check_start(64).is_ok());
    let error = storage.check_start(8).unwrap_err();
    assert!(matches!(error, ProfileError::TooManyShards { count: 12, available: 8 }));
    assert!(error.to_string().contains("set shards.count to 8 at most"), "{error}");
}

#[test]
fn a_core_that_the_machine_lacks_is_refused_by_number() {
    let profile = Profile::parse("name='x'\n[shards]\ncores=[5]", "x").unwrap();
    assert!(profile.check_start(6).is_ok());
    assert!(matches!(profile.check_start(4), Err(ProfileError::NoSuchCore { core: 5, available: 4 })));
}

#[test]
fn errors_name_the_key_and_the_rule() {
    assert!(refused("name='x'\n[memory]\narena_mb=64").contains("arena_mb"));
    assert!(refused("name='x'\n[memory]\narena_mib=47").contains("memory.arena_mib = 47"));
    assert!(refused("name='x'\n[shards]\ncount=0").contains("shards.count = 0"));
    assert!(refused("name='x'\n[shards]\ncount=25").contains("must be 1 to 24"));
    assert!(refused("name='x'\n[shards]\ncount=2\ncores=[1]").contains("1 cores for 2 shards"));
    assert!(refused("name='x'\n[shards]\ncount=2\ncores=[1,1]").contains("core 1 twice"));
    assert!(refused("name='x'\n[poll]\npreempt_timer_us=1").contains("poll.preempt_timer_us"));
    assert!(refused("[poll]").contains("name"));
    let missing = Profile::read(std::path::Path::new("/nowhere/p.toml")).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/p.toml"));
}

#[test]
fn every_key_is_explained_once() {
    let known: BTreeSet<String> = defaults().into_iter().map(|(name, _)| name).collect();
    let explained: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(known, explained);
    assert_eq!(KEYS.len(), explained.len());
    assert!(explain().contains("memory.arena_mib = 64"));
}
