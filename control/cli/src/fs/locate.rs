//! `nova fs locate`: on which host, device and position every unit of a file lies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use novafs_client::{Client, Places, Resolved, UnitPlace};
use serde::Serialize;

use crate::arguments::Global;
use crate::cluster;
use crate::dev::region::Region;
use crate::exit::Stop;
use crate::fs::path;
use crate::output;

#[derive(Debug, Serialize)]
struct View {
    path: String,
    bytes: u64,
    units: Vec<UnitView>,
    /// Hosts that should hold replicas and did not tell of all of them.
    silent: Vec<String>,
    /// Why, in the same order.
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct UnitView {
    block: String,
    unit: u32,
    /// Where in the file the unit begins.
    offset: u64,
    group: u32,
    /// How many copies the group keeps of every block when it is whole; 0: not known.
    replicas_wanted: usize,
    /// What the block is sealed under.
    key_domain: u32,
    key_version: u32,
    replicas: Vec<ReplicaView>,
}

#[derive(Debug, Serialize)]
struct ReplicaView {
    node: u64,
    host: String,
    /// Hexadecimal id.
    device: String,
    /// The file that plays the device, in a region on this machine.
    device_path: Option<PathBuf>,
    /// Byte offset on the device.
    position: u64,
    stored_bytes: u32,
}

/// What a node id means.
#[derive(Clone, Debug, Default)]
struct Host {
    name: String,
    /// Paths of its devices by their hexadecimal ids, in a region on this machine.
    devices: BTreeMap<String, PathBuf>,
}

pub(super) fn run(global: &Global, client: &Client, path: &str) -> anyhow::Result<()> {
    let path = path::checked(path)?;
    let resolved = client.resolve(&path)?;
    let Places { units: places, untold } = client.locate(&path)?;
    let known = Known::of(global);
    let view = View {
        bytes: resolved.entry.as_ref().map_or(0, |entry| entry.bytes),
        units: units(&resolved, places, &known),
        silent: untold.keys().map(|node| known.host(*node).name).collect(),
        reasons: untold.into_values().collect(),
        path,
    };
    output::print(global.json, &view, View::text)?;
    match view.silent.as_slice() {
        [] => Ok(()),
        hosts => Err(Stop::unavailable(format!(
            "{} did not tell where all of its units are: look at `nova cluster status`, then ask again",
            hosts.join(", ")
        ))),
    }
}

/// What the controllers know of hosts and groups, by their ids.
#[derive(Debug, Default)]
struct Known {
    hosts: BTreeMap<u64, Host>,
    /// How many replicas each group has.
    replicas: BTreeMap<u32, usize>,
}

impl Known {
    /// Asks them. Names help people and are not worth an error: without controllers the ids are shown.
    fn of(global: &Global) -> Self {
        Self::ask(global).unwrap_or_else(|error| {
            output::say(format_args!("nova: hosts are shown by number: {error:#}"));
            Self::default()
        })
    }

    fn ask(global: &Global) -> anyhow::Result<Self> {
        let region = Region::load(&global.region_folder()?)?;
        let devices = |node: &nova_api::cluster::Node| {
            let host = region.hosts.iter().find(|host| host.name == node.name);
            let paths = host.map_or(&[][..], |host| &host.devices);
            let path = |place: u32| paths.get(usize::try_from(place).ok()?).cloned();
            let named = |it: &nova_api::cluster::Device| Some((output::hex(&it.device), path(it.place?)?));
            node.devices.iter().filter_map(named).collect()
        };
        let map = cluster::map_of(&region)?;
        let named =
            |node: nova_api::cluster::Node| (node.node, Host { devices: devices(&node), name: node.name });
        let replicas = map.groups.iter().map(|group| (group.group, cluster::replicas_of(group))).collect();
        Ok(Self { hosts: map.nodes.into_iter().map(named).collect(), replicas })
    }

