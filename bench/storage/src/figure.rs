//! What was measured, and the lines it becomes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nova_measure::rounds::{median, per, real, share_of};
use nova_path::raw::RawRates;
use serde_json::json;

use crate::rows::{Bar, Row};

/// Processor time of the processes of a region.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Roles {
    /// `novad` of the host whose programs ask.
    pub(crate) edge: Duration,
    /// `novad` of the storage hosts.
    pub(crate) storage: Duration,
    /// Agents of all hosts.
    pub(crate) agents: Duration,
    /// Controllers.
    pub(crate) controllers: Duration,
}

impl Roles {
    /// Adds up processes by their names, as `nova dev status` gives them.
    pub(crate) fn of(processes: &[(String, Duration)]) -> Self {
        let mut roles = Self::default();
        for (name, used) in processes {
            let role = match name.split_once(' ') {
                Some((_, "agent")) => &mut roles.agents,
                Some((host, _)) if host.starts_with("compute") => &mut roles.edge,
                Some(_) => &mut roles.storage,
                None => &mut roles.controllers,
            };
            *role += *used;
        }
        roles
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            edge: self.edge.saturating_sub(before.edge),
            storage: self.storage.saturating_sub(before.storage),
            agents: self.agents.saturating_sub(before.agents),
            controllers: self.controllers.saturating_sub(before.controllers),
        }
    }

    pub(crate) fn sum(self) -> Duration {
        self.edge + self.storage + self.agents + self.controllers
    }
}

/// One row of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
    pub(crate) took: Duration,
    /// Processor time of every process of the region.
    pub(crate) servers: Duration,
    /// The same by what they are.
    pub(crate) roles: Roles,
    /// Processor time of the program that asks.
    pub(crate) client: Duration,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} MB/s, {:.0} operations/s, {:.0} MB and {:.0} operations a server CPU-second",
            per(self.bytes, self.took) / 1e6,
            per(self.operations, self.took),
            per(self.bytes, self.servers) / 1e6,
            per(self.operations, self.servers),
        )
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<&'static str, (Bar, Vec<Work>)>,
    /// By its name and the row of ours it stands beside.
    peers: BTreeMap<(&'static str, &'static str), Vec<Work>>,
    raw: Vec<RawRates>,
}

impl Table {
    pub(crate) fn note(&mut self, row: Row, work: Work) {
        self.rows.entry(row.name).or_insert((row.bar, Vec::new())).1.push(work);
    }

    /// Another file system did the same.
    pub(crate) fn note_peer(&mut self, peer: &'static str, beside: &'static str, work: Work) {
        self.peers.entry((peer, beside)).or_default().push(work);
    }

    pub(crate) fn note_raw(&mut self, rates: RawRates) {
        self.raw.push(rates);
    }

    /// A line for each row and system, medians over the rounds.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for (name, (bar, works)) in &self.rows {
            let over = |pick: &dyn Fn(&Work) -> f64| median(works.iter().map(pick));
            let share = |pick: fn(&RawRates) -> f64, copies: f64| {
                let pairs = works.iter().zip(&self.raw);
                median(pairs.map(|(work, raw)| per(work.bytes, work.took) * copies / pick(raw).max(1.0)))
            };
            let mut line = json!({
                "bench": name,
                "rounds": works.len(),
                "mb_per_s": over(&|work| per(work.bytes, work.took) / 1e6),
                "operations_per_s": over(&|work| per(work.operations, work.took)),
                "server_cpu_s_per_gb": over(&|work| work.servers.as_secs_f64() / (real(work.bytes) / 1e9)),
                "client_cpu_s_per_gb": over(&|work| work.client.as_secs_f64() / (real(work.bytes) / 1e9)),
                "mb_per_server_cpu_s": over(&|work| per(work.bytes, work.servers) / 1e6),
                "operations_per_server_cpu_s": over(&|work| per(work.operations, work.servers)),
                "share_of_server_cpu": {
                    "edge_novad": over(&|work| share_of(work.roles.edge, work.servers)),
                    "storage_novads": over(&|work| share_of(work.roles.storage, work.servers)),
                    "agents": over(&|work| share_of(work.roles.agents, work.servers)),
                    "controllers": over(&|work| share_of(work.roles.controllers, work.servers)),
                },
                "mb_per_cpu_s": over(&|work| per(work.bytes, work.servers + work.client) / 1e6),
                "operations_per_cpu_s": over(&|work| per(work.operations, work.servers + work.client)),
            });
            match bar {
                Bar::Write { mb_per_server_cpu_s, share_of_raw } => {
                    line["raw_write_mb_per_s"] = json!(median(self.raw.iter().map(|raw| raw.write / 1e6)));
                    line["times_3_share_of_raw_write"] = json!(share(|raw| raw.write, 3.0));
                    line["wanted"] = json!({"mb_per_server_cpu_s": mb_per_server_cpu_s, "times_3_share_of_raw_write": share_of_raw});
                }
                Bar::Read { mb_per_cpu_s } => {
                    line["raw_read_mb_per_s"] = json!(median(self.raw.iter().map(|raw| raw.read / 1e6)));
                    line["share_of_raw_read"] = json!(share(|raw| raw.read, 1.0));
                    line["wanted"] = json!({"mb_per_cpu_s": mb_per_cpu_s});
                }
                Bar::Operations { per_server_cpu_s } => {
                    line["wanted"] = json!({"operations_per_server_cpu_s": per_server_cpu_s});
                }
            }
            lines.push(line);
        }
        for ((peer, beside), works) in &self.peers {
            let ours = self.rows.get(beside).map(|(_, works)| works.as_slice()).unwrap_or_default();
            lines.push(peer_line(peer, beside, works, ours));
        }
        lines
    }
}

