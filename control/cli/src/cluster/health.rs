//! `nova fs health`: what is known of the copies of everything, and whether any of it is at risk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use nova_api::cluster::{self as api, StatusResponse, member};
use serde::Serialize;

use super::replicas_of;
use super::view::{DeviceView, devices_of, devices_table, node_state};
use crate::output;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct HealthView {
    /// Something has fewer intact copies than it should have; the command ends with code 1 then.
    pub(super) at_risk: bool,
    /// Blocks of files with fewer intact copies than they should have.
    blocks_at_risk: u64,
    groups_degraded: usize,
    groups_total: usize,
    bad_units: u64,
    /// Of these: no host that could be asked has a good copy.
    lost_units: u64,
    /// Which, with the files they are of; some, when there are many.
    lost: Vec<Lost>,
    disputed_units: u64,
    /// The longest time for which something was neither written nor verified; null when something never was in full.
    oldest_verification_seconds: Option<u64>,
    hosts: Vec<HostHealth>,
    groups: Vec<GroupHealth>,
    /// What is at risk, in words.
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HostHealth {
    name: String,
    state: &'static str,
    draining: bool,
    slow: bool,
    /// Groups with a replica on it.
    groups: usize,
    devices: Vec<DeviceView>,
    /// Places in novad's configuration of devices that it could not mount.
    broken_devices: Vec<u32>,
    /// By scrub, since novad started.
    bytes_verified: u64,
    units_verified: u64,
    passes: u64,
    /// Since when the pass under way runs, ms since 1970; 0 when none is.
    pass_began_ms: u64,
    /// Everything older was verified since then; 0 when the device was never gone over as a whole.
    verified_since_ms: u64,
    verification_age_seconds: Option<u64>,
    bad_units: u64,
    disputed_units: u64,
    /// Of the bad ones: no host that could be asked has a good copy.
    lost_units: u64,
    damaged_groups: usize,
    /// Times a read or the scrub found a bad copy, since novad started.
    errors_found: u64,
    /// Copies written anew, since novad started.
    repaired: u64,
    differences_found: u64,
    differences_settled: u64,
    metadata_rewritten: u64,
    units_backfilled: u64,
    /// Half of the entries of its last measured window were durable within this time; 0 before the first.
    write_median_us: u64,
    /// All but one in a hundred were.
    write_p99_us: u64,
}

#[derive(Debug, Serialize)]
struct GroupHealth {
    group: u32,
    in_sync: usize,
    wanted: usize,
    /// Blocks of files in it, by their metadata.
    blocks: u64,
    /// Their bytes, once.
    bytes: u64,
    /// As the scrub of its members last counted them; 0 before that.
    units: u64,
    blocks_at_risk: u64,
    bad_units: u64,
    disputed_units: u64,
    /// The oldest of its members in sync; null when one was never verified in full.
    verification_age_seconds: Option<u64>,
    /// The member that is being filled, if one is.
    filling: Option<Filling>,
}

/// How a joining member is filled.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Filling {
    pub(super) host: String,
    pub(super) units_done: u64,
    /// As the others last counted them; 0 when they did not yet.
    pub(super) units_total: u64,
    pub(super) units_per_second: f64,
    /// At the present pace; null when nothing tells.
    pub(super) eta_seconds: Option<u64>,
    /// Since when it got no further.
    idle_seconds: u64,
    /// That is too long: another host gets its place if there is one.
    stalled: bool,
    /// The last unit that was stored.
    block: u64,
    unit: u32,
}

