//! Devices that fail slowly: they still answer, but far later than others.
//!
//! A device is compared with the other devices of the region, those of its own host among them, and not with a clock: when
//! all are slow it is the load. A host that is slow as a whole has slow devices. One is marked after several windows in a row,
//! and cleared after more of them at a lower bound, so that it does not go to and fro.

use core::time::Duration;
use std::collections::BTreeMap;

use nova_units::DeviceId;

use crate::command::{Op, PaceDevice};
use crate::model::{DeviceState, Groups};

/// A device is slow when its median time to make an entry durable is this many times that of the others ...
pub const SLOW_FACTOR: u64 = 6;
/// ... and at least this long: what is fast enough is not slow.
pub const SLOW_MIN: Duration = Duration::from_millis(30);
/// So many windows in a row make it slow.
pub const SLOW_WINDOWS: u32 = 3;
/// It keeps up again below this many times the median of the others, or below half of [`SLOW_MIN`] ...
pub const RECOVERED_FACTOR: u64 = 3;
/// ... for so many windows in a row.
pub const RECOVERED_WINDOWS: u32 = 6;
/// Other devices that must have been measured lately before one is judged.
pub const PEERS_MIN: usize = 2;
/// A measurement counts this long.
pub const PACE_FRESH: Duration = Duration::from_secs(30);

/// What the leader heard of the pace of devices. A new leader begins with nothing.
#[derive(Clone, Debug, Default)]
pub struct Paces {
    heard: BTreeMap<DeviceId, Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    window: u64,
    median_us: u64,
    at: Duration,
    /// The window was compared with the others.
    judged: bool,
    /// Windows in a row that were too slow, or that kept up.
    slow: u32,
    well: u32,
}

impl Paces {
    /// `device` measured `median_us` in its window with this number. The same window again changes nothing.
    pub fn hear(&mut self, device: DeviceId, window: u64, median_us: u64, now: Duration) {
        if window == 0 {
            return;
        }
        let known = self.heard.get(&device).copied();
        if known.is_none_or(|known| known.window != window) {
            let (slow, well) = known.map_or((0, 0), |known| (known.slow, known.well));
            let heard = Heard { window, median_us, at: now, judged: false, slow, well };
            self.heard.insert(device, heard);
        }
    }
}

/// Devices that became slow, or keep up again. Proposes; `apply` decides.
pub fn plan_paces(groups: &Groups, paces: &mut Paces, now: Duration) -> Vec<Op> {
    let serves = |id: &DeviceId| {
        groups.devices.get(id).is_some_and(|device| matches!(device.state, DeviceState::Mounted { .. }))
    };
    paces.heard.retain(|device, _| serves(device));
    let fresh: Vec<(DeviceId, u64)> = paces
        .heard
        .iter()
        .filter(|(_, heard)| now.saturating_sub(heard.at) <= PACE_FRESH)
        .map(|(device, heard)| (*device, heard.median_us))
        .collect();
    let slow_min = u64::try_from(SLOW_MIN.as_micros()).unwrap_or(u64::MAX);
    for (device, heard) in &mut paces.heard {
        let mut others: Vec<u64> =
            fresh.iter().filter(|(other, _)| other != device).map(|(_, median_us)| *median_us).collect();
        if heard.judged || others.len() < PEERS_MIN {
            continue;
        }
        others.sort_unstable();
        let peers = others[others.len() / 2];
        heard.judged = true;
        let is_slow = heard.median_us >= slow_min && heard.median_us >= peers.saturating_mul(SLOW_FACTOR);
        let is_well =
            heard.median_us < slow_min / 2 || heard.median_us < peers.saturating_mul(RECOVERED_FACTOR);
        heard.slow = if is_slow { heard.slow + 1 } else { 0 };
        heard.well = if is_well { heard.well + 1 } else { 0 };
    }
    let mut ops = Vec::new();
    for (id, heard) in &paces.heard {
        let slow = groups.devices[id].slow;
        let judged = match slow {
            None if heard.slow >= SLOW_WINDOWS => true,
            Some(_) if heard.well >= RECOVERED_WINDOWS => false,
            _ => continue,
        };
        ops.push(Op::PaceDevice(PaceDevice { device: id.0.to_be_bytes().to_vec(), slow: judged }));
    }
    ops
}
