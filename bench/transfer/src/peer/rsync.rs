//! rsync, to its own daemon and over ssh.

use anyhow::Result;
use nova_measure::recipe::Recipe;

use super::{Kit, PORT, Plan, Task, address, ssh, words};
use crate::end::Side;

pub(super) fn plan(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let at = address(Side::Receiver);
    let settings = format!(
        "port = {PORT}\naddress = {at}\nuse chroot = no\nuid = root\ngid = root\n[data]\n\tpath = {}\n\tread only = no\n",
        task.target(),
    );
    let settings = kit.write("rsyncd.conf", &settings, recipe)?;
    Ok(Plan {
        server_at: Side::Receiver,
        server: words(&["rsync", "--daemon", "--no-detach", "--config", &settings]),
        port: PORT,
        client: words(&[
            "rsync",
            "-a",
            "--whole-file",
            &task.source(),
            &format!("rsync://{at}:{PORT}/data/"),
        ]),
        server_ends: false,
    })
}

pub(super) fn plan_ssh(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let shell = format!("ssh -p {PORT} {}", ssh::client_options(kit).join(" "));
    Ok(Plan {
        server_at: Side::Receiver,
        server: ssh::server(kit, recipe)?,
        port: PORT,
        client: words(&[
            "rsync",
            "-a",
            "--whole-file",
            "-e",
            &shell,
            &task.source(),
            &ssh::remote(task.target),
        ]),
        server_ends: false,
    })
}
