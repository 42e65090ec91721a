//! `nova dev status`, and the form in which a region is shown.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::arguments::Global;
use crate::dev::process::Process;
use crate::dev::region::{HostRole, Region};
use crate::output;

/// A region for people and scripts.
#[derive(Debug, Serialize)]
pub(crate) struct View<'a> {
    folder: &'a Path,
    controllers: Vec<ControllerView<'a>>,
    hosts: Vec<HostView<'a>>,
    seconds: f64,
    /// Processor time of all processes that run now.
    cpu_seconds: f64,
}

#[derive(Debug, Serialize)]
struct ControllerView<'a> {
    name: &'a str,
    id: u64,
    pid: Option<i32>,
    alive: bool,
    address: &'a str,
    cpu_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct HostView<'a> {
    name: &'a str,
    role: HostRole,
    novad_pid: Option<i32>,
    agent_pid: Option<i32>,
    /// Both run.
    alive: bool,
    novad_alive: bool,
    agent_alive: bool,
    address: &'a str,
    devices: &'a [PathBuf],
    agent_socket: &'a Path,
    cpu_seconds: Option<f64>,
}

impl<'a> View<'a> {
    /// The region as it is now.
    pub(crate) fn of(region: &'a Region) -> Self {
        // The id of a process that has ended is nobody's, or another's.
        let pid = |process: Option<Process>| {
            process.filter(|process| process.is_alive()).map(|process| process.pid)
        };
        let cpu = |process: Option<Process>| process.and_then(Process::cpu_seconds);
        let alive = |process: Option<Process>| process.is_some_and(Process::is_alive);
        let controllers: Vec<_> = region
            .controllers
            .iter()
            .map(|controller| ControllerView {
                name: &controller.name,
                id: controller.id,
                pid: pid(controller.control),
                alive: alive(controller.control),
                address: &controller.address,
                cpu_seconds: cpu(controller.control),
            })
            .collect();
        let hosts: Vec<_> = region
            .hosts
            .iter()
            .map(|host| {
                let (novad, agent) = (alive(host.novad), alive(host.agent));
                let used: Vec<_> = [cpu(host.novad), cpu(host.agent)].into_iter().flatten().collect();
                HostView {
                    name: &host.name,
                    role: host.role,
                    novad_pid: pid(host.novad),
                    agent_pid: pid(host.agent),
                    alive: novad && agent,
                    novad_alive: novad,
                    agent_alive: agent,
                    address: &host.data_address,
                    devices: &host.devices,
                    agent_socket: &host.agent_socket,
                    cpu_seconds: (!used.is_empty()).then(|| used.iter().sum()),
                }
            })
            .collect();
        let of_controllers = controllers.iter().filter_map(|controller| controller.cpu_seconds);
        let cpu_seconds = of_controllers.chain(hosts.iter().filter_map(|host| host.cpu_seconds)).sum();
        Self { folder: &region.folder, controllers, hosts, seconds: region.seconds, cpu_seconds }
    }

    /// As a table.
    pub(crate) fn text(&self) -> String {
        let shown = |pid: Option<i32>| pid.map_or_else(|| "down".to_owned(), |pid| pid.to_string());
        let mut rows = Vec::new();
        for controller in &self.controllers {
            let pid = shown(controller.pid);
            rows.push([
                controller.name.to_owned(),
                pid,
                String::new(),
                controller.address.to_owned(),
                String::new(),
            ]);
        }
        for host in &self.hosts {
            let devices: Vec<_> = host.devices.iter().map(|device| device.display().to_string()).collect();
            let (novad, agent) = (shown(host.novad_pid), shown(host.agent_pid));
            rows.push([host.name.to_owned(), novad, agent, host.address.to_owned(), devices.join(" ")]);
        }
        let table = output::table(["NAME", "PROCESS", "AGENT", "ADDRESS", "DEVICES"], &[1, 2], &rows);
        format!("region in {}\n{table}", self.folder.display())
    }
}

pub(super) fn run(global: &Global) -> anyhow::Result<()> {
    let mut region = Region::load(&global.region_folder()?)?;
    region.find_unrecorded()?;
    output::print(global.json, &View::of(&region), View::text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::region::tests::region_in;

    #[test]
    fn the_json_of_a_region_has_the_keys_that_scripts_read() {
        let mut region = region_in(Path::new("/r"));
        let own = Process::own();
        (region.controllers[0].control, region.hosts[0].novad) = (Some(own), Some(own));
        let json = serde_json::to_value(View::of(&region)).unwrap();
        assert_eq!(json["folder"], "/r");
        assert_eq!(json["seconds"], 2.5);
        assert_eq!(json["controllers"][0]["address"], "127.0.0.1:7401");
        assert_eq!(json["controllers"][0]["pid"], own.pid);
        let storage = &json["hosts"][0];
        assert_eq!((&storage["name"], &storage["role"]), (&"storage-1".into(), &"storage".into()));
        assert_eq!(
            (&storage["novad_pid"], &storage["agent_pid"]),
            (&own.pid.into(), &serde_json::Value::Null)
        );
        assert_eq!(
            (&storage["alive"], &storage["novad_alive"], &storage["agent_alive"]),
            (&false.into(), &true.into(), &false.into())
        );
        assert!(json["cpu_seconds"].as_f64().unwrap() >= 0.0);
        assert_eq!(storage["devices"], serde_json::json!(["/r/storage-1/device.nova"]));
        assert_eq!(storage["agent_socket"], "/r/storage-1/agent.sock");
        assert_eq!(json["hosts"][1]["devices"], serde_json::json!([]));
    }

    #[test]
    fn a_process_that_does_not_run_is_shown_as_down() {
        let region = region_in(Path::new("/r"));
        assert!(View::of(&region).text().lines().nth(2).unwrap().contains("down"));
    }
}