/// The lines for people: a block for each row of work. A ratio is ours by the peer's, so more is better for us.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        for name in self.rows.keys() {
            writeln!(f, "{name}")?;
            writeln!(
                f,
                "  {:<8} {:>8} {:>9} {:>10} {:>12} {:>11} {:>12} {:>16}",
                "", "MB/s", "op/s", "CPU-s/GB", "MB/CPU-s", "op/CPU-s", "ours by it", "and by CPU-s",
            )?;
            for line in lines.iter().filter(|line| line["bench"] == *name) {
                let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
                let ratio = |key: &str| {
                    line["ours_by_peer"][key].as_f64().map_or_else(String::new, |ratio| format!("{ratio:.2}"))
                };
                writeln!(
                    f,
                    "  {:<8} {:>8.0} {:>9.0} {:>10.2} {:>12.0} {:>11.0} {:>12} {:>16}",
                    line["peer"].as_str().unwrap_or("novafs"),
                    number("mb_per_s"),
                    number("operations_per_s"),
                    number("server_cpu_s_per_gb"),
                    number("mb_per_server_cpu_s"),
                    number("operations_per_server_cpu_s"),
                    ratio("bytes_per_s"),
                    ratio("bytes_per_server_cpu_s"),
                )?;
            }
        }
        let raw = |pick: fn(&RawRates) -> f64| median(self.raw.iter().map(pick)) / 1e6;
        writeln!(
            f,
            "raw device: write {:.0} MB/s, read {:.0} MB/s",
            raw(|raw| raw.write),
            raw(|raw| raw.read)
        )
    }
}

/// What a peer did, and how many times that ours is: medians over the rounds.
fn peer_line(peer: &str, beside: &str, works: &[Work], ours: &[Work]) -> serde_json::Value {
    let over = |pick: fn(&Work) -> f64| median(works.iter().map(pick));
    let times = |pick: fn(&Work) -> f64| {
        median(ours.iter().zip(works).map(|(ours, work)| pick(ours) / pick(work).max(1e-9)))
    };
    let rate = |work: &Work| per(work.operations, work.took);
    let per_cpu = |work: &Work| per(work.operations, work.servers);
    let cost = |work: &Work| work.servers.as_secs_f64() / (real(work.bytes) / 1e9);
    json!({
        "bench": beside,
        "peer": peer,
        "rounds": works.len(),
        "mb_per_s": over(|work| per(work.bytes, work.took) / 1e6),
        "operations_per_s": over(rate),
        "server_cpu_s_per_gb": over(cost),
        "mb_per_server_cpu_s": over(|work| per(work.bytes, work.servers) / 1e6),
        "operations_per_server_cpu_s": over(per_cpu),
        "ours_by_peer": {
            "bytes_per_s": times(|work| per(work.bytes, work.took)),
            "bytes_per_server_cpu_s": times(|work| per(work.bytes, work.servers)),
            "operations_per_server_cpu_s": times(per_cpu),
            "server_cpu_s_per_gb": times(cost),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart_by_their_names() {
        let names =
            ["controller-1", "storage-1 novad", "storage-1 agent", "storage-2 novad", "compute-1 novad"];
        let processes = names.map(|name| (name.to_owned(), Duration::from_secs(1)));
        let roles = Roles::of(&processes);
        assert_eq!(
            [roles.edge, roles.storage, roles.agents, roles.controllers],
            [1, 2, 1, 1].map(Duration::from_secs)
        );
        assert_eq!(roles.sum(), Duration::from_secs(5));
        assert_eq!(roles.since(roles).sum(), Duration::ZERO);
    }

    #[test]
    fn ours_is_told_as_so_many_times_the_peers() {
        let second = Duration::from_secs(1);
        let work = |bytes, servers| Work {
            bytes,
            operations: bytes / 1000,
            took: second,
            servers,
            roles: Roles::default(),
            client: second,
        };
        let line = peer_line("other", "write", &[work(100_000, second * 2)], &[work(300_000, second)]);
        assert_eq!(line["ours_by_peer"]["bytes_per_s"], 3.0);
        assert_eq!(line["ours_by_peer"]["bytes_per_server_cpu_s"], 6.0);
        assert_eq!(line["operations_per_server_cpu_s"], 50.0);
    }

    #[test]
    fn a_table_has_every_system_of_a_row_and_its_ratio() {
        let second = Duration::from_secs(1);
        let work = |bytes| Work {
            bytes,
            operations: 1,
            took: second,
            servers: second,
            roles: Roles::default(),
            client: second,
        };
        let mut table = Table::default();
        table.note(crate::rows::ROWS[5], work(500_000_000));
        table.note_peer("other", crate::rows::CREATE, work(250_000_000));
        let text = table.to_string();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0].join(" "), crate::rows::CREATE);
        assert_eq!(rows[2], ["novafs", "500", "1", "2.00", "500", "1"]);
        assert_eq!(rows[3], ["other", "250", "1", "4.00", "250", "1", "2.00", "2.00"]);
    }

    #[test]
    fn work_is_told_per_second_and_per_processor_second() {
        let second = Duration::from_secs(1);
        let work = Work {
            bytes: 200_000_000,
            operations: 50,
            took: second,
            servers: second / 2,
            roles: Roles::default(),
            client: second,
        };
        let text = work.to_string();
        assert_eq!(text, "200 MB/s, 50 operations/s, 400 MB and 100 operations a server CPU-second");
    }
}
