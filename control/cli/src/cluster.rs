//! `nova cluster` and `nova node`: the region as its controllers see it.

mod client;
mod device;
mod health;
mod view;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Subcommand;
use nova_api::cluster::check_reply::Reply;
use nova_api::cluster::{DrainRequest, ForgetDeviceRequest, StatusResponse};
use nova_units::Replicas;

use crate::arguments::Global;
use crate::dev::region::Region;
use crate::exit::{Kind, Stop};
use crate::output;
use crate::progress::Meter;

pub(crate) use client::Controllers;
pub(crate) use device::DeviceCommand;
use health::HealthView;
use view::{DrainView, ForgetView, HostsView, StatusView, node_state};

/// How long a person waits for an answer while controllers elect a leader.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one look at a region that starts may take.
const GLANCE: Duration = Duration::from_secs(2);
/// Between two looks at a drain.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A drain of which nothing was seen for so long is asked for once more: it is refused when it cannot go on.
const DRAIN_STILL: Duration = Duration::from_secs(30);

/// Commands over the whole cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show controllers, Raft groups, hosts and replica groups, and what needs attention.
    #[command(
        after_help = "Examples:\n  nova cluster status\n  nova --json cluster status | jq .groups_in_sync"
    )]
    Status,
}

/// Commands over hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the hosts with their state and space.
    #[command(after_help = "Examples:\n  nova node ls\n  nova node ls --watch        again every second\n  \
                      nova --json node ls | jq '.hosts[].state'")]
    Ls {
        /// Look again every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Move everything that a storage host keeps to other hosts, so that it can be switched off.
    #[command(
        after_help = "Needs as many other storage hosts as the blocks on it have copies: three, where no namespace says \
                      otherwise. Every block has all its copies all the while; the host serves until the last of its \
                      replicas has been copied.\n\n\
                      Examples:\n  nova node drain storage-2\n  nova node drain storage-2 --wait   until it is empty"
    )]
    Drain {
        /// The host.
        host: String,
        /// Wait until it is empty.
        #[arg(long)]
        wait: bool,
    },
    /// Forget a device that failed or is gone, after it was replaced.
    #[command(
        after_help = "Refused while the device serves, or while a group may still need what is on it. Should it turn up \
                      again, it is a new device and starts empty. `nova node device replace` does this at its end.\n\n\
                      Examples:\n  \
                      nova node ls                                   the id of the device that is absent or failed\n  \
                      nova node forget storage-2 0123456789abcdef0123456789abcdef"
    )]
    Forget {
        /// Its host.
        host: String,
        /// Its id, 32 hexadecimal digits.
        device: String,
    },
    /// Open, close and replace devices of a host while it runs.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Let a host that was drained, or is being drained, hold replicas again.
    #[command(after_help = "Example:\n  nova node undrain storage-2")]
    Undrain {
        /// The host.
        host: String,
    },
}

/// How many members a group has when it is whole; Spec 3.2 where the controllers do not say.
pub(crate) fn replicas_of(group: &nova_api::cluster::Group) -> usize {
    Replicas::new(group.replicas).unwrap_or_default().count()
}

/// Carries out a command.
pub(crate) fn run(global: &Global, command: Command) -> anyhow::Result<()> {
    let Command::Status = command;
    let region = Region::load(&global.region_folder()?)?;
    let status = ask(&region, PATIENCE)?;
    output::print(global.json, &StatusView::of(&status, &region), StatusView::text)
}

