//! What a shard tells the front, on its own account: the reports of its members, room, keys that it lacks, counts.

use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Shard};
use nova_ring::Counter;
use nova_ring::abi::{AgentEvent, PEERS_MAX, PeerHeard, PeersHeard};
use nova_units::DeviceId;
use novafs_replica::Report;

use crate::desk::Desk;
use crate::host::{Host, Up};
use crate::tally::Tally;

/// How often the member's reports are taken to the agent; its own pace is 100 ms.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// How often a shard writes down what it has counted, for the agent to read.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// How often the agent hears how full the devices are.
const USAGE_EVERY: Duration = Duration::from_secs(1);
/// How often keys are looked through for those whose time is over.
const EXPIRE_KEYS_EVERY: Duration = Duration::from_secs(1);

/// What a failed device is reported with: the store keeps the first error in its log.
const EIO: i32 = 5;

impl Host {
    /// Carries the members' reports and the devices' room to the agent, and what was counted to the first shard.
    pub(crate) async fn report(self: Rc<Self>) {
        let (mut usage_at, mut expire_at, mut count_at) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        loop {
            self.pause(REPORT_EVERY).await;
            let now = self.shard.clock().now();
            self.say_wanted_keys();
            if now >= expire_at {
                expire_at = now + EXPIRE_KEYS_EVERY;
                if let Some(edge) = self.edge() {
                    edge.expire_keys();
                }
                if let Some(refusal) = self.up.borrow().as_ref().and_then(|up| up.link.take_refusal()) {
                    tracing::warn!(shard = self.own, "no secure connection with {refusal}");
                }
            }
            for device in self.devices.all() {
                let Some(member) = device.member() else { continue };
                for report in member.reports() {
                    self.tell(device.id, report);
                }
            }
            if now >= count_at {
                count_at = now + COUNT_EVERY;
                self.publish_tally();
            }
            if now >= usage_at {
                usage_at = now + USAGE_EVERY;
                self.switchboard.publish_held(self.own, self.devices.held());
                for event in self.devices.news() {
                    self.switchboard.tell(event);
                }
            }
        }
    }

    fn tell(&self, device: DeviceId, report: Report) {
        match report {
            Report::Silence { peer, boot, device: Some(incarnation), .. } => {
                let boot = boot.unwrap_or_default();
                self.switchboard.tell(AgentEvent::DeviceSilent { node: peer, boot, incarnation });
            }
            Report::Silence { peer, boot, hears, .. } => {
                let silent = PeerHeard { node: peer, boot, heard: false };
                let hears = hears.into_iter().map(|node| PeerHeard { node, boot: None, heard: true });
                let peers: Vec<_> = std::iter::once(silent).chain(hears).take(PEERS_MAX).collect();
                self.switchboard.tell(AgentEvent::Peers { peers: PeersHeard::new(&peers) });
            }
            Report::JoinReady { group, epoch, node } => {
                self.switchboard.tell(AgentEvent::JoinReady { group, epoch, node });
            }
            Report::DeviceFailed => {
                self.switchboard.tell(AgentEvent::DeviceFailed { device, errno: EIO });
            }
            Report::PageRepaired { group, block, unit } => {
                tracing::warn!(%group, %block, %unit, "found a bad copy and wrote it anew from another member");
            }
        }
    }

    /// Tells the agent of key domains that were asked for here and are not here.
    fn say_wanted_keys(&self) {
        if let (Some(ring), Some(desk)) = (&self.keys.ring, &self.keys.desk) {
            self.want_keys(desk, ring.take_unsaid());
        }
    }

    pub(crate) fn want_keys(&self, desk: &Desk, domains: Vec<u32>) {
        for domain in domains {
            self.switchboard.tell(AgentEvent::KeyWanted { domain, public: desk.public() });
        }
    }

    /// Writes down what this shard has counted.
    pub(crate) fn publish_tally(&self) {
        let mut tally = Tally::default();
        tally.add(Counter::ClientsBroken, self.programs_broken.get());
        if let Some(up) = self.up.borrow().as_ref() {
            up.count_into(&mut tally);
            self.devices.count_into(&mut tally);
        }
        self.switchboard.publish_tally(self.own, tally);
    }
}

impl Up {
    fn count_into(&self, tally: &mut Tally) {
        let link = self.link.counters();
        tally.add(Counter::FramesSent, link.frames_sent);
        tally.add(Counter::FramesReceived, link.frames_received);
        tally.add(Counter::CrcFailures, link.checksum_failures);
        tally.add(Counter::PeersRefused, link.violations + link.garbled);
        tally.add(Counter::HandshakesFailed, link.handshake_failures);
        tally.add(Counter::Impostors, link.impostors);
        let bytes = self.link.tls_counters();
        tally.add(Counter::WireBytesSealed, bytes.bytes_sealed);
        tally.add(Counter::WireBytesOpened, bytes.bytes_opened);
        tally.add(Counter::WireBytesCopied, bytes.bytes_copied);
        if let Some(edge) = &self.edge {
            let edge = edge.counters();
            tally.add(Counter::BytesWritten, edge.bytes_written);
            tally.add(Counter::BytesRead, edge.bytes_read);
            tally.add(Counter::UnitsSealed, edge.units_sealed);
            tally.add(Counter::UnitsOpened, edge.units_opened);
            tally.add(Counter::ReadsRetried, edge.retries);
            tally.add(Counter::ReadsHedged, edge.reads_hedged);
            tally.add(Counter::HedgesWon, edge.hedges_won);
            tally.add(Counter::HedgesHeldBack, edge.hedges_held_back);
            tally.add(Counter::GroupStallMsMax, edge.write_stall_ms_max);
        }
    }
}
