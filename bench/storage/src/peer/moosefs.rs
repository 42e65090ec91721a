//! `MooseFS` from Debian's packages: a master, three chunk servers and a mount, all on this machine.

use std::fs::{self, File};

use anyhow::Result;

use super::rig::Rig;
use super::{ADDRESS, COPIES};

/// Programs it consists of.
pub(super) const PROGRAMS: &[&str] =
    &["mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal", "mfsfileinfo"];
const SERVERS_PORT: u16 = 20_421;
const CLIENTS_PORT: u16 = 20_422;
const CHUNKS_PORT: u16 = 20_423;

/// Starts and mounts it.
pub(super) fn up(rig: &mut Rig) -> Result<()> {
    rig.note_version(&["mfsmaster", "-v"])?;
    start_master(rig)?;
    for server in 1..=COPIES {
        start_chunk_server(rig, server)?;
    }
    let mount = rig.path("mount");
    rig.mount(&["mfsmount", &format!("{ADDRESS}:{CLIENTS_PORT}:/"), &mount, "-f"])?;
    wait_for_copies(rig)
}

/// Drops what the chunk servers' files have in the page cache.
pub(super) fn forget_cached(rig: &Rig) -> Result<()> {
    (1..=COPIES).try_for_each(|server| rig.forget_files(&format!("chunks-{server}")))
}

fn common(rig: &Rig, name: &str) -> String {
    let data = rig.path(name);
    format!("WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {data}\nSYSLOG_IDENT = {name}\n")
}

fn start_master(rig: &mut Rig) -> Result<()> {
    let data = rig.make_folder("master")?;
    fs::write(format!("{data}/metadata.mfs"), "MFSM NEW")?;
    let mut config = common(rig, "master");
    for (key, port) in [("MATOML", SERVERS_PORT - 1), ("MATOCS", SERVERS_PORT), ("MATOCL", CLIENTS_PORT)] {
        config += &format!("{key}_LISTEN_HOST = {ADDRESS}\n{key}_LISTEN_PORT = {port}\n");
    }
    let exports = rig.write_settings("exports.cfg", "10.77.77.0/24 / rw,alldirs,maproot=0\n")?;
    let topology = rig.write_settings("topology.cfg", "")?;
    config += &format!("EXPORTS_FILENAME = {exports}\nTOPOLOGY_FILENAME = {topology}\n");
    let config = rig.write_settings("master.cfg", &config)?;
    rig.start("master", &["mfsmaster", "-f", "-c", &config, "start"])
}

fn start_chunk_server(rig: &mut Rig, server: u16) -> Result<()> {
    let name = format!("server-{server}");
    rig.make_folder(&name)?;
    let chunks = rig.make_folder(&format!("chunks-{server}"))?;
    let list = rig.write_settings(&format!("chunks-{server}.cfg"), &format!("{chunks}\n"))?;
    let config = format!(
        "{}HDD_CONF_FILENAME = {list}\nHDD_FSYNC_BEFORE_CLOSE = 1\nMASTER_HOST = {ADDRESS}\nMASTER_PORT = \
         {SERVERS_PORT}\nMASTER_RECONNECTION_DELAY = 1\nCSSERV_LISTEN_HOST = {ADDRESS}\nCSSERV_LISTEN_PORT = {}\n",
        common(rig, &name),
        CHUNKS_PORT + server,
    );
    let config = rig.write_settings(&format!("{name}.cfg"), &config)?;
    rig.start(&name, &["mfschunkserver", "-f", "-c", &config, "start"])
}

/// Everything in the shared folder is to have three copies; waits until a file has them.
fn wait_for_copies(rig: &mut Rig) -> Result<()> {
    let shared = rig.shared();
    fs::create_dir(&shared)?;
    rig.run(&["mfssetgoal", "-r", &COPIES.to_string(), &shared.display().to_string()])?;
    let probe = shared.join("probe");
    rig.wait("a file with three copies", |rig| {
        let written = fs::write(&probe, [7; 4096]).and_then(|()| File::open(&probe)?.sync_all());
        let told = rig.ask(&["mfsfileinfo", &probe.display().to_string()])?;
        Ok(written.is_ok() && told.contains(&format!("copy {COPIES}")))
    })
}