/// Carries out a command over hosts.
pub(crate) fn run_node(global: &Global, command: NodeCommand) -> anyhow::Result<()> {
    let region = Region::load(&global.region_folder()?)?;
    match command {
        NodeCommand::Ls { watch } => loop {
            let status = ask(&region, PATIENCE)?;
            output::print(global.json, &HostsView::of(&status), HostsView::text)?;
            if !watch {
                return Ok(());
            }
            std::thread::sleep(WATCH_EVERY);
        },
        NodeCommand::Drain { host, wait } => drain(global, &region, host, wait),
        NodeCommand::Forget { host, device } => {
            let id = device_id(&device)?;
            let request =
                ForgetDeviceRequest { name: host.clone(), device: id.to_be_bytes().to_vec().into() };
            Controllers::of(&region)?.forget_device(&request, PATIENCE)?;
            output::print(global.json, &ForgetView { host, device }, ForgetView::text)
        }
        NodeCommand::Device(command) => device::run(global, &region, command),
        NodeCommand::Undrain { host } => {
            let request = DrainRequest { name: host.clone(), undrain: true };
            let answer = Controllers::of(&region)?.drain(&request, PATIENCE)?;
            let view = DrainView { host, draining: false, groups_left: answer.groups };
            output::print(global.json, &view, DrainView::text)
        }
    }
}

/// 32 hexadecimal digits, as `nova node ls` shows them.
fn device_id(text: &str) -> anyhow::Result<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or_else(|| {
        let why = format!("{text:?} is no device id: 32 hexadecimal digits, as `nova node ls` shows them");
        Stop::new(Kind::Usage, why).into()
    })
}

fn drain(global: &Global, region: &Region, host: String, wait: bool) -> anyhow::Result<()> {
    let mut controllers = Controllers::of(region)?;
    let request = DrainRequest { name: host.clone(), undrain: false };
    let mut left = controllers.drain(&request, PATIENCE)?.groups;
    if wait {
        let mut meter = Meter::steps(global.progress);
        let mut moved = Instant::now();
        while left > 0 {
            if moved.elapsed() >= DRAIN_STILL {
                let what = format!("replicas of {left} groups are still on {host}, which stays drained");
                controllers.drain(&request, PATIENCE).context(what)?;
                moved = Instant::now();
            }
            meter.say(format!("replicas of {left} groups are still on {host}"));
            std::thread::sleep(WATCH_EVERY);
            let status = controllers.status(PATIENCE)?;
            let Some(now) = view::replicas_on(&status, &host) else { break };
            if !now.draining {
                return Err(Stop::new(Kind::Failed, format!("the drain of {host} was taken back")).into());
            }
            if now.groups < left {
                moved = Instant::now();
            }
            left = now.groups;
        }
    }
    output::print(global.json, &DrainView { host, draining: true, groups_left: left }, DrainView::text)
}

/// Carries out `nova fs health`: prints what is known of all copies; an error when something is at risk.
pub(crate) fn health(global: &Global) -> anyhow::Result<()> {
    let region = Region::load(&global.region_folder()?)?;
    let view = HealthView::of(&Controllers::of(&region)?.status_with_stored(PATIENCE)?);
    output::print(global.json, &view, HealthView::text)?;
    if view.at_risk {
        return Err(Stop::new(Kind::Failed, view.reasons.join("; ")).into());
    }
    Ok(())
}

fn ask(region: &Region, patience: Duration) -> anyhow::Result<StatusResponse> {
    Controllers::of(region)?.status(patience)
}

/// Compares the file metadata of the region with what its hosts store.
pub(crate) fn check(region: &Region, each: impl FnMut(Reply)) -> anyhow::Result<()> {
    Controllers::of(region)?.check(PATIENCE, each)
}

/// Id of the controller that leads a Raft group, when one does.
pub(crate) fn leader_of(region: &Region, group: &str) -> anyhow::Result<Option<u64>> {
    let status = ask(region, PATIENCE)?;
    let leader = status.raft.iter().find(|raft| raft.name == group).map(|raft| raft.leader);
    Ok(leader.filter(|id| *id != 0))
}

/// The hosts of the region by node id: name and device, for whoever shows places on them.
pub(crate) fn map_of(region: &Region) -> anyhow::Result<nova_api::cluster::ClusterMap> {
    Ok(ask(region, PATIENCE)?.map.unwrap_or_default())
}

