//! The ring to the host's data plane.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nova_api::cluster::{self, host_report::Report};
use nova_ring::abi::{AgentCommand, AgentEvent, PeersHeard};
use nova_ring::handshake::Hello;
use nova_ring::snapshot::{SnapshotError, SnapshotWriter};
use nova_ring::{Kind, LOOK_AGAIN, Link, PushError, SNAPSHOT_BYTES, attach};
use tokio::sync::mpsc;

use crate::map::host_map;
use crate::picture::{Daemon, KeyWants, Picture};
use crate::{blocks, doorbell};

/// Pause before novad is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Holds the ring for as long as the agent lives: attaches, serves, and attaches again when novad starts anew.
pub(crate) async fn attend(socket: PathBuf, picture: Arc<Picture>) {
    let mut commands = picture.take_commands();
    let mut said = String::new();
    loop {
        match attach_to(&socket).await {
            Ok(link) => {
                tracing::info!(socket = %socket.display(), "attached to novad");
                said.clear();
                let why = serve(link, &picture, &mut commands).await;
                picture.daemon.send_replace(Daemon::default());
                picture.key_wants.send_replace(KeyWants::default());
                picture.counters.lock().expect("no holder of this lock panics").clear();
                picture.health.lock().expect("no holder of this lock panics").clear();
                tracing::warn!("novad is gone: {why:#}");
            }
            Err(error) => {
                // Once for each reason: the socket is looked for five times a second.
                let now = format!("{error:#}");
                if now != said {
                    tracing::info!("waiting for novad at {}: {now}", socket.display());
                    said = now;
                }
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn attach_to(socket: &Path) -> anyhow::Result<Link> {
    let socket = socket.to_path_buf();
    // A handshake waits on a socket, for at most two seconds a step.
    let hello = Hello::new(Kind::Agent, [0; 16], 2 * u64::from(SNAPSHOT_BYTES), 0);
    Ok(tokio::task::spawn_blocking(move || attach(&socket, &hello)).await??)
}

/// One attachment: what novad was given, and what still waits.
struct Attached<'picture> {
    link: Link,
    picture: &'picture Picture,
    snapshots: SnapshotWriter,
    /// Term and version of the map that novad has or is being given.
    given: Option<(u64, u64)>,
    /// A command that the ring had no room for.
    unsent: Option<AgentCommand>,
    lists: blocks::Lists,
    /// The list of devices that novad is telling.
    telling: cluster::DevicesMounted,
}

/// Serves an attachment until it ends; answers why.
async fn serve(link: Link, picture: &Picture, commands: &mut mpsc::Receiver<AgentCommand>) -> anyhow::Error {
    match try_serve(link, picture, commands).await {
        Ok(()) => anyhow::anyhow!("it ended"),
        Err(error) => error,
    }
}

async fn try_serve(
    link: Link,
    picture: &Picture,
    commands: &mut mpsc::Receiver<AgentCommand>,
) -> anyhow::Result<()> {
    let bell = doorbell::watch(&link.receiver).context("watch the doorbell")?;
    // What waited was meant for the novad before this one; the picture is given whole instead.
    while commands.try_recv().is_ok() {}
    picture.daemon.send_replace(Daemon { boot: link.terms.boot, ..Daemon::default() });
    let snapshots = SnapshotWriter::new(link.area.clone());
    let lists = blocks::Lists::default();
    let telling = cluster::DevicesMounted::default();
    let mut attached = Attached { link, picture, snapshots, given: None, unsent: None, lists, telling };
    let mut maps = picture.map.subscribe();
    loop {
        while let Some(slot) = attached.link.receiver.pop()? {
            attached.take(AgentEvent::decode(&slot)?);
        }
        attached.read_counters();
        attached.give_map()?;
        attached.send(commands)?;
        if attached.link.socket.is_gone() {
            return Ok(());
        }
        if !attached.link.receiver.prepare_sleep()? {
            continue;
        }
        let command = tokio::select! {
            readable = bell.readable() => {
                readable.context("wait for the doorbell")?.clear_ready();
                None
            }
            changed = maps.changed() => {
                changed.expect("the picture outlives its tasks");
                None
            }
            command = commands.recv(), if attached.unsent.is_none() => command,
            () = tokio::time::sleep(LOOK_AGAIN) => None,
        };
        attached.link.receiver.awake();
        attached.link.receiver.drain_doorbell();
        attached.unsent = attached.unsent.or(command);
    }
}

impl Attached<'_> {
    fn take(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Mounted { device, mount_counter, incarnation, bytes_total, place, trail } => {
                let mounted = cluster::DeviceMounted {
                    device: device.0.to_be_bytes().to_vec().into(),
                    mount_counter,
                    incarnation: incarnation.0,
                    bytes_total,
                    place: u32::from(place),
                    trail: trail.as_slice().iter().map(|mount| mount.0).collect(),
                };
                self.telling.devices.push(mounted);
            }
            AgentEvent::DeviceTrouble { place, words } => {
                let (place, troubles) = (u32::from(place), &mut self.telling.troubles);
                match troubles.last_mut().filter(|trouble| trouble.place == place) {
                    Some(trouble) => trouble.why.push_str(words.as_str()),
                    None => troubles.push(cluster::DeviceTrouble { place, why: words.as_str().into() }),
                }
            }
            AgentEvent::DeviceBroken { place } => {
                tracing::error!(place, "a device of novad does not serve: its log says why");
                self.telling.broken.push(u32::from(place));
            }
            AgentEvent::DevicesOrdered { order } => self.telling.order = order,
            AgentEvent::DevicesTold { mounted, broken } => {
                let told = std::mem::take(&mut self.telling);
                if (told.devices.len(), told.broken.len()) != (usize::from(mounted), usize::from(broken)) {
                    tracing::error!(
                        mounted,
                        broken,
                        "novad told fewer devices than it has; it is asked again"
                    );
                    return self.link.socket.end();
                }
                self.picture.daemon.send_modify(|daemon| daemon.take_devices(told.clone()));
                if daemon_has_devices(&told) {
                    self.picture.report(Report::DevicesMounted(told));
                }
            }
            AgentEvent::Peers { peers } => self.picture.report(Report::Silence(silence(&peers))),
            AgentEvent::DeviceSilent { node, boot, incarnation } => {
                let silent = cluster::DeviceSilent { node: node.0, boot: boot.0, incarnation: incarnation.0 };
                self.picture.report(Report::DeviceSilent(silent));
            }
            AgentEvent::JoinReady { group, epoch, node } => {
                let ready = cluster::JoinReady { group: group.0, epoch: epoch.0, node: node.0 };
                self.picture.report(Report::JoinReady(ready));
            }
            AgentEvent::DeviceFailed { device, errno } => {
                let reason = std::io::Error::from_raw_os_error(errno).to_string();
                tracing::error!(%device, reason, "a device failed and is never trusted again: replace it");
                let failed = cluster::DeviceFailed { device: device.0.to_be_bytes().to_vec().into(), reason };
                self.picture.report(Report::DeviceFailed(failed));
            }
            AgentEvent::Configured { version } => {
                self.snapshots.taken(version);
                self.picture.daemon.send_modify(|daemon| daemon.map_version = version);
            }
            AgentEvent::Usage { device, bytes_total, bytes_free } => {
                self.picture.daemon.send_modify(|daemon| {
                    let room = daemon.usage.entry(device.0).or_default();
                    (room.bytes_total, room.bytes_free) = (bytes_total, bytes_free);
                });
            }
            AgentEvent::DevicePace { device, window, entries, median_us, p99_us } => {
                let pace = cluster::DevicePace { window, entries, median_us, p99_us };
                self.picture.daemon.send_modify(|daemon| {
                    daemon.usage.entry(device.0).or_default().pace = Some(pace);
                });
            }
            AgentEvent::BlocksDeleted { group, deleted, bytes, runs } => {
                self.picture.report(Report::BlocksDeleted(blocks::deleted(group, deleted, bytes, &runs)));
            }
            AgentEvent::BlocksHeld { request, part, last, more, blocks } => {
                if let Some(held) = self.lists.take(request, part, last, more, &blocks) {
                    self.picture.report(Report::BlocksHeld(held));
                }
            }
            AgentEvent::KeyWanted { domain, public } => {
                tracing::debug!(domain, "novad needs the keys of a domain");
                self.picture.want_key(self.link.terms.boot, public, domain, Instant::now());
            }
            AgentEvent::Health {
                group,
                units,
                blocks,
                bytes_verified,
                verified_since_ms,
                bad_units,
                risky_blocks,
                disputed_units,
                repaired,
                filled_units,
                damaged,
            } => {
                let health = cluster::GroupHealth {
                    group: group.0,
                    units,
                    blocks,
                    bytes_verified,
                    verified_since_ms,
                    bad_units,
                    risky_blocks,
                    disputed_units,
                    repaired,
                    filled_units,
                    damaged,
                    ..cluster::GroupHealth::default()
                };
                self.picture.health.lock().expect("no holder of this lock panics").take(health);
            }
            AgentEvent::Filling { group, filling, block, unit, followed } => {
                let mut health = self.picture.health.lock().expect("no holder of this lock panics");
                health.change(group.0, |known| {
                    known.filling = filling;
                    (known.filled_block, known.filled_unit) = (block.0, unit.into());
                    known.followed = followed;
                });
            }
            AgentEvent::Lost { group, units, named } => {
                let mut health = self.picture.health.lock().expect("no holder of this lock panics");
                let named = named.as_slice().iter();
                let places =
                    named.map(|(block, unit)| cluster::UnitPlace { block: block.0, unit: (*unit).into() });
                health.change(group.0, |known| (known.lost_units, known.lost) = (units, places.collect()));
            }
            AgentEvent::Serving { serving } => tracing::info!(serving, "novad"),
        }
    }

    fn read_counters(&self) {
        let counters = self
            .link
            .counters
            .iter()
            .map(|(counter, value)| cluster::Counter { name: counter.name().into(), value })
            .collect();
        *self.picture.counters.lock().expect("no holder of this lock panics") = counters;
    }

    /// Gives novad the newest map, when a buffer is free and it does not have it.
    fn give_map(&mut self) -> anyhow::Result<()> {
        // A map is taken once: it comes when it can confirm all devices.
        if self.unsent.is_some() || !self.picture.daemon.borrow().devices_told {
            return Ok(());
        }
        let known = self.picture.map.borrow();
        let Some(known) = known.as_ref() else { return Ok(()) };
        let daemon = self.picture.daemon.borrow().clone();
        let map =
            host_map(&known.map, known.self_node, known.region_era, daemon.boot, &daemon.devices.devices);
        let version = (map.term, map.version);
        if self.given.is_some_and(|given| given >= version) {
            return Ok(());
        }
        match self.snapshots.write(&map) {
            Ok(command) => {
                self.given = Some(version);
                self.unsent = Some(command);
                Ok(())
            }
            // Novad answers `Configured`, and then there is one.
            Err(SnapshotError::BothInUse) => Ok(()),
            Err(error) => Err(error).context("give novad the map"),
        }
    }

    /// Puts commands into the ring while there is room.
    fn send(&mut self, commands: &mut mpsc::Receiver<AgentCommand>) -> anyhow::Result<()> {
        let mut sent = false;
        while let Some(command) = self.unsent.take().or_else(|| commands.try_recv().ok()) {
            match self.link.sender.push(command.encode()) {
                Ok(()) => sent = true,
                Err(PushError::Full(_)) => {
                    self.unsent = Some(command);
                    break;
                }
                Err(PushError::Broken(broken)) => return Err(broken.into()),
            }
        }
        if sent {
            self.link.sender.ring();
        }
        Ok(())
    }
}

/// Whether there is anything to tell of the devices of a host.
pub(crate) fn daemon_has_devices(told: &cluster::DevicesMounted) -> bool {
    *told != cluster::DevicesMounted::default()
}

/// What novad says of its peers, as the controllers take it. Which start of a peer is silent goes with it: silence of
/// an earlier one must not drop a host that has come back.
fn silence(peers: &PeersHeard) -> cluster::Silence {
    let mut told = cluster::Silence::default();
    for peer in peers.as_slice() {
        if peer.heard {
            told.heard.push(peer.node.0);
        } else {
            told.silent.push(peer.node.0);
            told.silent_boots.push(peer.boot.map_or(0, |boot| boot.0));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use nova_ring::abi::PeerHeard;
    use nova_units::{BootId, NodeId};

    use super::*;

    #[test]
    fn silence_names_the_start_of_each_silent_peer() {
        let peer = |node, boot: u64, heard| PeerHeard {
            node: NodeId(node),
            boot: (boot != 0).then_some(BootId(boot)),
            heard,
        };
        let told = silence(&PeersHeard::new(&[peer(2, 7, false), peer(3, 0, true), peer(4, 0, false)]));
        assert_eq!((told.silent, told.silent_boots, told.heard), (vec![2, 4], vec![7, 0], vec![3]));
    }
}
