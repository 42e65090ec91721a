//! Ours: the receiver serves a folder, the sender copies into it.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Kit, PORT, Plan, Task, address, words};
use crate::end::Side;

/// Makes an identity, which trusts itself.
pub(super) fn prepare(kit: &Kit) -> Result<()> {
    let nova = kit.bins.join("nova").display().to_string();
    kit.make(&[&nova, "identity", "new", "--name", "bench", "--folder", &identity(kit)])
        .with_context(|| format!("make an identity: is everything built, in {}?", kit.bins.display()))
}

/// The program that `nova bulk` becomes.
pub(super) fn tool(kit: &Kit) -> String {
    kit.bins.join("nova-bulk").display().to_string()
}

fn identity(kit: &Kit) -> String {
    Path::new(&kit.folder).join("identity").display().to_string()
}

pub(super) fn plan(kit: &Kit, task: Task<'_>) -> Plan {
    let (tool, identity) = (tool(kit), identity(kit));
    let at = format!("{}:{PORT}", address(Side::Receiver));
    let streams = kit.streams.to_string();
    Plan {
        server_at: Side::Receiver,
        server: words(&[&tool, "--identity", &identity, "serve", "--listen", &at, "--root", &task.target()]),
        port: PORT,
        client: words(&[
            &tool,
            "--json",
            "--identity",
            &identity,
            "copy",
            "--streams",
            &streams,
            &task.source(),
            &format!("{at}/"),
        ]),
        server_ends: false,
    }
}