impl Filling {
    fn of(fill: &api::Fill, nodes: &[api::Node]) -> Self {
        let left = fill.units_total.saturating_sub(fill.units_done);
        #[expect(clippy::cast_precision_loss, reason = "an estimate is for people")]
        let seconds = left as f64 / fill.units_per_second;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was looked at before"
        )]
        let eta_seconds = (fill.units_total > 0 && seconds.is_finite()).then_some(seconds as u64);
        Self {
            host: name_of(nodes, fill.node),
            units_done: fill.units_done,
            units_total: fill.units_total,
            units_per_second: fill.units_per_second,
            eta_seconds,
            idle_seconds: fill.idle_ms / 1000,
            stalled: fill.stalled,
            block: fill.block,
            unit: fill.unit,
        }
    }

    /// Every filling of a region.
    pub(super) fn all(status: &StatusResponse) -> Vec<(u32, Self)> {
        let nodes = status.map.as_ref().map_or(&[][..], |map| &map.nodes);
        status.fills.iter().map(|fill| (fill.group, Self::of(fill, nodes))).collect()
    }

    fn text(&self) -> String {
        let Self { host, units_done: done, units_total: total, .. } = self;
        let mut text = match total {
            0 => format!("{host}: {done} units"),
            total => format!("{host}: {done} of about {total} units"),
        };
        if self.stalled {
            write!(text, ", no further for {}", duration(self.idle_seconds))
        } else if let Some(left) = self.eta_seconds {
            write!(text, ", {:.0}/s, about {} left", self.units_per_second, duration(left))
        } else {
            write!(text, ", {:.0}/s", self.units_per_second)
        }
        .expect("writing to a String does not fail");
        text
    }
}

/// A unit of which no host in reach has a good copy.
#[derive(Debug, Serialize)]
struct Lost {
    group: u32,
    block: u64,
    unit: u32,
    /// Null when the block is in no file.
    inode: Option<u64>,
    /// Where the file is; null when it is in the trash or in none.
    path: Option<String>,
}

impl Lost {
    fn of(unit: &api::LostUnit) -> Self {
        Self {
            group: unit.group,
            block: unit.block,
            unit: unit.unit,
            inode: (unit.inode != 0).then_some(unit.inode),
            path: (!unit.path.is_empty()).then(|| unit.path.clone()),
        }
    }

    fn text(&self) -> String {
        let of = match (&self.path, self.inode) {
            (Some(path), _) => format!("of {path}"),
            (None, Some(inode)) => format!("of inode {inode}"),
            (None, None) => "of no file".to_owned(),
        };
        format!(
            "unit {} of block {} in group {}, {of}, has no good copy on any host in reach",
            self.unit, self.block, self.group
        )
    }
}

fn name_of(nodes: &[api::Node], number: u64) -> String {
    let known = nodes.iter().find(|node| node.node == number);
    known.map_or_else(|| format!("node {number}"), |node| node.name.clone())
}

/// Time since a moment of the calendar; `None` for never.
fn age(since_ms: u64, now_ms: u64) -> Option<u64> {
    (since_ms != 0).then(|| now_ms.saturating_sub(since_ms) / 1000)
}

/// The longest, when all are known.
fn oldest(ages: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    ages.collect::<Option<Vec<_>>>().and_then(|ages| ages.into_iter().max())
}

