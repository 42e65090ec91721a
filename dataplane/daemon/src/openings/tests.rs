//! What an order to open devices opens, by the configuration as it is then.

use nova_units::{Incarnation, MountTrail};

use super::*;
use crate::roster::{Found, Muster};

/// The configuration with devices at these paths.
fn config(paths: &[&str]) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("novad.toml");
    let devices: String = paths.iter().map(|path| format!("[[device]]\npath = {path:?}\n")).collect();
    let text = format!(
        "name = 'a'\nsocket = '/s'\ndata_listen = '127.0.0.1:1'\nprofile = 'p'\nedge = true\n\
         tls = {{ ca = 'ca', certificate = 'c', key = 'k' }}\n{devices}"
    );
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

/// Devices that are open at these places, and where they were opened.
fn open(devices: &[(u8, &str)]) -> (Roster, BTreeMap<u8, PathBuf>) {
    let mounted = |(place, _): &(u8, &str)| Mounted {
        place: *place,
        id: DeviceId(u128::from(*place) + 1),
        mount_counter: 1,
        incarnation: Incarnation(0),
        bytes_total: 1 << 30,
        trail: MountTrail::default(),
    };
    let mut muster = Muster::new(1);
    muster.take(0, Found { mounted: devices.iter().map(mounted).collect(), ..Found::default() });
    let paths = devices.iter().map(|(place, path)| (*place, PathBuf::from(path))).collect();
    (Roster::clone(&muster.roster().unwrap()), paths)
}

fn wanted_of(
    paths: &[&str],
    shards: u16,
    devices: &[(u8, &str)],
) -> Result<Vec<(u8, usize, String)>, String> {
    let (roster, open) = open(devices);
    let found = wanted(&config(paths), shards, &roster, &open).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|it| (it.place, it.shard, it.config.path.display().to_string())).collect())
}

#[test]
fn what_is_not_open_is_opened_by_the_shard_that_would_have_it_at_a_start() {
    let found = wanted_of(&["a", "b", "c", "d"], 2, &[(0, "a"), (2, "c")]).unwrap();
    assert_eq!(found, [(1, 1, "b".into()), (3, 1, "d".into())]);
    assert_eq!(wanted_of(&["a", "b"], 2, &[(0, "a"), (1, "b")]).unwrap(), []);
}

#[test]
fn a_device_that_is_open_stays_where_it_is_until_it_is_closed() {
    let moved = wanted_of(&["new", "a"], 1, &[(0, "a")]).unwrap_err();
    assert!(moved.contains("new") && moved.contains("close that first"), "{moved}");
    // One that left the configuration stays open, and another may come behind it later.
    assert_eq!(wanted_of(&["a"], 1, &[(0, "a"), (1, "b")]).unwrap(), []);
}
