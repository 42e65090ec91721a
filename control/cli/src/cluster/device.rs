//! `nova node device`: devices of a host are opened, closed and replaced while its novad runs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Subcommand;
use nova_api::cluster::{ForgetDeviceRequest, Node, StatusResponse, device};
use serde::Serialize;

use super::client::Controllers;
use super::view::{FillingView, is_in_sync};
use super::{PATIENCE, device_id, health};
use crate::arguments::Global;
use crate::dev::region::Region;
use crate::exit::{Kind, Stop};
use crate::output;
use crate::progress::Meter;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A host has carried out an order within this: making a large file is what takes longest.
const ORDER_WITHIN: Duration = Duration::from_secs(1800);
/// The controllers have taken a device within this once it is open.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Nothing was filled and every group was whole for so long: all is where it is to be. Between two groups passes less.
const QUIET: Duration = Duration::from_secs(5);
/// The same while the new device has no replica: a host that was dropped twice lately rests for a minute before it gets any, and
/// where groups have two copies none may come.
const QUIET_EMPTY: Duration = Duration::from_secs(90);
/// Stands in the place of a device for what is wrong with the configuration.
const CONFIGURATION: u32 = 255;

/// Commands over the devices of a host.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Open what stands in the configuration of the host's novad and is not open: a new drive, or one that is there again.
    #[command(
        after_help = "Add a [[device]] to novad.toml, behind the others, or mend the one that is not mounted. Its novad reads \
                      the file again; only devices are taken over, and nothing else is disturbed. A drive that holds data of \
                      another host or region is refused. The new device gets its share of the replicas.\n\n\
                      Example:\n  nova node device open storage-2"
    )]
    Open {
        /// The host.
        host: String,
    },
    /// Take a device out of service and close it, so that its drive can be pulled.
    #[command(
        after_help = "Refused while a group on it would be left with fewer than two copies. Its replicas are built anew on \
                      other devices of the host, or after ten minutes on other hosts. It stays closed until `nova node device \
                      open` or the next start of the novad, and comes back with what it holds.\n\n\
                      Examples:\n  nova node device close storage-2 1\n  \
                      nova node device close storage-2 0123456789abcdef0123456789abcdef"
    )]
    Close {
        /// Its host.
        host: String,
        /// Its place in the configuration, from 0, or its id: `nova node ls` shows both.
        device: String,
    },
    /// Put a new device in the place of one that failed, is slow, or is to be changed, and wait until it is filled.
    #[command(
        after_help = "Put the new drive in its place first: at the path of the old one, or change that path in novad.toml. The \
                      old device is closed, the new one opened and filled from the other copies, and the old one forgotten \
                      once nothing is to be had of it. The novad runs on. It may be interrupted: what was begun goes on.\n\n\
                      Examples:\n  nova node device replace storage-2 1\n  \
                      nova node device replace storage-2 1 --no-wait"
    )]
    Replace {
        /// Its host.
        host: String,
        /// The place in the configuration, from 0.
        place: u32,
        /// Return when the new device is in service, without waiting until it is filled.
        #[arg(long)]
        no_wait: bool,
    },
}

/// A device that was opened.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Opened {
    place: u32,
    device: String,
    bytes_total: u64,
}

/// One that could not be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Trouble {
    /// Null: the configuration.
    place: Option<u32>,
    why: String,
}

/// `nova node device open`.
#[derive(Debug, Serialize)]
struct OpenView {
    host: String,
    opened: Vec<Opened>,
    not_opened: Vec<Trouble>,
}

impl OpenView {
    fn text(&self) -> String {
        let mut text = String::new();
        for Opened { place, device, bytes_total } in &self.opened {
            let bytes = output::bytes(*bytes_total);
            writeln!(text, "device {place} of {} is open: {device}, {bytes}", self.host)
                .expect("writing to a String does not fail");
        }
        if self.opened.is_empty() && self.not_opened.is_empty() {
            writeln!(text, "every device in the configuration of {} was open already", self.host)
                .expect("writing to a String does not fail");
        }
        text
    }

    /// What was not done, as an error.
    fn finish(&self) -> anyhow::Result<()> {
        let troubles: Vec<String> = self.not_opened.iter().map(|it| it.text(&self.host)).collect();
        if troubles.is_empty() { Ok(()) } else { Err(Stop::new(Kind::Failed, troubles.join("; ")).into()) }
    }
}

