//! The streams to the leading controller: registration, heartbeats and reports up, the map and the lease down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::host_report::Report;
use nova_api::cluster::{
    ClusterMap, DeviceUsage, Heartbeat, HostOrder, HostReport, Incarnate, RegisterRequest, WatchMapRequest,
    host_order::Order,
};
use nova_ring::abi::AgentCommand;
use nova_units::{DeviceId, Incarnation};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::config::Config;
use crate::controllers::Controllers;
use crate::novad::daemon_has_devices;
use crate::picture::{KnownMap, Picture};
use crate::{blocks, devices};

/// A heartbeat each second (Spec 1.4 detects after 30 s of silence).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A leader that acknowledges no heartbeat this long is left for another.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);
/// Pause before the next controller is tried.
const RETRY_PAUSE: Duration = Duration::from_millis(150);
/// One call may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Reports on their way to the stream.
const STREAM_DEPTH: usize = 64;
/// Largest map.
const MAP_BYTES_MAX: usize = 64 << 20;
/// Heartbeats that wait for their acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 64;

/// Attends the cluster for as long as the agent lives.
pub(crate) async fn attend(config: Arc<Config>, picture: Arc<Picture>, controllers: Arc<Controllers>) {
    let mut leader = 0;
    loop {
        let boot = booted(&picture).await;
        let channel = controllers.channel(leader);
        let status = attend_one(&config, &picture, channel, boot).await;
        let next = controllers.after(leader, &status);
        tracing::debug!(controller = leader, next, %status, "left a controller");
        leader = next % controllers.count();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Waits until novad is attached; answers its start.
async fn booted(picture: &Picture) -> u64 {
    let mut daemon = picture.daemon.subscribe();
    let daemon = daemon.wait_for(|daemon| daemon.boot != 0).await.expect("the picture outlives its tasks");
    daemon.boot
}

/// Attends one controller until it fails, is not the leader, or novad starts anew. The status says where to go on.
async fn attend_one(config: &Config, picture: &Picture, channel: Channel, boot: u64) -> Status {
    let mut client = ClusterClient::new(channel).max_decoding_message_size(MAP_BYTES_MAX);
    let registration = RegisterRequest {
        name: config.name.clone(),
        roles: config.roles.clone(),
        data_addr: config.data_addr.to_string(),
        boot,
        zone: config.zone.clone(),
    };
    let registered = match within(CALL_TIMEOUT, client.register(registration)).await {
        Ok(registered) => registered.into_inner(),
        Err(status) => return status,
    };
    let node = registered.node;
    let (reports, to_send) = mpsc::channel(STREAM_DEPTH);
    // The leader answers the stream's headers when it likes: a first heartbeat must not wait for them.
    let mut sender = Sender { node, boot, sequence: 0, sent: VecDeque::new(), health_told: None, reports };
    if let Err(status) = sender.heartbeat(picture) {
        return status;
    }
    let orders = match within(CALL_TIMEOUT, client.attend(ReceiverStream::new(to_send))).await {
        Ok(orders) => orders.into_inner(),
        Err(status) => return status,
    };
    let known = WatchMapRequest { node, known_version: 0 };
    let maps = match within(CALL_TIMEOUT, client.watch_map(known)).await {
        Ok(maps) => maps.into_inner(),
        Err(status) => return status,
    };
    tracing::info!(node, "the controller has this host");
    exchange(picture, sender, orders, maps, registered.region_era).await
}

/// Carries reports up and orders down until something ends.
async fn exchange(
    picture: &Picture,
    mut sender: Sender,
    mut orders: Streaming<HostOrder>,
    mut maps: Streaming<ClusterMap>,
    region_era: u64,
) -> Status {
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acknowledged = Instant::now();
    let mut daemon = picture.daemon.subscribe();
    // What waited while nobody took it is old: a peer that was silent then may be back. Whatever still holds is said
    // again within 100 ms, and the mount with every heartbeat.
    drop(picture.take_reports());
    loop {
        let outcome = tokio::select! {
            _ = beat.tick() => {
                if acknowledged.elapsed() > ACKNOWLEDGED_WITHIN {
                    Err(Status::deadline_exceeded("the controller acknowledges no heartbeat"))
                } else {
                    sender.heartbeat(picture)
                }
            }
            () = picture.reported.notified() => sender.send_all(picture.take_reports()),
            order = orders.message() => match order {
                Ok(Some(order)) => {
                    if sender.acknowledge(picture, &order) {
                        acknowledged = Instant::now();
                    }
                    obey(picture, order.order);
                    Ok(())
                }
                Ok(None) => Err(Status::unavailable("the controller ended the stream of orders")),
                Err(status) => Err(status),
            },
            map = maps.message() => match map {
                Ok(Some(map)) => {
                    take_map(picture, map, sender.node, region_era);
                    Ok(())
                }
                Ok(None) => Err(Status::unavailable("the controller ended the stream of maps")),
                Err(status) => Err(status),
            },
            changed = daemon.changed() => {
                changed.expect("the picture outlives its tasks");
                let now = daemon.borrow_and_update().boot;
                if now == sender.boot { Ok(()) } else { Err(Status::cancelled("novad started anew")) }
            }
        };
        if let Err(status) = outcome {
            return status;
        }
    }
}

/// Keeps a map, unless a newer one is known.
fn take_map(picture: &Picture, map: ClusterMap, self_node: u64, region_era: u64) {
    picture.map.send_if_modified(|known| {
        let newer =
            known.as_ref().is_none_or(|known| (known.map.term, known.map.version) < (map.term, map.version));
        if newer {
            *known = Some(KnownMap { map, self_node, region_era });
        }
        newer
    });
}

fn obey(picture: &Picture, order: Option<Order>) {
    let done = match order {
        Some(Order::Incarnate(order)) => return incarnate(picture, &order),
        Some(Order::DeleteBlocks(order)) => blocks::delete(picture, &order),
        Some(Order::ListBlocks(order)) => blocks::list(picture, &order),
        Some(Order::OpenDevices(order)) => return devices::open(picture, &order),
        Some(Order::CloseDevice(order)) => return devices::close(picture, &order),
        None => return,
    };
    if let Err(reason) = done {
        tracing::debug!(
            reason,
            "an order about blocks is not carried out now; the controller orders it again"
        );
    }
}

fn incarnate(picture: &Picture, order: &Incarnate) {
    let Ok(device) = <[u8; 16]>::try_from(&order.device[..]) else {
        tracing::warn!("an order names a device of {} bytes, not 16", order.device.len());
        return;
    };
    let command = AgentCommand::Incarnate {
        device: DeviceId(u128::from_be_bytes(device)),
        incarnation: Incarnation(order.incarnation),
        wipe: order.wipe,
    };
    if !picture.command(command) {
        tracing::warn!("novad takes no commands now; the controller will order again");
    }
}

/// The reports' way up: numbers them and remembers when each was sent, since the lease counts from there.
struct Sender {
    node: u64,
    boot: u64,
    sequence: u64,
    /// Sequence of each unacknowledged heartbeat, and the clock since boot when it was sent.
    sent: VecDeque<(u64, u64)>,
    /// Version of the health that this controller was told.
    health_told: Option<u64>,
    reports: mpsc::Sender<HostReport>,
}

impl Sender {
    fn heartbeat(&mut self, picture: &Picture) -> Result<(), Status> {
        let daemon = picture.daemon.borrow().clone();
        let health = picture.health.lock().expect("no holder of this lock panics").clone();
        let groups_told = self.health_told != Some(health.version);
        self.health_told = Some(health.version);
        let novad_up = picture.novad_is_up(boottime_ms());
        let beat = Heartbeat {
            bytes_total: daemon.usage.values().map(|room| room.bytes_total).sum(),
            bytes_free: daemon.usage.values().map(|room| room.bytes_free).sum(),
            devices: daemon
                .usage
                .iter()
                .map(|(device, room)| DeviceUsage {
                    device: device.to_be_bytes().to_vec().into(),
                    bytes_total: room.bytes_total,
                    bytes_free: room.bytes_free,
                    pace: room.pace,
                })
                .collect(),
            map_version: daemon.map_version,
            counters: picture.counters.lock().expect("no holder of this lock panics").clone(),
            novad_up,
            groups: if groups_told { health.groups() } else { Vec::new() },
            groups_told,
        };
        if self.sent.len() == UNACKNOWLEDGED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.sequence + 1, boottime_ms()));
        self.send(Report::Heartbeat(beat))?;
        // Said again each second until the controller has answered with an incarnation: a new leader may not know.
        if daemon.devices_told && daemon_has_devices(&daemon.devices) {
            self.send(Report::DevicesMounted(daemon.devices))?;
        }
        Ok(())
    }

    fn send_all(&mut self, reports: Vec<Report>) -> Result<(), Status> {
        for report in reports {
            // The controller asks about blocks again: their reports never fill the stream that carries heartbeats.
            let about_blocks = matches!(report, Report::BlocksDeleted(_) | Report::BlocksHeld(_));
            if !(about_blocks && self.reports.capacity() <= STREAM_DEPTH / 2) {
                self.send(report)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, report: Report) -> Result<(), Status> {
        self.sequence += 1;
        let report =
            HostReport { node: self.node, boot: self.boot, sequence: self.sequence, report: Some(report) };
        self.reports.try_send(report).map_err(|_| Status::unavailable("the controller takes no reports"))
    }

    /// Turns an acknowledgement into a lease from the moment the heartbeat was sent. True when it is a newer one.
    fn acknowledge(&mut self, picture: &Picture, order: &HostOrder) -> bool {
        let mut sent_at = None;
        while let Some(&(sequence, at)) = self.sent.front()
            && sequence <= order.acknowledged
        {
            self.sent.pop_front();
            sent_at = Some(at);
        }
        if let (Some(sent_boottime_ms), true) = (sent_at, order.lease_ms > 0) {
            let command = AgentCommand::Lease { sent_boottime_ms, lease_ms: order.lease_ms };
            if !picture.command(command) {
                tracing::debug!("novad takes no commands now; the next heartbeat brings another lease");
            }
        }
        sent_at.is_some()
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(limit, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// The clock that novad counts leases on.
fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the clock since boot is not negative");
    seconds * 1000 + u64::try_from(now.tv_nsec / 1_000_000).expect("nanoseconds are not negative")
}
