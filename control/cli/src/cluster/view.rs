//! What the controllers answered, as people and scripts see it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nova_api::cluster::{self as api, StatusResponse, device, member, node};
use serde::Serialize;

use super::health::Filling;
use super::replicas_of;
use crate::dev::region::Region;
use crate::output;

/// `nova cluster status`.
#[derive(Debug, Serialize)]
pub(super) struct StatusView {
    controllers: Vec<ControllerView>,
    raft: Vec<RaftView>,
    hosts: Vec<HostView>,
    groups: Vec<GroupView>,
    groups_in_sync: usize,
    groups_total: usize,
    collection: CollectionView,
    notes: Vec<String>,
}

/// How space of removed files comes back.
#[derive(Debug, Serialize)]
struct CollectionView {
    /// Ids that wait; most ids of an ended session were never written.
    blocks_waiting: u64,
    blocks_collected: u64,
    /// Sealed bytes that each member held of them.
    bytes_collected: u64,
    /// When the last full pass ended; 0: none yet.
    full_pass_ms: u64,
    full_pass_running: bool,
}

impl CollectionView {
    fn of(collection: &api::Collection) -> Self {
        Self {
            blocks_waiting: collection.blocks_waiting,
            blocks_collected: collection.blocks,
            bytes_collected: collection.bytes,
            full_pass_ms: collection.full_pass_ms,
            full_pass_running: collection.full_pass_running,
        }
    }

    fn text(&self) -> String {
        let pass = match (self.full_pass_running, self.full_pass_ms) {
            (true, _) => "a full pass is under way".to_owned(),
            (false, 0) => "no full pass yet".to_owned(),
            (false, ms) => format!("last full pass {} UTC", output::utc(ms)),
        };
        format!(
            "collection: {} blocks ({} on each member) collected, {} ids wait, {pass}",
            self.blocks_collected,
            output::bytes(self.bytes_collected),
            self.blocks_waiting
        )
    }
}

/// `nova node ls`.
#[derive(Debug, Serialize)]
pub(super) struct HostsView {
    hosts: Vec<HostView>,
}

/// `nova node drain` and `undrain`.
#[derive(Debug, Serialize)]
pub(super) struct DrainView {
    pub(super) host: String,
    pub(super) draining: bool,
    /// Groups with a replica on the host.
    pub(super) groups_left: u32,
}

impl DrainView {
    pub(super) fn text(&self) -> String {
        let Self { host, draining, groups_left: left } = self;
        match (draining, left) {
            (true, 0) => format!(
                "{host} is drained: it holds no replicas, so no copy is missing when it is switched off. Its own programs \
                 and mounts reach NovaFS through it and lose that way when it goes: end them first\n"
            ),
            (true, left) => format!(
                "{host} is being drained: replicas of {left} groups move to other hosts; `nova node ls --watch` shows \
                 how far it is\n"
            ),
            (false, _) => format!("{host} holds replicas again; it gets its share as groups move to it\n"),
        }
    }
}

/// `nova node forget`.
#[derive(Debug, Serialize)]
pub(super) struct ForgetView {
    pub(super) host: String,
    pub(super) device: String,
}

impl ForgetView {
    pub(super) fn text(&self) -> String {
        format!("device {} of {} is forgotten\n", self.device, self.host)
    }
}

/// How far the drain of a host is; `None` when there is no such host.
pub(super) fn replicas_on(status: &StatusResponse, host: &str) -> Option<Draining> {
    let map = status.map.as_ref()?;
    let node = map.nodes.iter().find(|node| node.name == host)?;
    let groups =
        map.groups.iter().filter(|group| group.members.iter().any(|it| it.node == node.node)).count();
    Some(Draining { draining: node.draining, groups: u32::try_from(groups).unwrap_or(u32::MAX) })
}

/// Whether a host is drained, and what is left on it.
pub(super) struct Draining {
    pub(super) draining: bool,
    pub(super) groups: u32,
}

#[derive(Debug, Serialize)]
struct ControllerView {
    id: u64,
    /// As in the region's file; empty for a controller that it does not know.
    name: String,
    address: String,
    reachable: bool,
}

#[derive(Debug, Serialize)]
struct RaftView {
    name: String,
    /// Id of a controller; 0 when none leads.
    leader: u64,
    term: u64,
    committed: u64,
    applied: u64,
}