/// Whether a region serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Every host is ready and every group whole.
    Ready,
    /// What is missing, in words.
    Waiting(String),
}

/// Looks at a region that starts.
pub(crate) struct Watch<'a> {
    region: &'a Region,
    controllers: Controllers,
}

impl<'a> Watch<'a> {
    /// For the region that was laid out.
    pub(crate) fn new(region: &'a Region) -> anyhow::Result<Self> {
        Ok(Self { region, controllers: Controllers::of(region)? })
    }

    /// How far it is now. Takes up to [`GLANCE`].
    pub(crate) fn readiness(&mut self) -> Readiness {
        match self.controllers.status(GLANCE) {
            Ok(status) => judge(&status, self.region),
            // The last obstacle is worth showing; what leads to it is the same each time.
            Err(error) => Readiness::Waiting(format!("waiting for the controllers: {}", error.root_cause())),
        }
    }
}

fn judge(status: &StatusResponse, region: &Region) -> Readiness {
    let nodes = status.map.as_ref().map_or(&[][..], |map| &map.nodes);
    let not_ready: Vec<_> = region
        .hosts
        .iter()
        .map(|host| host.name.as_str())
        .filter(|name| !nodes.iter().any(|node| node.name == *name && node_state(node) == "ready"))
        .collect();
    if !not_ready.is_empty() {
        return Readiness::Waiting(format!("waiting for {}", not_ready.join(", ")));
    }
    let groups = status.map.as_ref().map_or(&[][..], |map| &map.groups);
    let whole = groups.iter().filter(|group| view::is_in_sync(group)).count();
    if groups.is_empty() || whole < groups.len() {
        return Readiness::Waiting(format!(
            "waiting for replica groups: {whole} of {} are in sync",
            groups.len()
        ));
    }
    if status.raft.is_empty() || status.raft.iter().any(|raft| raft.leader == 0) {
        return Readiness::Waiting("waiting for the controllers to elect leaders".into());
    }
    Readiness::Ready
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nova_api::cluster::{ClusterMap, Group, Member, Node, RaftGroup, member, node};

    use super::*;
    use crate::dev::region::tests::region_in;

    fn waiting(status: &StatusResponse) -> String {
        match judge(status, &region_in(Path::new("/r"))) {
            Readiness::Waiting(missing) => missing,
            Readiness::Ready => "nothing".into(),
        }
    }

    #[test]
    fn a_region_is_ready_when_hosts_groups_and_leaders_are() {
        let node = |name: &str, state: node::State| Node {
            name: name.into(),
            state: state.into(),
            ..Node::default()
        };
        let member = |role: member::Role| Member { role: role.into(), ..Member::default() };
        let mut status = StatusResponse {
            map: Some(ClusterMap {
                nodes: vec![
                    node("storage-1", node::State::Ready),
                    node("compute-1", node::State::Initializing),
                ],
                ..ClusterMap::default()
            }),
            ..StatusResponse::default()
        };
        assert_eq!(waiting(&status), "waiting for compute-1");
        let map = status.map.as_mut().unwrap();
        map.nodes[1].state = node::State::Ready.into();
        assert_eq!(waiting(&status), "waiting for replica groups: 0 of 0 are in sync");
        let map = status.map.as_mut().unwrap();
        let in_sync = || member(member::Role::InSync);
        map.groups.push(Group { primary: 1, members: vec![in_sync(), in_sync()], ..Group::default() });
        assert_eq!(waiting(&status), "waiting for replica groups: 0 of 1 are in sync");
        let map = status.map.as_mut().unwrap();
        map.groups[0].members.push(in_sync());
        status.raft.push(RaftGroup { name: "files".into(), leader: 0, ..RaftGroup::default() });
        assert!(waiting(&status).contains("elect"));
        status.raft[0].leader = 2;
        assert_eq!(waiting(&status), "nothing");
    }
}