impl HealthView {
    pub(super) fn of(status: &StatusResponse) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::at(status, u64::try_from(now).unwrap_or(u64::MAX))
    }

    fn at(status: &StatusResponse, now_ms: u64) -> Self {
        let nodes = status.map.as_ref().map_or(&[][..], |map| &map.nodes);
        let groups = status.map.as_ref().map_or(&[][..], |map| &map.groups);
        let mut hosts: Vec<HostHealth> = nodes
            .iter()
            .filter(|node| node.roles.iter().any(|role| role == "storage"))
            .map(|node| host_health(node, groups, now_ms))
            .collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let fillings = Filling::all(status);
        let groups: Vec<GroupHealth> = groups
            .iter()
            .map(|group| {
                let stored = status.stored.iter().find(|stored| stored.group == group.group);
                group_health(group, nodes, &fillings, stored, now_ms)
            })
            .collect();
        let lost: Vec<Lost> = status.lost.iter().map(Lost::of).collect();
        let degraded: Vec<&GroupHealth> =
            groups.iter().filter(|group| group.in_sync < group.wanted).collect();
        let (bad_units, disputed_units) = (
            hosts.iter().map(|host| host.bad_units).sum(),
            hosts.iter().map(|host| host.disputed_units).sum(),
        );
        let mut reasons = Vec::new();
        if !degraded.is_empty() {
            let blocks: u64 = degraded.iter().map(|group| group.blocks).sum();
            reasons.push(format!(
                "{} of {} groups have fewer members in sync than they should ({blocks} blocks of files in them)",
                degraded.len(),
                groups.len()
            ));
        }
        reasons.extend(lost.iter().map(Lost::text));
        for group in degraded.iter().filter(|group| group.filling.as_ref().is_some_and(|it| it.stalled)) {
            let filling = group.filling.as_ref().expect("it was just looked at");
            reasons.push(format!("group {} is not filled: {}", group.group, filling.text()));
        }
        for host in &hosts {
            if host.bad_units > 0 {
                reasons.push(format!(
                    "{} has {} bad copies that are not repaired yet",
                    host.name, host.bad_units
                ));
            }
            if host.disputed_units > 0 {
                reasons.push(format!(
                    "{} and its peers hold {} units differently, and their log does not say who is right",
                    host.name, host.disputed_units
                ));
            }
            if host.damaged_groups > 0 {
                reasons.push(format!(
                    "metadata of {} groups is damaged on devices of {}: drain the host and replace the device",
                    host.damaged_groups, host.name
                ));
            }
        }
        Self {
            at_risk: !reasons.is_empty(),
            blocks_at_risk: groups.iter().map(|group| group.blocks_at_risk).sum(),
            groups_degraded: degraded.len(),
            groups_total: groups.len(),
            bad_units,
            lost_units: hosts.iter().map(|host| host.lost_units).max().unwrap_or(0),
            lost,
            disputed_units,
            oldest_verification_seconds: oldest(groups.iter().map(|group| group.verification_age_seconds)),
            hosts,
            groups,
            reasons,
        }
    }

    pub(super) fn text(&self) -> String {
        let age = |seconds: Option<u64>| seconds.map_or_else(|| "never in full".to_owned(), duration);
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                [
                    host.name.clone(),
                    host.groups.to_string(),
                    output::bytes(host.bytes_verified),
                    age(host.verification_age_seconds),
                    host.bad_units.to_string(),
                    host.disputed_units.to_string(),
                    host.errors_found.to_string(),
                    host.repaired.to_string(),
                    if host.slow { "slow".to_owned() } else { String::new() },
                ]
            })
            .collect();
        let heading =
            ["HOST", "GROUPS", "VERIFIED", "ALL SINCE", "BAD NOW", "DISPUTED", "ERRORS", "REPAIRED", "PACE"];
        let mut text = output::table(heading, &[1, 2, 3, 4, 5, 6, 7], &hosts);
        text.push_str(&devices_table(
            self.hosts.iter().map(|host| (host.name.as_str(), &host.devices[..], &host.broken_devices[..])),
        ));
        text.push('\n');
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let filling = group.filling.as_ref().map_or_else(String::new, Filling::text);
                [
                    group.group.to_string(),
                    format!("{} of {}", group.in_sync, group.wanted),
                    group.blocks.to_string(),
                    output::bytes(group.bytes),
                    group.blocks_at_risk.to_string(),
                    age(group.verification_age_seconds),
                    filling,
                ]
            })
            .collect();
        let heading = ["GROUP", "IN SYNC", "BLOCKS", "BYTES", "AT RISK", "ALL VERIFIED SINCE", "FILLING"];
        text.push_str(&output::table(heading, &[0, 1, 2, 3, 4, 5], &groups));
        text.push('\n');
        for reason in &self.reasons {
            writeln!(text, "at risk: {reason}").expect("writing to a String does not fail");
        }
        let verdict = if self.at_risk {
            format!("{} blocks are at risk\n", self.blocks_at_risk)
        } else {
            format!(
                "nothing is at risk; everything was written or verified within {}\n",
                age(self.oldest_verification_seconds)
            )
        };
        text.push_str(&match self.oldest_verification_seconds {
            None if !self.at_risk => "nothing known is at risk; not everything was verified yet\n".to_owned(),
            _ => verdict,
        });
        text
    }
}

fn is_member(group: &api::Group, node: u64) -> bool {
    group.members.iter().any(|member| member.node == node)
}