#[derive(Debug, Serialize)]
struct HostView {
    name: String,
    node: u64,
    roles: Vec<String>,
    zone: String,
    state: &'static str,
    address: String,
    devices: Vec<DeviceView>,
    /// Places in novad's configuration of devices that it could not mount.
    broken_devices: Vec<u32>,
    bytes_total: u64,
    bytes_free: u64,
    last_heard_ms: u64,
    /// Everything is being moved off it.
    draining: bool,
    /// Far slower than its peers.
    slow: bool,
    /// Groups with a replica on it.
    groups: usize,
    /// Groups that it is being filled with.
    filling: Option<FillingView>,
    counters: BTreeMap<String, u64>,
}

/// A device of a host.
#[derive(Debug, Serialize)]
pub(super) struct DeviceView {
    /// Hexadecimal.
    device: String,
    /// In novad's configuration, from 0; null for one that it did not mount.
    place: Option<u32>,
    state: &'static str,
    /// Far slower than the other devices of the region.
    slow: bool,
    incarnation: u64,
    bytes_total: u64,
    bytes_free: u64,
    /// Groups with a replica on it.
    groups: usize,
    /// Half of its entries took this long at most to be durable, in its last window; null before the first.
    write_median_us: Option<u64>,
    /// All but one in a hundred did.
    write_p99_us: Option<u64>,
}

impl DeviceView {
    fn of(device: &api::Device, node: u64, groups: &[api::Group]) -> Self {
        let on_it = |member: &api::Member| (member.node, member.incarnation) == (node, device.incarnation);
        Self {
            device: output::hex(&device.device),
            place: device.place,
            state: match device.state() {
                device::State::Serving => "serving",
                device::State::Failed => "failed",
                device::State::Absent => "absent",
                device::State::Unspecified => "unknown",
            },
            slow: device.slow,
            write_median_us: device.pace.map(|pace| pace.median_us),
            write_p99_us: device.pace.map(|pace| pace.p99_us),
            incarnation: device.incarnation,
            bytes_total: device.bytes_total,
            bytes_free: device.bytes_free,
            groups: groups.iter().filter(|group| group.members.iter().any(on_it)).count(),
        }
    }
}

/// All fillings of one host.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FillingView {
    groups: usize,
    units_done: u64,
    /// As the other members last counted them; 0 when one did not yet.
    units_total: u64,
    units_per_second: f64,
    /// Until the last of them is filled, at the present pace; null when nothing tells.
    eta_seconds: Option<u64>,
}

impl FillingView {
    pub(super) fn of(fillings: &[(u32, Filling)], host: &str) -> Option<Self> {
        let own: Vec<&Filling> =
            fillings.iter().map(|(_, filling)| filling).filter(|filling| filling.host == host).collect();
        let totals: Option<Vec<u64>> =
            own.iter().map(|filling| Some(filling.units_total).filter(|total| *total > 0)).collect();
        (!own.is_empty()).then(|| Self {
            groups: own.len(),
            units_done: own.iter().map(|filling| filling.units_done).sum(),
            units_total: totals.map_or(0, |totals| totals.iter().sum()),
            units_per_second: own.iter().map(|filling| filling.units_per_second).sum(),
            eta_seconds: own
                .iter()
                .map(|filling| filling.eta_seconds)
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { groups, units_done: done, units_total: total, units_per_second: pace, .. } = self;
        let total = if *total == 0 { String::new() } else { format!(" of {total}") };
        let left = self.eta_seconds.map_or_else(String::new, |left| format!(", {left} s left"));
        format!("{groups} groups: {done}{total} units, {pace:.0}/s{left}")
    }
}

#[derive(Debug, Serialize)]
struct GroupView {
    group: u32,
    epoch: u64,
    /// Node id; 0 when there is none.
    primary: u64,
    frozen: bool,
    in_sync: bool,
    /// How many members it has when it is whole.
    replicas: usize,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    node: u64,
    /// Of the device that holds the replica.
    incarnation: u64,
    role: &'static str,
}

/// The word for the state of a host.
pub(super) fn node_state(node: &api::Node) -> &'static str {
    match node.state() {
        node::State::Initializing => "initializing",
        node::State::Ready => "ready",
        node::State::Silent => "silent",
        node::State::Failed => "failed",
        node::State::Terminated => "terminated",
        node::State::Unspecified => "unknown",
    }
}

fn member_role(member: &api::Member) -> &'static str {
    match member.role() {
        member::Role::InSync => "in_sync",
        member::Role::Joining => "joining",
        member::Role::Unspecified => "unknown",
    }
}

