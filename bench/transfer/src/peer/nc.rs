//! Bare connections: iperf3, and nc with a file or the output of tar.

use std::time::Duration;

use super::{PORT, Plan, Task, address, words};
use crate::end::Side;
use crate::set::Kind as SetKind;

pub(super) fn plan_iperf(task: Task<'_>) -> Plan {
    let (at, port) = (address(Side::Receiver).to_string(), PORT.to_string());
    let bytes = task.set.bytes.to_string();
    Plan {
        server_at: Side::Receiver,
        server: words(&["iperf3", "--server", "--one-off", "--bind", &at, "--port", &port]),
        port: PORT,
        client: words(&["iperf3", "--client", &at, "--port", &port, "--bytes", &bytes, "--json"]),
        server_ends: false,
    }
}

/// The seconds in which the receiver got the bytes.
pub(super) fn iperf_time(said: &str) -> Option<Duration> {
    let told: serde_json::Value = serde_json::from_str(said).ok()?;
    Duration::try_from_secs_f64(told["end"]["sum_received"]["seconds"].as_f64()?).ok()
}

pub(super) fn plan(task: Task<'_>) -> Plan {
    let at = address(Side::Receiver);
    let (serve, send) = match task.set.kind {
        SetKind::Small => (
            format!("nc -l {at} {PORT} | tar -C {} -xf -", task.target()),
            format!("tar -C {} -cf - {} | nc -N {at} {PORT}", task.above(), task.set.kind.name()),
        ),
        SetKind::Large | SetKind::Text => (
            format!("mkdir {0} && nc -l {at} {PORT} >{0}/file", task.arrives()),
            format!("nc -N {at} {PORT} <{}/file", task.source()),
        ),
    };
    Plan {
        server_at: Side::Receiver,
        server: words(&["sh", "-c", &serve]),
        port: PORT,
        client: words(&["sh", "-c", &send]),
        server_ends: true,
    }
}
