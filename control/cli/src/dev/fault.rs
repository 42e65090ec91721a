//! `nova dev kill` and `nova dev restart`: what a bad day does to a host, and what a good one does.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use crate::arguments::Global;
use crate::cluster;
use crate::dev::down::{Named, PATIENCE};
use crate::dev::process::wait_gone;
use crate::dev::region::{Region, end};
use crate::dev::up;
use crate::exit::Stop;
use crate::output;

/// The name that stands for the controller that leads the files group.
const LEADER: &str = "leader";
/// A killed process is gone as soon as its system calls end.
const KILLED_GONE_WITHIN: Duration = Duration::from_secs(10);
/// A process that cannot run with its configuration ends within this time.
const STARTED_AFTER: Duration = Duration::from_millis(300);

pub(super) fn kill(global: &Global, name: &str) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        killed: Vec<Named>,
    }
    let (region, _lock) = Region::load_locked(&global.region_folder()?)?;
    let name = if name == LEADER { leader(&region)? } else { name.to_owned() };
    let places = region.places_of(&name)?;
    let running: Vec<_> = region.running().into_iter().filter(|(place, _)| places.contains(place)).collect();
    let mut killed = Vec::new();
    for (place, process) in &running {
        if process.signal(Signal::KILL)? {
            killed.push((*place, *process));
        }
    }
    if killed.is_empty() {
        return Err(Stop::not_found(format!("{name} does not run: `nova dev restart {name}` starts it")));
    }
    if let Some((place, process)) = wait_gone(&killed, KILLED_GONE_WITHIN).first() {
        anyhow::bail!(
            "{} of {} (process {}) does not end even when killed",
            place.program.word(),
            name,
            process.pid
        );
    }
    output::print(global.json, &View { killed: killed.iter().map(Named::of).collect() }, |view| {
        view.killed
            .iter()
            .map(|ended| format!("killed {} of {} ({})\n", ended.process, ended.name, ended.pid))
            .collect()
    })
}

/// Name of the controller that leads the files group.
fn leader(region: &Region) -> anyhow::Result<String> {
    let leader = cluster::leader_of(region, "files")?;
    let controller = region.controllers.iter().find(|controller| Some(controller.id) == leader);
    let controller =
        controller.ok_or_else(|| Stop::unavailable("no controller leads the files group now: try again"))?;
    Ok(controller.name.clone())
}

pub(super) fn restart(global: &Global, name: &str) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        started: Vec<Named>,
    }
    let (mut region, _lock) = Region::load_locked(&global.region_folder()?)?;
    let places = region.places_of(name)?;
    let running: Vec<_> = region.running().into_iter().filter(|(place, _)| places.contains(place)).collect();
    end(&running, PATIENCE)?;
    let programs: Vec<_> = places.iter().map(|place| place.program).collect();
    let mut children = Vec::new();
    for program in programs {
        children.push(up::start_one(&mut region, name, program)?);
    }
    std::thread::sleep(STARTED_AFTER);
    for child in &mut children {
        child.check(&region)?;
    }
    let started = children.iter().map(up::Started::named).collect();
    output::print(global.json, &View { started }, |view| {
        view.started
            .iter()
            .map(|started| format!("started {} of {} ({})\n", started.process, started.name, started.pid))
            .collect()
    })
}
