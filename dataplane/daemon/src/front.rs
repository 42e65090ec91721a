//! The front of a host: what its agent orders, carried to every shard, and what all shards tell it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nova_device::{Clock, Shard};
use nova_ring::abi::{AgentEvent, BlockRuns};
use nova_ring::snapshot::HostMap;
use nova_ring::{Counter, Counters};
use nova_units::{BlockId, DeviceId, GroupId, Incarnation, TaskClass};

use crate::attendance::{GivenKey, Ordered};
use crate::host::Host;
use crate::switchboard::{Expected, Order};

impl Ordered for Rc<Host> {
    fn take_map(&self, map: HostMap) {
        let newer = |known: &HostMap| (map.term, map.version) >= (known.term, known.version);
        // Only this shard writes maps, so none comes between.
        if self.switchboard.map().is_none_or(|known| newer(&known)) {
            self.switchboard.write_board(|board| board.map = Some(Arc::new(map)));
            // Here at once: an agent that hears that the map was taken lets programs in.
            self.read_board();
        }
    }

    fn take_lease(&self, sent: Duration, lease: Duration) {
        self.switchboard.write_board(|board| {
            let until = if lease.is_zero() { Duration::ZERO } else { board.lease_until.max(sent + lease) };
            board.lease_until = until;
        });
        self.read_board();
    }

    fn incarnate(&self, device: DeviceId, incarnation: Incarnation, wipe: bool) {
        if let Some(shard) = self.here.roster().shard_of(device) {
            self.switchboard.post_order(shard, Order::Incarnate { device, incarnation, wipe });
        }
    }

    fn delete_blocks(&self, group: GroupId, runs: BlockRuns) {
        if let Some(shard) = self.here.shard_of(group) {
            self.switchboard.post_order(shard, Order::DeleteBlocks { group, runs });
        }
    }

    fn list_blocks(&self, request: u64, group: GroupId, from: BlockId, limit: u16) {
        if let Some(shard) = self.here.shard_of(group) {
            self.switchboard.post_order(shard, Order::ListBlocks { request, group, from, limit });
        }
    }

    fn take_key(&self, given: GivenKey) {
        if self.keys.desk.is_none() {
            tracing::warn!(domain = given.domain, "a key came to a host that takes none");
            return;
        }
        for shard in 0..self.switchboard.shards() {
            self.switchboard.post_order(shard, Order::TakeKey(given));
        }
    }

    fn drop_keys(&self, domain: u32) {
        tracing::warn!(domain, "a key domain was dropped: its keys are forgotten, its data erased");
        self.switchboard.write_board(|board| {
            board.dropped.insert(domain);
        });
    }

    fn expect_device(&self, device: DeviceId, failed: bool) {
        self.openings.expect(Expected { device, failed });
    }

    fn open_devices(&self, order: u64) {
        let (host, expected) = (Rc::clone(self), self.openings.take_expected());
        self.shard.spawn(TaskClass::Control, async move { host.open_devices(order, expected).await });
    }

    fn close_device(&self, order: u64, device: DeviceId) {
        let host = Rc::clone(self);
        self.shard.spawn(TaskClass::Control, async move { host.close_device(order, device).await });
    }

    fn stop(&self) {
        self.switchboard.ask_stop();
    }

    fn full_report(&self) -> Vec<AgentEvent> {
        self.switchboard.write_board(|board| board.agents += 1);
        self.here.roster().report()
    }

    fn count_into(&self, counters: &Counters) {
        self.publish_tally();
        self.switchboard.tally().write(counters);
        let now = self.shard.clock().now();
        counters.set(Counter::AliveBoottimeMs, u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        counters.set(Counter::ClientsAttached, self.door.programs.load(Ordering::Acquire) as u64);
    }
}
