//! rclone, from nginx and over ssh.

use anyhow::Result;
use nova_measure::recipe::Recipe;

use super::{Kit, PORT, Plan, Task, address, ssh, web, words};
use crate::end::Side;

fn command() -> Vec<String> {
    let more = ["--transfers", "--checkers", "--multi-thread-streams"];
    let mut all = words(&["rclone", "copy", "--config", "/dev/null", "--multi-thread-cutoff", "16M"]);
    all.extend(more.into_iter().flat_map(|name| words(&[name, web::AT_ONCE])));
    all
}

pub(super) fn plan(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let mut client = command();
    let url = format!("{}/", web::url(task));
    client.extend(words(&["--ca-cert", &kit.path("web.pem"), "--http-url", &url, ":http:", &task.arrives()]));
    web::pulled(web::server(kit, task, recipe)?, client)
}

pub(super) fn plan_sftp(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let mut client = command();
    client.extend(words(&[
        "--sftp-host",
        &address(Side::Receiver).to_string(),
        "--sftp-port",
        &PORT.to_string(),
        "--sftp-user",
        "root",
        "--sftp-key-file",
        &kit.path("user"),
        "--sftp-known-hosts-file",
        &kit.path("known"),
        &task.source(),
        &format!(":sftp:{}", task.arrives()),
    ]));
    Ok(Plan {
        server_at: Side::Receiver,
        server: ssh::server(kit, recipe)?,
        port: PORT,
        client,
        server_ends: false,
    })
}