impl Trouble {
    fn text(&self, host: &str) -> String {
        match self.place {
            Some(place) => format!("device {place} of {host} was not opened: {}", self.why),
            None => format!("no device of {host} was opened: {}", self.why),
        }
    }
}

/// `nova node device close`.
#[derive(Debug, Serialize)]
struct CloseView {
    host: String,
    device: String,
    /// The drive answers nothing: it is out of service, and closed when its last requests end.
    hangs: bool,
}

impl CloseView {
    fn text(&self) -> String {
        let Self { host, device, hangs } = self;
        match hangs {
            false => format!("device {device} of {host} is closed: its drive can be pulled\n"),
            true => format!(
                "device {device} of {host} is out of service; its drive answers nothing, so requests to it end when it is pulled\n"
            ),
        }
    }
}

/// `nova node device replace`.
#[derive(Debug, Serialize)]
struct ReplaceView {
    host: String,
    place: u32,
    /// Null: none was open at this place.
    old: Option<String>,
    new: String,
    /// Groups with a replica on the new one.
    groups: usize,
    /// Every group is whole, and nothing is filled any more.
    filled: bool,
    /// The old one is forgotten.
    forgotten: bool,
    seconds: u64,
}

impl ReplaceView {
    fn text(&self) -> String {
        let Self { host, place, old, new, groups, filled, forgotten, seconds } = self;
        let mut text = format!("device {place} of {host} is {new}, with replicas of {groups} groups");
        match filled {
            true => write!(text, ", after {seconds} s: all groups are whole"),
            false => write!(text, "; `nova node ls --watch` shows how it is filled"),
        }
        .expect("writing to a String does not fail");
        if let Some(old) = old {
            let kept = format!(", then `nova node forget {host} {old}`");
            write!(text, "; {old} is {}", if *forgotten { "forgotten" } else { "still known" })
                .expect("writing to a String does not fail");
            if !forgotten {
                text.push_str(&kept);
            }
        }
        text.push('\n');
        text
    }
}

/// Carries out a command.
pub(super) fn run(global: &Global, region: &Region, command: DeviceCommand) -> anyhow::Result<()> {
    let mut host = Host::find(global, region, command.host())?;
    match command {
        DeviceCommand::Open { .. } => {
            let view = host.open()?;
            output::print(global.json, &view, OpenView::text)?;
            view.finish()
        }
        DeviceCommand::Close { device, .. } => {
            let id = host.device_named(&device)?;
            let view = host.close(&id)?;
            output::print(global.json, &view, CloseView::text)
        }
        DeviceCommand::Replace { place, no_wait, .. } => {
            let view = host.replace(place, !no_wait)?;
            output::print(global.json, &view, ReplaceView::text)
        }
    }
}

impl DeviceCommand {
    fn host(&self) -> &str {
        match self {
            Self::Open { host } | Self::Close { host, .. } | Self::Replace { host, .. } => host,
        }
    }
}

/// A host, as the controllers see it, and what is said of it meanwhile.
struct Host {
    controllers: Controllers,
    meter: Meter,
    name: String,
    /// The start of its novad.
    boot: u64,
    status: StatusResponse,
}

impl Host {
    fn find(global: &Global, region: &Region, name: &str) -> anyhow::Result<Self> {
        let mut controllers = Controllers::of(region)?;
        let status = controllers.status(PATIENCE)?;
        let meter = Meter::steps(global.progress);
        let mut host = Self { controllers, meter, name: name.to_owned(), boot: 0, status };
        host.boot = host.node()?.boot;
        Ok(host)
    }

    fn node(&self) -> anyhow::Result<&Node> {
        let nodes = self.status.map.iter().flat_map(|map| &map.nodes);
        let found = nodes.into_iter().find(|node| node.name == self.name);
        found.ok_or_else(|| Stop::not_found(format!("there is no host {:?}", self.name)))
    }

    /// Looks again, after a moment.
    fn look(&mut self) -> anyhow::Result<()> {
        std::thread::sleep(LOOK_EVERY);
        self.status = self.controllers.status(PATIENCE)?;
        if self.node()?.boot != self.boot {
            return Err(Stop::unavailable(format!(
                "the novad of {} started anew meanwhile, and opened what it could: `nova node ls` shows what serves",
                self.name
            )));
        }
        Ok(())
    }

