//! Devices that are opened and closed while this host runs, by order of its agent.
//!
//! The first shard reads the configuration again and has each device that is not open opened by its shard, by the same rule as
//! at the start; the last of what it knows stands on the board. Nothing else is touched: what is open goes on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nova_device::sync::{Semaphore, oneshot, timeout_at};
use nova_device::{Clock, Shard};
use nova_units::{DeviceId, TaskClass};

use crate::config::{Config, DeviceConfig};
use crate::host::Host;
use crate::roster::{CONFIGURATION, Mounted, Roster};
use crate::storage;
use crate::switchboard::{Expected, FRONT, Order, Post};

/// Orders that wait for the one that is carried out; the next is given again by who asked.
const ORDERS_WAITING_MAX: usize = 16;
/// Devices that are named before one order: more than a host has, those that failed or are gone among them.
const EXPECTED_MAX: usize = 256;
/// A device is open within this, or is said not to be: to recover one takes seconds.
const OPEN_WITHIN: Duration = Duration::from_secs(600);
/// A device is closed within this, or is said to be still closing: its drive answers nothing.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What is under way. The one of the first shard alone is used.
pub(crate) struct Openings {
    config_path: PathBuf,
    /// Where the device at each place was opened, or was to be.
    paths: RefCell<BTreeMap<u8, PathBuf>>,
    expected: RefCell<Vec<Expected>>,
    turn: Semaphore,
    opening: RefCell<BTreeMap<u8, oneshot::Sender<Result<Mounted, String>>>>,
    closing: RefCell<BTreeMap<DeviceId, oneshot::Sender<()>>>,
}

impl Openings {
    /// For the configuration at `config_path`, in which the devices stand at `paths`.
    pub(crate) fn new(config_path: PathBuf, paths: Vec<PathBuf>) -> Self {
        Self {
            config_path,
            paths: RefCell::new((0..).zip(paths).collect()),
            expected: RefCell::default(),
            turn: Semaphore::new(1, ORDERS_WAITING_MAX),
            opening: RefCell::default(),
            closing: RefCell::default(),
        }
    }

    pub(crate) fn expect(&self, device: Expected) {
        let mut expected = self.expected.borrow_mut();
        if expected.len() < EXPECTED_MAX {
            expected.push(device);
        }
    }

    pub(crate) fn take_expected(&self) -> Arc<Vec<Expected>> {
        Arc::new(self.expected.take())
    }

    /// A shard has tried to open the device at a place.
    pub(crate) fn has_opened(&self, place: u8, opened: Result<Mounted, String>) {
        match self.opening.borrow_mut().remove(&place) {
            Some(waiting) => drop(waiting.send(opened)),
            None => {
                tracing::error!(place, "a device was opened after nobody waited any more: restart this novad")
            }
        }
    }

    /// A shard has closed a device.
    pub(crate) fn has_closed(&self, device: DeviceId) {
        if let Some(waiting) = self.closing.borrow_mut().remove(&device) {
            // Whoever ordered it may have waited long enough.
            let _ = waiting.send(());
        }
    }
}

/// A device that is to be opened.
struct Wanted {
    place: u8,
    shard: usize,
    config: DeviceConfig,
}

/// The devices of the configuration that are not open, with their shards.
///
/// # Errors
/// When a device that is open stands no longer where it was.
fn wanted(
    config: &Config,
    shards: u16,
    roster: &Roster,
    paths: &BTreeMap<u8, PathBuf>,
) -> anyhow::Result<Vec<Wanted>> {
    for (_, device) in &roster.serving {
        let (place, open) = (device.place, &paths[&device.place]);
        match config.devices.get(usize::from(place)) {
            Some(now) => ensure!(
                now.path == *open,
                "device {place} of the configuration is {} now, and {} is open there: close that first (`nova node device \
                 close`), or put new devices behind the others",
                now.path.display(),
                open.display()
            ),
            None => {
                tracing::warn!(place, path = %open.display(), "a device that is open is no longer in the configuration: it stays open until it is closed")
            }
        }
    }
    let dealt = config.deal(shards).context("deal the devices to the shards")?.into_iter().enumerate();
    let mut wanted: Vec<Wanted> = dealt
        .flat_map(|(shard, of)| of.devices.into_iter().map(move |(place, _)| (shard, place)))
        .filter(|(_, place)| !roster.serves(*place))
        .map(|(shard, place)| Wanted { place, shard, config: config.devices[usize::from(place)].clone() })
        .collect();
    wanted.sort_by_key(|it| it.place);
    Ok(wanted)
}

/// On the first shard.
impl Host {
    /// Opens what is in the configuration and not open.
    pub(crate) async fn open_devices(self: Rc<Self>, order: u64, expected: Arc<Vec<Expected>>) {
        let Ok(_turn) = self.openings.turn.acquire(1).await else {
            return tracing::warn!(order, "too many orders about devices wait: this one is not carried out");
        };
        match self.read_wanted().await {
            Ok((config, wanted)) => {
                let places = u8::try_from(config.devices.len()).expect("checked when it was read");
                self.change_roster(|roster| {
                    // What is no longer in the configuration is no trouble any more.
                    roster.troubles.retain(|place, _| *place < places);
                });
                for wanted in wanted {
                    self.open_one(wanted, &expected).await;
                }
            }
            Err(error) => {
                tracing::error!(order, "no device is opened: {error:#}");
                self.change_roster(|roster| {
                    roster.troubles.insert(CONFIGURATION, format!("{error:#}"));
                });
            }
        }
        self.has_carried_out(order);
    }

