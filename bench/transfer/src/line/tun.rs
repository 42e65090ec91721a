//! Moves packets between the ends of a line: a TUN device in each of two namespaces, and threads between them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nova_measure::namespace::Namespace;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_tap::{Iface, Mode};

use super::{Counts, Shape, Way};

/// Name of the device in each namespace.
pub(crate) const DEVICE: &str = "line0";
/// The longest packet that a device is asked to carry, and more.
const PACKET_BYTES_MAX: usize = 2048;
/// What a device holds while its thread does not run, in packets.
const DEVICE_PACKETS: &str = "20000";
/// Packets that are sent before the line is looked at again.
const BATCH_MAX: usize = 64;
/// Seeds of the losses of both ways.
const SEEDS: [u64; 2] = [11, 12];

/// A line between two namespaces. Its threads end when the devices do: with the namespaces, or this process.
#[derive(Debug)]
pub(crate) struct Line {
    begun: Instant,
    ways: [Arc<Shared>; 2],
}

/// One direction, between the thread that fills it and the one that empties it.
#[derive(Debug)]
struct Shared {
    way: Mutex<Way>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Way> {
        // Nothing that is done under the lock can leave half of it.
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Joins two namespaces by a device [`DEVICE`] in each, which has no address yet.
    pub(crate) fn between(one: &Namespace, other: &Namespace, shape: Shape) -> Result<Self> {
        let devices = [open(one)?, open(other)?].map(Arc::new);
        let ways = SEEDS
            .map(|seed| Arc::new(Shared { way: Mutex::new(Way::new(shape, seed)), filled: Condvar::new() }));
        let line = Self { begun: Instant::now(), ways };
        for (number, way) in line.ways.iter().enumerate() {
            let (from, to, begun) =
                (Arc::clone(&devices[number]), Arc::clone(&devices[1 - number]), line.begun);
            let (filled, emptied) = (Arc::clone(way), Arc::clone(way));
            thread::Builder::new()
                .name(format!("line-in-{number}"))
                .spawn(move || fill(&filled, &from, begun))?;
            thread::Builder::new()
                .name(format!("line-out-{number}"))
                .spawn(move || empty(&emptied, &to, begun))?;
        }
        Ok(line)
    }

    /// Gives it another shape, for both ways, and forgets what is under way and what was counted.
    pub(crate) fn reshape(&self, shape: Shape) {
        for (way, seed) in self.ways.iter().zip(SEEDS) {
            *way.lock() = Way::new(shape, seed);
        }
    }

    /// What became of the packets there and back.
    pub(crate) fn counts(&self) -> [Counts; 2] {
        [0, 1].map(|number| self.ways[number].lock().counts())
    }
}

/// Makes the device in a namespace, on a thread that goes there.
fn open(space: &Namespace) -> Result<Iface> {
    let path = space.path();
    let made = thread::spawn(move || -> Result<Iface> {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("enter a namespace")?;
        Iface::without_packet_info(DEVICE, Mode::Tun).context("make a TUN device: is there /dev/net/tun?")
    });
    let device = made.join().map_err(|_| anyhow!("a thread that makes a device panicked"))??;
    space.ip(&["link", "set", DEVICE, "mtu", "1500", "txqueuelen", DEVICE_PACKETS, "up"])?;
    Ok(device)
}

/// Puts what a device sends onto the line, until there is no device.
fn fill(shared: &Shared, from: &Iface, begun: Instant) {
    let mut room = [0; PACKET_BYTES_MAX];
    loop {
        match from.recv(&mut room) {
            Ok(bytes) => {
                let mut way = shared.lock();
                let first = way.next_at().is_none();
                way.push(begun.elapsed(), room[..bytes].to_vec());
                drop(way);
                if first {
                    shared.filled.notify_one();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Hands what has arrived to a device, until there is none.
fn empty(shared: &Shared, to: &Iface, begun: Instant) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let mut way = shared.lock();
        let now = begun.elapsed();
        batch.extend(std::iter::from_fn(|| way.pop(now)).take(BATCH_MAX));
        if batch.is_empty() {
            // Not for ever, so that a line that was reshaped meanwhile is looked at again.
            let pause = way.next_at().map_or(Duration::from_millis(100), |at| at.saturating_sub(now));
            drop(shared.filled.wait_timeout(way, pause));
            continue;
        }
        drop(way);
        for packet in batch.drain(..) {
            match to.send(&packet) {
                Ok(_) => {}
                // A device that is down, or out of memory, drops a packet as any device does.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BADFD.raw_os_error()) => return,
                Err(_) => {}
            }
        }
    }
}