    /// The id of a device that is named by its place or its id.
    fn device_named(&self, text: &str) -> anyhow::Result<Vec<u8>> {
        match text.parse::<u32>().ok().filter(|_| text.len() < 3) {
            Some(place) => self.device_at(place)?.ok_or_else(|| {
                Stop::not_found(format!(
                    "{} has no device open at place {place}: `nova node ls` lists its devices",
                    self.name
                ))
            }),
            None => Ok(device_id(text)?.to_be_bytes().to_vec()),
        }
    }

    /// The device that is open at a place.
    fn device_at(&self, place: u32) -> anyhow::Result<Option<Vec<u8>>> {
        let devices = &self.node()?.devices;
        Ok(devices.iter().find(|device| device.place == Some(place)).map(|device| device.device.to_vec()))
    }

    /// Waits until the host has carried out an order.
    fn wait_for(&mut self, order: u64, doing: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.node()?.devices_order < order {
            if begun.elapsed() > ORDER_WITHIN {
                return Err(Stop::unavailable(format!(
                    "{} did not say that it has {doing} its devices: its novad's log may say more",
                    self.name
                )));
            }
            let said = format!("waiting until {} has {doing} it", self.name);
            self.meter.say(said);
            self.look()?;
        }
        Ok(())
    }

    fn open(&mut self) -> anyhow::Result<OpenView> {
        let before = self.node()?.open_places.clone();
        let order = self.controllers.open_devices(&self.name, PATIENCE)?;
        self.wait_for(order, "opened")?;
        // What is open is taken by the controllers with the next heartbeats.
        let begun = Instant::now();
        let new: Vec<u32> =
            self.node()?.open_places.iter().copied().filter(|place| !before.contains(place)).collect();
        while let Some(place) = new.iter().find(|place| !self.serves(**place)) {
            if begun.elapsed() > TAKEN_WITHIN {
                return Err(Stop::unavailable(format!(
                    "device {place} of {} is open, and the controllers did not take it within {TAKEN_WITHIN:?}: see `nova \
                     cluster status`",
                    self.name
                )));
            }
            let said = format!("waiting until the controllers have device {place} of {}", self.name);
            self.meter.say(said);
            self.look()?;
        }
        let node = self.node()?;
        let opened = node.devices.iter().filter_map(|device| {
            let place = device.place.filter(|place| new.contains(place))?;
            Some(Opened { place, device: output::hex(&device.device), bytes_total: device.bytes_total })
        });
        let not_opened = node.device_troubles.iter().map(|trouble| Trouble {
            place: (trouble.place != CONFIGURATION).then_some(trouble.place),
            why: trouble.why.clone(),
        });
        let mut opened: Vec<Opened> = opened.collect();
        opened.sort_by_key(|device| device.place);
        Ok(OpenView { host: self.name.clone(), opened, not_opened: not_opened.collect() })
    }

    fn serves(&self, place: u32) -> bool {
        let serving = |node: &Node| {
            let of = |device: &&nova_api::cluster::Device| {
                device.place == Some(place) && device.state() == device::State::Serving
            };
            node.devices.iter().any(|device| of(&device))
        };
        self.node().is_ok_and(serving)
    }

    fn close(&mut self, id: &[u8]) -> anyhow::Result<CloseView> {
        let place = self.node()?.devices.iter().find(|device| *device.device == *id).and_then(|it| it.place);
        let order = self.controllers.close_device(&self.name, id, PATIENCE)?;
        self.wait_for(order, "closed")?;
        let hangs =
            place.is_some_and(|place| self.node().is_ok_and(|node| node.broken_devices.contains(&place)));
        Ok(CloseView { host: self.name.clone(), device: output::hex(id), hangs })
    }