fn host_health(node: &api::Node, groups: &[api::Group], now_ms: u64) -> HostHealth {
    let counters: BTreeMap<&str, u64> =
        node.counters.iter().map(|counter| (counter.name.as_str(), counter.value)).collect();
    let counter = |name: &str| counters.get(name).copied().unwrap_or(0);
    // What a host says of groups that it has left is old.
    let held = || {
        node.health.iter().filter(|health| {
            groups.iter().any(|group| group.group == health.group && is_member(group, node.node))
        })
    };
    let verified_since_ms = counter("scrub_last_began_ms");
    HostHealth {
        name: node.name.clone(),
        state: node_state(node),
        draining: node.draining,
        slow: node.slow,
        groups: groups.iter().filter(|group| is_member(group, node.node)).count(),
        devices: devices_of(node, groups),
        broken_devices: node.broken_devices.clone(),
        bytes_verified: counter("scrub_bytes"),
        units_verified: counter("scrub_units"),
        passes: counter("scrub_passes"),
        pass_began_ms: counter("scrub_began_ms"),
        verified_since_ms,
        verification_age_seconds: age(verified_since_ms, now_ms),
        bad_units: held().map(|health| u64::from(health.bad_units)).sum(),
        disputed_units: held().map(|health| u64::from(health.disputed_units)).sum(),
        lost_units: held().map(|health| u64::from(health.lost_units)).sum(),
        damaged_groups: held().filter(|health| health.damaged).count(),
        errors_found: counter("pages_bad"),
        repaired: counter("pages_repaired"),
        differences_found: counter("differences_found"),
        differences_settled: counter("differences_settled"),
        metadata_rewritten: counter("metadata_rewritten"),
        units_backfilled: counter("units_backfilled"),
        write_median_us: counter("pace_median_us"),
        write_p99_us: counter("pace_p99_us"),
    }
}

fn group_health(
    group: &api::Group,
    nodes: &[api::Node],
    fillings: &[(u32, Filling)],
    stored: Option<&api::Stored>,
    now_ms: u64,
) -> GroupHealth {
    let said = |member: &api::Member| {
        let node = nodes.iter().find(|node| node.node == member.node)?;
        node.health.iter().find(|health| health.group == group.group)
    };
    let with_role = |role: member::Role| group.members.iter().filter(move |member| member.role() == role);
    let in_sync = with_role(member::Role::InSync).count();
    let known: Vec<&api::GroupHealth> = with_role(member::Role::InSync).filter_map(said).collect();
    let most =
        |count: fn(&api::GroupHealth) -> u64| known.iter().map(|health| count(health)).max().unwrap_or(0);
    let units = most(|health| health.units);
    let (blocks, bytes) = stored.map_or((0, 0), |stored| (stored.blocks, stored.bytes));
    let risky: u64 = known.iter().map(|health| u64::from(health.risky_blocks)).sum();
    let wanted = replicas_of(group);
    let all_at_risk = in_sync < wanted || known.iter().any(|health| health.damaged);
    let filling = fillings.iter().find(|(of, _)| *of == group.group).map(|(_, filling)| filling.clone());
    let ages = with_role(member::Role::InSync)
        .map(|member| said(member).and_then(|health| age(health.verified_since_ms, now_ms)));
    GroupHealth {
        group: group.group,
        in_sync,
        wanted,
        blocks,
        bytes,
        units,
        blocks_at_risk: if all_at_risk { blocks.max(risky) } else { risky },
        bad_units: known.iter().map(|health| u64::from(health.bad_units)).sum(),
        disputed_units: known.iter().map(|health| u64::from(health.disputed_units)).sum(),
        verification_age_seconds: oldest(ages),
        filling,
    }
}