    fn host(&self, node: u64) -> Host {
        let unknown = || Host { name: format!("node {node}"), devices: BTreeMap::new() };
        self.hosts.get(&node).cloned().unwrap_or_else(unknown)
    }
}

/// Replicas gathered under their units, in order of the file.
fn units(resolved: &Resolved, places: Vec<UnitPlace>, known: &Known) -> Vec<UnitView> {
    let blocks: BTreeMap<_, _> = resolved.blocks.iter().map(|block| (block.block, block)).collect();
    let mut units: BTreeMap<(u64, u64, u32), UnitView> = BTreeMap::new();
    for place in places {
        let block = blocks.get(&place.block.0);
        let (block_offset, unit_log2) = block.map_or((0, 0), |block| (block.offset, block.unit_log2.min(32)));
        let (key_domain, key_version) = block.map_or((0, 0), |block| (block.key_domain, block.key_version));
        let offset = block_offset + (u64::from(place.unit) << unit_log2);
        let unit = units.entry((offset, place.block.0, place.unit)).or_insert_with(|| UnitView {
            block: place.block.to_string(),
            unit: place.unit,
            offset,
            group: place.group.0,
            replicas_wanted: known.replicas.get(&place.group.0).copied().unwrap_or(0),
            key_domain,
            key_version,
            replicas: Vec::new(),
        });
        let Host { name, mut devices } = known.host(place.node);
        let device = format!("{:032x}", place.device);
        unit.replicas.push(ReplicaView {
            node: place.node,
            host: name,
            device_path: devices.remove(&device),
            device,
            position: place.position,
            stored_bytes: place.stored_bytes,
        });
    }
    units.into_values().collect()
}

impl UnitView {
    /// Copies that were found, of those that there should be.
    fn copies(&self) -> String {
        match self.replicas_wanted {
            0 => self.replicas.len().to_string(),
            wanted => format!("{} of {wanted}", self.replicas.len()),
        }
    }
}

impl View {
    fn text(&self) -> String {
        let mut rows = Vec::new();
        for unit in &self.units {
            for (index, replica) in unit.replicas.iter().enumerate() {
                let once = |text: String| if index == 0 { text } else { String::new() };
                rows.push([
                    once(unit.offset.to_string()),
                    once(unit.block.clone()),
                    once(unit.unit.to_string()),
                    once(unit.group.to_string()),
                    once(unit.copies()),
                    replica.host.clone(),
                    replica.device.clone(),
                    replica.position.to_string(),
                    replica.stored_bytes.to_string(),
                ]);
            }
        }
        let heading = ["OFFSET", "BLOCK", "UNIT", "GROUP", "COPIES", "HOST", "DEVICE", "POSITION", "STORED"];
        let mut text = output::table(heading, &[0, 2, 3, 7, 8], &rows);
        for (host, reason) in self.silent.iter().zip(&self.reasons) {
            text.push_str(&format!("{host} did not tell: {reason}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use nova_units::{BlockId, GroupId};

    use super::*;

    #[test]
    fn replicas_are_gathered_under_their_unit_in_order_of_the_file() {
        let place = |block, unit, node| UnitPlace {
            block: BlockId(block),
            group: GroupId(2),
            unit,
            node,
            device: 0xab,
            position: 4096 * node,
            stored_bytes: 17,
            plain_bytes: 17,
            version: (1, 1),
            digest: [0; 32],
        };
        let mut resolved = Resolved::default();
        for (block, offset) in [(9, 0), (7, 1 << 20)] {
            let mut found = nova_api::files::Block::default();
            (found.block, found.offset, found.unit_log2) = (block, offset, 16);
            resolved.blocks.push(found);
        }
        let hosts = BTreeMap::from([(
            4,
            Host {
                name: "storage-1".into(),
                devices: BTreeMap::from([
                    (format!("{:032x}", 0xab), "/r/storage-1/device-1.nova".into()),
                    (format!("{:032x}", 0xac), "/r/storage-1/device.nova".into()),
                ]),
            },
        )]);
        let known = Known { hosts, replicas: BTreeMap::from([(2, 4)]) };
        let places = vec![place(7, 0, 4), place(9, 1, 4), place(9, 1, 5)];
        let view = View {
            path: "/hot/a".into(),
            bytes: 3,
            units: units(&resolved, places, &known),
            silent: vec![known.host(6).name],
            reasons: vec!["the host is busy".into()],
        };
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["units"][0]["offset"], &json["units"][0]["unit"]), (&65536.into(), &1.into()));
        assert_eq!(json["units"][0]["replicas"][0]["host"], "storage-1");
        assert_eq!(json["units"][0]["replicas"][0]["device"], format!("{:032x}", 0xab));
        assert_eq!(json["units"][0]["replicas"][0]["device_path"], "/r/storage-1/device-1.nova");
        assert_eq!(json["units"][0]["replicas"][1]["device_path"], serde_json::Value::Null);
        assert_eq!(json["units"][1]["offset"], 1 << 20);
        assert_eq!(json["silent"][0], "node 6");
        assert_eq!(json["units"][1]["replicas_wanted"], 4);
        assert!(
            view.text().contains("node 6 did not tell: the host is busy") && view.text().contains("2 of 4"),
            "{}",
            view.text()
        );
    }
}
