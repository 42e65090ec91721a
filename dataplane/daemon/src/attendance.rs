//! The agent's attachment: its commands go to this host's storage and edge, their reports to it.

use std::time::{Duration, Instant};

use nova_device::Shard;
use nova_device::sync::Notify;
use nova_ring::abi::{AgentCommand, AgentEvent, BOXED_KEY_BYTES, BadSlot, BlockRuns};
use nova_ring::snapshot::{HostMap, SnapshotError, read_map};
use nova_ring::{Link, PeerBroken, PushError};
use nova_units::{BlockId, DeviceId, GroupId, Incarnation};

use crate::doorbell::{Bell, Doorbells};
use crate::switchboard::Switchboard;
use crate::tickets::Tickets;

/// What the agent can make this host do.
pub(crate) trait Ordered {
    /// A newer map, and until when the node lease holds on the clock since boot.
    fn take_map(&self, map: HostMap);
    /// The lease of the node, from a moment on the clock since boot.
    fn take_lease(&self, sent: Duration, lease: Duration);
    /// The device's life.
    fn incarnate(&self, device: DeviceId, incarnation: Incarnation, wipe: bool);
    /// Delete blocks that nothing refers to; told by an event when the group holds none of them.
    fn delete_blocks(&self, group: GroupId, runs: BlockRuns);
    /// Tell by events which blocks the device holds.
    fn list_blocks(&self, request: u64, group: GroupId, from: BlockId, limit: u16);
    /// A version of a domain's key, sealed to this start of the data plane.
    fn take_key(&self, given: GivenKey);
    /// A key domain was dropped.
    fn drop_keys(&self, domain: u32);
    /// A device that the controllers know of this host; the next order to open devices is about it, too.
    fn expect_device(&self, device: DeviceId, failed: bool);
    /// Open what is in the configuration and not open; told by a new list of the devices.
    fn open_devices(&self, order: u64);
    /// Let go of a device; told likewise.
    fn close_device(&self, order: u64, device: DeviceId);
    /// Go down.
    fn stop(&self);
    /// What an agent that has just attached has to know.
    fn full_report(&self) -> Vec<AgentEvent>;
    /// Counters are written here before the agent looks.
    fn count_into(&self, counters: &nova_ring::Counters);
}

/// A key as the agent carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenKey {
    pub(crate) domain: u32,
    pub(crate) version: u32,
    /// Version that new blocks of the domain are sealed with.
    pub(crate) current: u32,
    /// For how long from now it may be held.
    pub(crate) held: Duration,
    pub(crate) boxed: [u8; BOXED_KEY_BYTES],
}

/// Why the agent was detached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Detached {
    #[error("it ended")]
    Gone,
    #[error("another agent attached")]
    Replaced,
    #[error(transparent)]
    Broken(#[from] PeerBroken),
    #[error("it sent a slot that makes no sense: {0}")]
    BadSlot(#[from] BadSlot),
    #[error("its map cannot be read: {0}")]
    BadMap(#[from] SnapshotError),
}

/// Serves an agent until it ends, breaks a rule, or `replaced` says that a newer one is here. `told` is notified when
/// there is something to tell it.
pub(crate) async fn serve<S: Shard + Doorbells>(
    shard: &S,
    mut link: Link,
    orders: &impl Ordered,
    switchboard: &Switchboard,
    told: &Notify,
    tickets: &Tickets,
    replaced: impl Fn() -> bool,
) -> Detached {
    // Nothing is replayed after an attach: the whole picture goes first (design: control 4.3).
    switchboard.clear_events();
    for event in orders.full_report() {
        switchboard.tell(event);
    }
    let mut bell = Bell::new(shard);
    let why = loop {
        if replaced() {
            break Detached::Replaced;
        }
        match take_commands(&mut link, orders, switchboard, tickets) {
            Err(why) => break why,
            Ok(true) => continue,
            Ok(false) => {}
        }
        if let Err(broken) = send_events(&mut link, switchboard) {
            break broken.into();
        }
        orders.count_into(&link.counters);
        if bell.is_gone(&link.socket) {
            break Detached::Gone;
        }
        if let Err(broken) = bell.wait_for_slots(&mut link.receiver, told).await {
            break broken.into();
        }
    };
    link.socket.end();
    why
}

fn take_commands(
    link: &mut Link,
    orders: &impl Ordered,
    switchboard: &Switchboard,
    tickets: &Tickets,
) -> Result<bool, Detached> {
    let mut any = false;
    while let Some(slot) = link.receiver.pop()? {
        any = true;
        match AgentCommand::decode(&slot)? {
            AgentCommand::Configure { version, buffer, bytes } => {
                let map = read_map(&link.area, buffer, bytes)?;
                orders.take_map(map);
                switchboard.tell(AgentEvent::Configured { version });
            }
            AgentCommand::AdmitTicket { ticket, uid, valid_ms } => {
                tickets.admit(ticket, uid, Duration::from_millis(u64::from(valid_ms)), Instant::now());
            }
            AgentCommand::Lease { sent_boottime_ms, lease_ms } => {
                orders.take_lease(Duration::from_millis(sent_boottime_ms), Duration::from_millis(lease_ms));
            }
            AgentCommand::Incarnate { device, incarnation, wipe } => {
                orders.incarnate(device, incarnation, wipe)
            }
            AgentCommand::DeleteBlocks { group, runs } => orders.delete_blocks(group, runs),
            AgentCommand::ListBlocks { request, group, from, limit } => {
                orders.list_blocks(request, group, from, limit);
            }
            AgentCommand::GiveKey { domain, version, current, held_s, boxed } => {
                let held = Duration::from_secs(u64::from(held_s));
                orders.take_key(GivenKey { domain, version, current, held, boxed });
            }
            AgentCommand::DropKeys { domain } => orders.drop_keys(domain),
            AgentCommand::ExpectDevice { device, failed } => orders.expect_device(device, failed),
            AgentCommand::OpenDevices { order } => orders.open_devices(order),
            AgentCommand::CloseDevice { order, device } => orders.close_device(order, device),
            AgentCommand::Stop {} => orders.stop(),
        }
    }
    Ok(any)
}

fn send_events(link: &mut Link, switchboard: &Switchboard) -> Result<(), PeerBroken> {
    let mut sent = false;
    switchboard.drain_events(|event| match link.sender.push(event.encode()) {
        Ok(()) => {
            sent = true;
            Ok(true)
        }
        Err(PushError::Full(_)) => Ok(false),
        Err(PushError::Broken(broken)) => Err(broken),
    })?;
    if sent {
        link.sender.ring();
    }
    Ok(())
}
