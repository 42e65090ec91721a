//! `GlusterFS` from Debian's packages: one `glusterd`, a volume of three bricks that are copies, and a mount.
//!
//! Its daemons keep sockets and logs in fixed places of the machine, and detach themselves. So they run in a mount
//! namespace where those places are folders of ours, and in a process namespace that ends all of them at once.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::rig::Rig;
use super::{ADDRESS, COPIES};

/// Programs it consists of.
pub(super) const PROGRAMS: &[&str] = &["glusterd", "glusterfsd", "glusterfs", "gluster", "unshare", "mount"];
const VOLUME: &str = "peer";

/// Starts and mounts it.
pub(super) fn up(rig: &mut Rig) -> Result<()> {
    rig.note_version(&["glusterfsd", "--version"])?;
    start_daemon(rig)?;
    let replicas = COPIES.to_string();
    let mut words = vec!["volume", "create", VOLUME, "replica", &replicas];
    let mut bricks = Vec::new();
    for brick in 1..=COPIES {
        bricks.push(format!("{ADDRESS}:{}", rig.make_folder(&format!("brick-{brick}"))?));
    }
    words.extend(bricks.iter().map(String::as_str));
    // All bricks are on one host and on the root file system: it has to be told that this is meant.
    words.push("force");
    ask_daemon(rig, &words)?;
    ask_daemon(rig, &["volume", "start", VOLUME])?;
    let (log, mount) = (rig.path("client.log"), rig.path("mount"));
    rig.mount(&["glusterfs", "-N", "-l", &log, "-s", ADDRESS, "--volfile-id", VOLUME, &mount])?;
    wait_for_copies(rig)
}

/// Drops what the bricks' files have in the page cache.
pub(super) fn forget_cached(rig: &Rig) -> Result<()> {
    (1..=COPIES).try_for_each(|brick| rig.forget_files(&format!("brick-{brick}")))
}

fn start_daemon(rig: &mut Rig) -> Result<()> {
    let (state, run, logs) = (rig.make_folder("state")?, rig.make_folder("run")?, rig.make_folder("logs")?);
    let socket = rig.path("glusterd.socket");
    let config = format!(
        "volume management\n    type mgmt/glusterd\n    option working-directory {state}\n    option run-directory \
         {run}\n    option glusterd-sockfile {socket}\n    option transport-type socket\n    option \
         transport.socket.bind-address {ADDRESS}\nend-volume\n"
    );
    let config = rig.write_settings("glusterd.vol", &config)?;
    let log = rig.path("glusterd.log");
    let script = format!(
        "mkdir -p /run/gluster /var/log/glusterfs && mount --bind '{run}' /run/gluster && mount --bind '{logs}' \
         /var/log/glusterfs && exec glusterd -N -f '{config}' -l '{log}'"
    );
    let spaces = ["--mount", "--propagation=slave", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut words = vec!["unshare"];
    words.extend(spaces);
    words.extend(["sh", "-c", &script]);
    rig.start("glusterd-output", &words)?;
    rig.wait("an answer of glusterd", |rig| {
        let cli = rig.path("cli.log");
        let (socket, log) = (format!("--glusterd-sock={socket}"), format!("--log-file={cli}"));
        Ok(rig.ask(&["gluster", "--mode=script", &socket, &log, "pool", "list"]).is_ok())
    })
}

fn ask_daemon(rig: &mut Rig, words: &[&str]) -> Result<String> {
    let socket = format!("--glusterd-sock={}", rig.path("glusterd.socket"));
    let log = format!("--log-file={}", rig.path("cli.log"));
    let mut command = vec!["gluster", "--mode=script", &socket, &log];
    command.extend(words);
    rig.run(&command)
}

/// Waits until every brick has what is written through the mount.
fn wait_for_copies(rig: &mut Rig) -> Result<()> {
    let shared = rig.shared();
    rig.wait("a file with three copies", |rig| {
        if fs::create_dir_all(&shared).and_then(|()| fs::write(shared.join("probe"), [7; 4096])).is_err() {
            return Ok(false);
        }
        let on = |brick| Path::new(&rig.path(&format!("brick-{brick}/shared/probe"))).is_file();
        Ok((1..=COPIES).all(on))
    })
}