/// Whether a group has all its replicas and serves.
pub(super) fn is_in_sync(group: &api::Group) -> bool {
    let in_sync = group.members.iter().filter(|member| member.role() == member::Role::InSync).count();
    in_sync >= replicas_of(group) && in_sync == group.members.len() && !group.frozen
}

impl HostView {
    fn of(node: &api::Node, groups: &[api::Group], fillings: &[(u32, Filling)]) -> Self {
        Self {
            filling: FillingView::of(fillings, &node.name),
            draining: node.draining,
            slow: node.slow,
            groups: groups
                .iter()
                .filter(|group| group.members.iter().any(|member| member.node == node.node))
                .count(),
            name: node.name.clone(),
            node: node.node,
            roles: node.roles.clone(),
            zone: node.zone.clone(),
            state: node_state(node),
            address: node.data_addr.clone(),
            devices: devices_of(node, groups),
            broken_devices: node.broken_devices.clone(),
            bytes_total: node.bytes_total,
            bytes_free: node.bytes_free,
            last_heard_ms: node.last_heard_ms,
            counters: node.counters.iter().map(|counter| (counter.name.clone(), counter.value)).collect(),
        }
    }
}

fn hosts_of(status: &StatusResponse) -> Vec<HostView> {
    let nodes = status.map.as_ref().map_or(&[][..], |map| &map.nodes);
    let groups = status.map.as_ref().map_or(&[][..], |map| &map.groups);
    let fillings = Filling::all(status);
    let mut hosts: Vec<_> = nodes.iter().map(|node| HostView::of(node, groups, &fillings)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

/// The devices of a host, in the order of its configuration; those that it did not mount come last.
pub(super) fn devices_of(node: &api::Node, groups: &[api::Group]) -> Vec<DeviceView> {
    let mut devices: Vec<_> =
        node.devices.iter().map(|device| DeviceView::of(device, node.node, groups)).collect();
    devices.sort_by_key(|device| (device.place.is_none(), device.place));
    devices
}

/// A row for each device of hosts given by name, devices and places of devices that were not mounted; empty when every
/// host is one device that serves.
pub(super) fn devices_table<'a>(
    hosts: impl Iterator<Item = (&'a str, &'a [DeviceView], &'a [u32])> + Clone,
) -> String {
    let plain = |(_, devices, broken): (&str, &[DeviceView], &[u32])| {
        broken.is_empty()
            && devices.len() <= 1
            && devices.iter().all(|device| device.state == "serving" && !device.slow)
    };
    if hosts.clone().all(plain) {
        return String::new();
    }
    let mut rows = Vec::new();
    for (name, devices, broken) in hosts {
        for device in devices {
            rows.push([
                name.to_owned(),
                device.place.map_or_else(String::new, |place| place.to_string()),
                device.device.clone(),
                format!("{}{}", device.state, if device.slow { ", slow" } else { "" }),
                device.groups.to_string(),
                output::bytes(device.bytes_total),
                if device.state == "serving" { output::bytes(device.bytes_free) } else { String::new() },
                device.write_median_us.map_or_else(String::new, millis),
            ]);
        }
        rows.extend(broken.iter().map(|place| {
            let none = String::new;
            let not_mounted = "not mounted".to_owned();
            [name.to_owned(), place.to_string(), none(), not_mounted, none(), none(), none(), none()]
        }));
    }
    let heading = ["HOST", "PLACE", "DEVICE", "STATE", "GROUPS", "SIZE", "FREE", "WRITES"];
    format!("\n{}", output::table(heading, &[1, 4, 5, 6, 7], &rows))
}

/// The median time of a device's writes.
fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

fn devices(hosts: &[HostView]) -> impl Iterator<Item = (&str, &[DeviceView], &[u32])> + Clone {
    hosts.iter().map(|host| (host.name.as_str(), &host.devices[..], &host.broken_devices[..]))
}

fn hosts_table(hosts: &[HostView]) -> String {
    let rows: Vec<_> = hosts
        .iter()
        .map(|host| {
            let doing = match (host.draining, host.groups) {
                (false, _) => "",
                (true, 0) => ", drained",
                (true, _) => ", draining",
            };
            let pace = if host.slow { ", slow" } else { "" };
            let space = |count| if host.bytes_total == 0 { String::new() } else { output::bytes(count) };
            [
                host.name.clone(),
                host.node.to_string(),
                host.roles.join(","),
                format!("{}{doing}{pace}", host.state),
                host.groups.to_string(),
                host.zone.clone(),
                host.address.clone(),
                space(host.bytes_total),
                space(host.bytes_free),
                host.filling.as_ref().map_or_else(String::new, FillingView::text),
            ]
        })
        .collect();
    let heading = ["HOST", "NODE", "ROLES", "STATE", "GROUPS", "ZONE", "ADDRESS", "SIZE", "FREE", "FILLING"];
    output::table(heading, &[1, 4, 7, 8], &rows)
}

impl HostsView {
    pub(super) fn of(status: &StatusResponse) -> Self {
        Self { hosts: hosts_of(status) }
    }

    pub(super) fn text(&self) -> String {
        hosts_table(&self.hosts) + &devices_table(devices(&self.hosts))
    }
}

impl StatusView {
    pub(super) fn of(status: &StatusResponse, region: &Region) -> Self {
        let name = |id: u64| region.controllers.iter().find(|controller| controller.id == id);
        let groups = status.map.as_ref().map_or(&[][..], |map| &map.groups);
        Self {
            controllers: status
                .controllers
                .iter()
                .map(|controller| ControllerView {
                    id: controller.id,
                    name: name(controller.id).map_or_else(String::new, |known| known.name.clone()),
                    address: controller.addr.clone(),
                    reachable: controller.reachable,
                })
                .collect(),
            raft: status
                .raft
                .iter()
                .map(|raft| RaftView {
                    name: raft.name.clone(),
                    leader: raft.leader,
                    term: raft.term,
                    committed: raft.committed,
                    applied: raft.applied,
                })
                .collect(),
            hosts: hosts_of(status),
            groups_in_sync: groups.iter().filter(|group| is_in_sync(group)).count(),
            groups_total: groups.len(),
            groups: groups
                .iter()
                .map(|group| GroupView {
                    group: group.group,
                    epoch: group.epoch,
                    primary: group.primary,
                    frozen: group.frozen,
                    in_sync: is_in_sync(group),
                    replicas: replicas_of(group),
                    members: group
                        .members
                        .iter()
                        .map(|member| MemberView {
                            node: member.node,
                            incarnation: member.incarnation,
                            role: member_role(member),
                        })
                        .collect(),
                })
                .collect(),
            collection: CollectionView::of(&status.collection.unwrap_or_default()),
            notes: status.notes.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let controllers: Vec<_> = self
            .controllers
            .iter()
            .map(|controller| {
                let leads: Vec<_> = self
                    .raft
                    .iter()
                    .filter(|raft| raft.leader == controller.id)
                    .map(|raft| raft.name.as_str())
                    .collect();
                let reachable = if controller.reachable { "reachable" } else { "not reachable" };
                [controller.name.clone(), controller.address.clone(), reachable.to_owned(), leads.join(", ")]
            })
            .collect();
        text.push_str(&output::table(["CONTROLLER", "ADDRESS", "STATE", "LEADS"], &[], &controllers));
        text.push('\n');
        text.push_str(&hosts_table(&self.hosts));
        text.push_str(&devices_table(devices(&self.hosts)));
        text.push('\n');
        let host = |node: u64| {
            let known = self.hosts.iter().find(|host| host.node == node);
            known.map_or_else(|| format!("node {node}"), |host| host.name.clone())
        };
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let members: Vec<_> = group
                    .members
                    .iter()
                    .map(|member| match member.role {
                        "in_sync" => host(member.node),
                        role => format!("{} ({role})", host(member.node)),
                    })
                    .collect();
                let in_sync = group.members.iter().filter(|member| member.role == "in_sync").count();
                let state = match (group.frozen, group.in_sync) {
                    (true, _) => "frozen",
                    (false, true) => "in sync",
                    (false, false) if in_sync >= group.replicas => "moving",
                    (false, false) => "degraded",
                };
                let primary = if group.primary == 0 { String::new() } else { host(group.primary) };
                [
                    group.group.to_string(),
                    group.epoch.to_string(),
                    format!("{in_sync} of {}", group.replicas),
                    state.to_owned(),
                    primary,
                    members.join(" "),
                ]
            })
            .collect();
        text.push_str(&output::table(
            ["GROUP", "EPOCH", "IN SYNC", "STATE", "PRIMARY", "MEMBERS"],
            &[0, 1],
            &groups,
        ));
        writeln!(text, "\n{} of {} groups are in sync", self.groups_in_sync, self.groups_total)
            .expect("writing to a String does not fail");
        writeln!(text, "{}", self.collection.text()).expect("writing to a String does not fail");
        for note in &self.notes {
            writeln!(text, "note: {note}").expect("writing to a String does not fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dev::region::tests::region_in;

    #[test]
    fn a_drained_host_is_said_to_hold_nothing_and_to_serve_its_own_programs() {
        let view = |groups_left| DrainView { host: "compute-1".into(), draining: true, groups_left };
        let drained = view(0).text();
        assert!(drained.contains("holds no replicas") && drained.contains("end them first"), "{drained}");
        assert!(view(3).text().contains("replicas of 3 groups move"));
    }

    fn status() -> StatusResponse {
        let member = |node, role: member::Role| api::Member { node, incarnation: 7, role: role.into() };
        let nodes = vec![api::Node {
            node: 4,
            name: "storage-1".into(),
            roles: vec!["storage".into()],
            state: node::State::Ready.into(),
            devices: vec![api::Device {
                device: vec![0xab; 16].into(),
                incarnation: 7,
                bytes_total: 1 << 30,
                bytes_free: 1 << 29,
                state: device::State::Serving.into(),
                place: Some(0),
                ..api::Device::default()
            }],
            bytes_total: 1 << 30,
            bytes_free: 1 << 29,
            counters: vec![api::Counter { name: "pages_repaired".into(), value: 7 }],
            ..api::Node::default()
        }];
        let members = vec![member(4, member::Role::InSync), member(5, member::Role::Joining)];
        let groups = vec![api::Group {
            group: 1,
            epoch: 3,
            primary: 4,
            members,
            frozen: true,
            ..api::Group::default()
        }];
        StatusResponse {
            map: Some(api::ClusterMap { nodes, groups, ..api::ClusterMap::default() }),
            controllers: vec![api::Controller { id: 1, addr: "127.0.0.1:7401".into(), reachable: true }],
            raft: vec![api::RaftGroup { name: "files".into(), leader: 1, term: 2, committed: 9, applied: 8 }],
            notes: vec!["a group is frozen".into()],
            collection: Some(api::Collection {
                blocks_waiting: 3,
                blocks: 20,
                bytes: 5 << 20,
                full_pass_ms: 951_782_399_000,
                full_pass_running: false,
            }),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn the_json_of_the_cluster_has_the_keys_that_scripts_read() {
        let json = serde_json::to_value(StatusView::of(&status(), &region_in(Path::new("/r")))).unwrap();
        assert_eq!(json["controllers"][0]["name"], "controller-1");
        assert_eq!(json["raft"][0]["leader"], 1);
        assert_eq!(json["hosts"][0]["counters"]["pages_repaired"], 7);
        assert_eq!(json["hosts"][0]["state"], "ready");
        assert_eq!(json["hosts"][0]["devices"][0]["device"], "ab".repeat(16));
        assert_eq!(json["hosts"][0]["devices"][0]["groups"], 1);
        assert_eq!(json["groups"][0]["members"][1]["role"], "joining");
        assert_eq!(json["groups"][0]["frozen"], true);
        assert_eq!((&json["groups_in_sync"], &json["groups_total"]), (&0.into(), &1.into()));
        assert_eq!(json["collection"]["blocks_waiting"], 3);
        assert_eq!(json["collection"]["bytes_collected"], 5 << 20);
        assert_eq!(json["notes"][0], "a group is frozen");
    }

    #[test]
    fn devices_are_listed_where_a_host_has_several_or_one_does_not_serve() {
        let mut status = status();
        assert!(!HostsView::of(&status).text().contains("PLACE"), "one device is the host");
        let node = &mut status.map.as_mut().unwrap().nodes[0];
        node.broken_devices = vec![2];
        let absent = api::Device {
            device: vec![0xcd; 16].into(),
            incarnation: 8,
            bytes_total: 1 << 30,
            state: device::State::Absent.into(),
            ..api::Device::default()
        };
        node.devices.insert(0, absent);
        let text = HostsView::of(&status).text();
        let row =
            |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).map(str::to_owned);
        let devices: Vec<_> = text.lines().skip_while(|line| !line.contains("PLACE")).skip(1).collect();
        assert_eq!(devices.len(), 3, "{text}");
        assert!(devices[0].contains(&"ab".repeat(16)) && devices[0].contains("serving"), "{text}");
        assert!(devices[1].contains(&"cd".repeat(16)) && devices[1].contains("absent"), "{text}");
        assert!(devices[2].contains("not mounted") && row("HOST").is_some(), "{text}");
        let json = serde_json::to_value(HostsView::of(&status)).unwrap();
        assert_eq!(json["hosts"][0]["broken_devices"][0], 2);
        assert_eq!(json["hosts"][0]["devices"][1]["place"], serde_json::Value::Null);
    }

    #[test]
    fn a_drain_is_shown_until_nothing_is_left() {
        let mut status = status();
        status.map.as_mut().unwrap().nodes[0].draining = true;
        assert!(
            HostsView::of(&status).text().contains("ready, draining"),
            "{}",
            HostsView::of(&status).text()
        );
        let found = replicas_on(&status, "storage-1").unwrap();
        assert_eq!((found.draining, found.groups), (true, 1));
        status.map.as_mut().unwrap().groups.clear();
        assert!(HostsView::of(&status).text().contains("ready, drained"));
        assert!(replicas_on(&status, "storage-9").is_none());
    }

    #[test]
    fn what_a_host_is_filled_with_is_shown_with_pace_and_time_left() {
        let mut status = status();
        let fill = |group, units_done, units_total| api::Fill {
            group,
            node: 4,
            units_done,
            units_total,
            units_per_second: 2.0,
            ..api::Fill::default()
        };
        status.fills = vec![fill(1, 30, 40), fill(2, 10, 50)];
        let text = HostsView::of(&status).text();
        assert!(text.contains("2 groups: 40 of 90 units, 4/s, 20 s left"), "{text}");
        // A group that was never counted has no end.
        status.fills[0].units_total = 0;
        let view = HostsView::of(&status);
        let filling = view.hosts[0].filling.as_ref().unwrap();
        assert_eq!((filling.units_total, filling.eta_seconds), (0, None));
        status.fills.clear();
        assert_eq!(HostsView::of(&status).hosts[0].filling, None);
    }

    #[test]
    fn the_text_names_hosts_and_leaders() {
        let text = StatusView::of(&status(), &region_in(Path::new("/r"))).text();
        assert!(text.contains("controller-1  127.0.0.1:7401  reachable  files"), "{text}");
        assert!(text.contains("frozen  storage-1  storage-1 node 5 (joining)"), "{text}");
        assert!(
            text.contains(
                "0 of 1 groups are in sync\ncollection: 20 blocks (5.00 MiB on each member) collected"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_text_tells_how_collection_stands() {
        let mut collection = status().collection.unwrap();
        let text = |collection: &api::Collection| CollectionView::of(collection).text();
        assert!(text(&collection).ends_with("3 ids wait, last full pass 2000-02-28 23:59:59 UTC"));
        collection.full_pass_ms = 0;
        assert!(text(&collection).ends_with("no full pass yet"));
        collection.full_pass_running = true;
        assert!(text(&collection).ends_with("a full pass is under way"));
    }

    #[test]
    fn only_all_its_replicas_in_sync_make_a_group_whole() {
        let member = |role: member::Role| api::Member { role: role.into(), ..api::Member::default() };
        let group = |roles: &[member::Role], frozen| api::Group {
            members: roles.iter().copied().map(member).collect(),
            frozen,
            ..api::Group::default()
        };
        use member::Role::{InSync, Joining};
        assert!(is_in_sync(&group(&[InSync; 3], false)));
        assert!(!is_in_sync(&group(&[InSync; 2], false)));
        assert!(!is_in_sync(&group(&[InSync, InSync, InSync, Joining], false)));
        assert!(!is_in_sync(&group(&[InSync; 3], true)));
        for (members, replicas) in [(2, 2), (4, 4), (5, 5)] {
            let of = |members| api::Group { replicas, ..group(&vec![InSync; members], false) };
            assert!(is_in_sync(&of(members)) && !is_in_sync(&of(members - 1)), "{replicas} replicas");
        }
    }
}