/// A time for people: the two largest parts.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusResponse {
        let member =
            |node, role: member::Role| api::Member { node, role: role.into(), ..api::Member::default() };
        let health = |verified_since_ms| api::GroupHealth {
            group: 1,
            units: 40,
            blocks: 7,
            verified_since_ms,
            ..api::GroupHealth::default()
        };
        let node = |number: u64| api::Node {
            node: number,
            name: format!("storage-{number}"),
            roles: vec!["storage".into()],
            health: vec![health(number * 1000)],
            counters: vec![api::Counter { name: "scrub_last_began_ms".into(), value: number * 1000 }],
            ..api::Node::default()
        };
        let members = (1..=3).map(|number| member(number, member::Role::InSync)).collect();
        let groups = vec![api::Group { group: 1, members, ..api::Group::default() }];
        let map =
            api::ClusterMap { nodes: (1..=3).map(node).collect(), groups, ..api::ClusterMap::default() };
        let stored = vec![api::Stored { group: 1, blocks: 9, bytes: 4096 }];
        StatusResponse { map: Some(map), stored, ..StatusResponse::default() }
    }

    #[test]
    fn a_whole_region_is_not_at_risk_and_as_old_as_its_oldest_copy() {
        let view = HealthView::at(&status(), 61_000);
        assert!(!view.at_risk && view.reasons.is_empty());
        assert_eq!((view.oldest_verification_seconds, view.blocks_at_risk), (Some(60), 0));
        assert!(
            view.text()
                .ends_with("nothing is at risk; everything was written or verified within 1 min 0 s\n")
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["groups"][0]["blocks"], 9);
        assert_eq!(json["hosts"][2]["verification_age_seconds"], 58);
    }

    #[test]
    fn bad_copies_and_missing_members_are_at_risk_and_named() {
        let mut status = status();
        let map = status.map.as_mut().unwrap();
        map.nodes[1].health[0].bad_units = 2;
        map.nodes[1].health[0].risky_blocks = 1;
        let view = HealthView::at(&status, 61_000);
        assert!(view.at_risk && view.reasons[0].contains("storage-2 has 2 bad copies"));
        assert_eq!((view.blocks_at_risk, view.bad_units), (1, 2));

        let map = status.map.as_mut().unwrap();
        map.groups[0].members[2].role = member::Role::Joining.into();
        let fill = api::Fill {
            group: 1,
            node: 3,
            units_done: 12,
            units_total: 40,
            units_per_second: 0.5,
            ..api::Fill::default()
        };
        status.fills.push(fill);
        let view = HealthView::at(&status, 61_000);
        assert_eq!((view.groups_degraded, view.blocks_at_risk), (1, 9));
        let text = view.text();
        assert!(text.contains("storage-3: 12 of about 40 units, 0/s, about 56 s left"), "{text}");
        assert!(text.ends_with("9 blocks are at risk\n"));
        assert_eq!(serde_json::to_value(&view).unwrap()["groups"][0]["filling"]["eta_seconds"], 56);

        status.fills[0].stalled = true;
        (status.fills[0].idle_ms, status.fills[0].units_per_second) = (75_500, 0.0);
        let view = HealthView::at(&status, 61_000);
        let reason = "group 1 is not filled: storage-3: 12 of about 40 units, no further for 1 min 15 s";
        assert!(view.reasons.iter().any(|it| it == reason), "{:?}", view.reasons);
    }

    #[test]
    fn lost_units_are_named_with_the_file_they_are_of() {
        let mut status = status();
        status.map.as_mut().unwrap().nodes[0].health[0].lost_units = 3;
        let unit = api::LostUnit { group: 1, node: 1, block: 77, unit: 4, ..api::LostUnit::default() };
        status.lost.push(api::LostUnit { inode: 9, path: "/kept/file".into(), ..unit.clone() });
        status.lost.push(unit);
        let view = HealthView::at(&status, 61_000);
        assert!(view.at_risk && view.lost_units == 3);
        assert_eq!(
            view.reasons,
            [
                "unit 4 of block 77 in group 1, of /kept/file, has no good copy on any host in reach",
                "unit 4 of block 77 in group 1, of no file, has no good copy on any host in reach",
            ]
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(
            (&json["lost"][0]["path"], &json["lost"][1]["inode"]),
            (&"/kept/file".into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn what_a_host_said_of_a_group_it_left_does_not_count() {
        let mut status = status();
        let map = status.map.as_mut().unwrap();
        map.nodes[0].health.push(api::GroupHealth { group: 9, bad_units: 5, ..api::GroupHealth::default() });
        assert!(!HealthView::at(&status, 61_000).at_risk);
        status.map.as_mut().unwrap().nodes[0].health[0].verified_since_ms = 0;
        let view = HealthView::at(&status, 61_000);
        assert_eq!(view.oldest_verification_seconds, None);
        assert!(view.text().contains("never in full"));
    }
}