    async fn read_wanted(&self) -> anyhow::Result<(Config, Vec<Wanted>)> {
        let path = self.openings.config_path.clone();
        let config = self.shard.run_blocking(move || Config::read(&path)).await??;
        let shards = u16::try_from(self.switchboard.shards()).expect("a host has at most 24 shards");
        let wanted = wanted(&config, shards, &self.here.roster(), &self.openings.paths.borrow())?;
        Ok((config, wanted))
    }

    async fn open_one(&self, wanted: Wanted, expected: &Arc<Vec<Expected>>) {
        let Wanted { place, shard, config } = wanted;
        let opened = match self.try_open(place, shard, config, expected).await {
            Ok(mounted) => Ok(mounted),
            Err(error) => Err(format!("{error:#}")),
        };
        match opened {
            Ok(mounted) => {
                tracing::info!(place, shard, device = %mounted.id, "opened a device while this host runs");
                self.change_roster(|roster| roster.open(shard, mounted));
            }
            Err(why) => {
                tracing::error!(place, "a device does not serve: {why}");
                self.change_roster(|roster| {
                    roster.troubles.insert(place, why);
                });
            }
        }
        self.tell_devices();
    }

    async fn try_open(
        &self,
        place: u8,
        shard: usize,
        config: DeviceConfig,
        expected: &Arc<Vec<Expected>>,
    ) -> anyhow::Result<Mounted> {
        let path = config.path.clone();
        self.openings.paths.borrow_mut().insert(place, path.clone());
        // Its file is written in full; that takes its time and none of a shard.
        self.shard.run_blocking(move || storage::create_missing(&config)).await??;
        let (sender, receiver) = oneshot::channel();
        self.openings.opening.borrow_mut().insert(place, sender);
        let order = Order::OpenDevice { place, path, expected: Arc::clone(expected) };
        self.switchboard.post_order(shard, order);
        let clock = self.shard.clock();
        let waited = timeout_at(clock, clock.now() + OPEN_WITHIN, receiver).await;
        let opened = waited.map_err(|_| anyhow::anyhow!("it was not open after {OPEN_WITHIN:?}"))?;
        opened.context("its shard ended")?.map_err(anyhow::Error::msg)
    }

    /// Closes a device that the controllers have taken out of all groups.
    pub(crate) async fn close_device(self: Rc<Self>, order: u64, device: DeviceId) {
        let Ok(_turn) = self.openings.turn.acquire(1).await else {
            return tracing::warn!(order, "too many orders about devices wait: this one is not carried out");
        };
        let shard = self.here.roster().shard_of(device);
        let mut place = None;
        if let Some(shard) = shard {
            self.change_roster(|roster| place = roster.close(device));
            let (sender, receiver) = oneshot::channel();
            self.openings.closing.borrow_mut().insert(device, sender);
            self.switchboard.post_order(shard, Order::CloseDevice { device });
            let clock = self.shard.clock();
            let waited = timeout_at(clock, clock.now() + CLOSE_WITHIN, receiver).await;
            match (waited, place) {
                (Ok(_), _) => tracing::info!(%device, ?place, "closed a device while this host runs"),
                (Err(_), place) => {
                    tracing::error!(%device, ?place, "a device is out of service, and its drive answers nothing: it is closed when it does, or is pulled");
                    let why = "its last device was taken out of service and answers nothing: pull its drive"
                        .to_owned();
                    self.change_roster(|roster| roster.troubles.extend(place.map(|place| (place, why))));
                }
            }
        }
        self.has_carried_out(order);
    }

    fn change_roster(&self, change: impl FnOnce(&mut Roster)) {
        let mut roster = Roster::clone(&self.here.roster());
        change(&mut roster);
        let roster = Arc::new(roster);
        // Here at once, for the next change; to the others, and to what follows from it, by the board.
        self.here.set_roster(Arc::clone(&roster));
        self.switchboard.write_board(|board| board.roster = Some(roster));
    }

    fn has_carried_out(&self, order: u64) {
        self.change_roster(|roster| {
            roster.order = order;
        });
        self.tell_devices();
        self.change_roster(|roster| {
            // Said once: the next order reads it anew.
            roster.troubles.remove(&CONFIGURATION);
        });
    }

    fn tell_devices(&self) {
        for event in self.here.roster().report() {
            self.switchboard.tell(event);
        }
    }
}

/// On the shard that drives the device.
impl Host {
    /// Opens a device, and tells the first shard.
    pub(crate) fn open_here(self: &Rc<Self>, place: u8, path: PathBuf, expected: Arc<Vec<Expected>>) {
        let host = Rc::clone(self);
        self.shard.spawn(TaskClass::Control, async move {
            let roster = host.here.roster();
            let placed = storage::open_one_more(&host.shard, place, path, &roster, &expected).await;
            let opened = placed.map_err(|error| format!("{error:#}")).map(|placed| {
                let mounted = storage::mounted(place, &placed.opened);
                host.devices.add(placed);
                host.start_new_members();
                mounted
            });
            host.say(Post::Opened { place, opened });
        });
    }

    /// Closes a device, and tells the first shard.
    pub(crate) fn close_here(self: &Rc<Self>, device: DeviceId) {
        let host = Rc::clone(self);
        self.shard.spawn(TaskClass::Control, async move {
            // One that failed is closed as it is.
            if let Err(error) = host.devices.close(&host.shard, device).await {
                tracing::warn!(%device, %error, "a device was not closed in order: its next start recovers it");
            }
            host.say(Post::Closed { device });
        });
    }

    fn say(&self, post: Post) {
        if self.switchboard.mailbox(FRONT).post(post).is_err() {
            tracing::error!("the first shard does not take what became of a device");
        }
    }
}

#[cfg(test)]
mod tests;