    fn replace(&mut self, place: u32, wait: bool) -> anyhow::Result<ReplaceView> {
        let begun = Instant::now();
        let old = self.device_at(place)?;
        if let Some(old) = &old {
            self.close(old)?;
        }
        let opened = self.open()?;
        if let Some(trouble) = opened.not_opened.iter().find(|it| it.place.is_none_or(|it| it == place)) {
            let closed = old.as_ref().map_or("", |_| "; the old one is closed");
            return Err(Stop::new(Kind::Failed, trouble.text(&self.name) + closed).into());
        }
        let Some(new) = self.device_at(place)? else {
            return Err(Stop::not_found(format!(
                "no [[device]] stands at place {place} in the configuration of {}",
                self.name
            )));
        };
        let old = old.filter(|old| *old != new);
        if wait {
            self.wait_until_filled(place)?;
        }
        let forgotten = match &old {
            Some(old) if wait => self.forget(old)?,
            _ => false,
        };
        Ok(ReplaceView {
            host: self.name.clone(),
            place,
            old: old.as_deref().map(output::hex),
            new: output::hex(&new),
            groups: self.groups_on(place)?,
            filled: wait,
            forgotten,
            seconds: begun.elapsed().as_secs(),
        })
    }

    fn forget(&mut self, device: &[u8]) -> anyhow::Result<bool> {
        let request = ForgetDeviceRequest { name: self.name.clone(), device: device.to_vec().into() };
        match self.controllers.forget_device(&request, PATIENCE) {
            Ok(_) => Ok(true),
            // Something may still be had of it; or somebody was quicker.
            Err(error) => {
                let known = self.node()?.devices.iter().any(|it| *it.device == *device);
                self.meter.say(format!("{error:#}"));
                Ok(!known)
            }
        }
    }

    /// Groups with a replica on the device at a place.
    fn groups_on(&self, place: u32) -> anyhow::Result<usize> {
        let node = self.node()?;
        let device = node.devices.iter().find(|device| device.place == Some(place));
        let groups = self.status.map.iter().flat_map(|map| &map.groups);
        Ok(device.map_or(0, |device| {
            let on_it = |member: &nova_api::cluster::Member| {
                (member.node, member.incarnation) == (node.node, device.incarnation)
            };
            groups.filter(|group| group.members.iter().any(on_it)).count()
        }))
    }

    /// Waits until every group is whole and nothing more moves; says how far it is.
    fn wait_until_filled(&mut self, place: u32) -> anyhow::Result<()> {
        let mut quiet = Instant::now();
        while quiet.elapsed() < if self.groups_on(place)? > 0 { QUIET } else { QUIET_EMPTY } {
            self.look()?;
            let groups = self.status.map.iter().flat_map(|map| &map.groups);
            let short = groups.filter(|group| !is_in_sync(group)).count();
            let filling = FillingView::of(&health::Filling::all(&self.status), &self.name);
            if short > 0 || filling.is_some() {
                quiet = Instant::now();
            }
            let filling = filling.map_or_else(String::new, |filling| format!("; filling {}", filling.text()));
            let said = format!(
                "device {place} of {} has replicas of {} groups, {short} groups lack one{filling}",
                self.name,
                self.groups_on(place)?
            );
            self.meter.say(said);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_told_and_what_was_not_is_an_error() {
        let opened = Opened { place: 1, device: "ab".repeat(16), bytes_total: 1 << 30 };
        let view = |not_opened| OpenView { host: "storage-2".into(), opened: vec![], not_opened };
        assert!(view(vec![]).text().contains("open already") && view(vec![]).finish().is_ok());
        let both = OpenView {
            opened: vec![opened],
            ..view(vec![Trouble { place: Some(3), why: "it is in use".into() }])
        };
        assert!(both.text().contains("device 1 of storage-2 is open: abab"), "{}", both.text());
        let error = both.finish().unwrap_err().to_string();
        assert_eq!(error, "device 3 of storage-2 was not opened: it is in use");
        let error = view(vec![Trouble { place: None, why: "TOML".into() }]).finish().unwrap_err();
        assert!(error.to_string().starts_with("no device of storage-2 was opened: TOML"));
    }

    #[test]
    fn a_replaced_device_is_told_with_what_became_of_the_old_one() {
        let view = |old: Option<&str>, filled, forgotten| ReplaceView {
            host: "storage-2".into(),
            place: 1,
            old: old.map(str::to_owned),
            new: "cd".into(),
            groups: 6,
            filled,
            forgotten,
            seconds: 12,
        };
        let text = view(Some("ab"), true, true).text();
        assert!(text.contains("after 12 s: all groups are whole; ab is forgotten"), "{text}");
        let text = view(Some("ab"), false, false).text();
        assert!(text.contains("--watch") && text.contains("nova node forget storage-2 ab"), "{text}");
        assert!(!view(None, true, false).text().contains("known"));
    }
}
