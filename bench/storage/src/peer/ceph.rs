//! Ceph from Debian's packages: a monitor, a manager, three `BlueStore` OSDs on plain files, a metadata server, and
//! `CephFS` in pools of size 3, mounted by `ceph-fuse`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::rig::Rig;
use super::{ADDRESS, COPIES};

/// Programs it consists of.
pub(super) const PROGRAMS: &[&str] =
    &["ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds", "ceph-fuse", "monmaptool"];
/// Room of an OSD beside what the rows write: its log, its metadata, and what it wants to stay free. The file is
/// sparse.
const OSD_SPARE_MIB: u64 = 8192;
const DATA_GROUPS: &str = "32";
const METADATA_GROUPS: &str = "16";

/// Starts and mounts it; the rows will write `written_mib` MiB in all.
pub(super) fn up(rig: &mut Rig, written_mib: u64) -> Result<()> {
    let config = start_cluster(rig, written_mib)?;
    rig.make_folder("mds")?;
    rig.start("mds", &["ceph-mds", "-c", &config, "-i", "m", "-f"])?;
    rig.run(&["ceph", "-c", &config, "osd", "pool", "create", "metadata", METADATA_GROUPS])?;
    rig.run(&["ceph", "-c", &config, "fs", "new", "peer", "metadata", "data"])?;
    rig.wait("an active metadata server", |rig| {
        Ok(rig.ask(&["ceph", "-c", &config, "mds", "stat"])?.contains("up:active"))
    })?;
    wait_for_copies(rig, &config)?;
    let mount = rig.path("mount");
    rig.mount(&["ceph-fuse", "-c", &config, "-f", &mount])?;
    fs::create_dir(rig.shared()).context("create the shared folder")
}

/// Starts monitor, manager and OSDs, and makes the pool `data`; answers the path of the configuration.
pub(super) fn start_cluster(rig: &mut Rig, written_mib: u64) -> Result<String> {
    rig.note_version(&["ceph-osd", "--version"])?;
    let fsid = uuid()?;
    let config = configure(rig, &fsid, (written_mib + OSD_SPARE_MIB) << 20)?;
    start_monitor(rig, &config, &fsid)?;
    rig.make_folder("mgr")?;
    rig.start("mgr", &["ceph-mgr", "-c", &config, "-i", "x", "-f"])?;
    for osd in 0..COPIES {
        start_osd(rig, &config, osd)?;
    }
    rig.run(&["ceph", "-c", &config, "osd", "pool", "create", "data", DATA_GROUPS])?;
    Ok(config)
}

/// Drops what the OSDs remember of their devices, and what the page cache has of them.
pub(super) fn forget_cached(rig: &Rig) -> Result<()> {
    for osd in 0..COPIES {
        rig.ask(&["ceph", "--admin-daemon", &rig.path(&format!("osd.{osd}.asok")), "cache", "drop"])?;
        rig.forget_files(&format!("osd-{osd}"))?;
    }
    Ok(())
}

fn uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").context("ask the kernel for a UUID")?;
    Ok(text.trim().to_owned())
}

/// Everything below the folder, no passwords, and what three OSDs on one host need; the rest is Ceph's own choice.
fn configure(rig: &mut Rig, fsid: &str, device_bytes: u64) -> Result<String> {
    let folder = rig.path("");
    let folder = folder.trim_end_matches('/');
    let text = format!(
        "[global]\nfsid = {fsid}\nmon_host = [v2:{ADDRESS}:3300]\npublic_addr = {ADDRESS}\ncluster_addr = \
         {ADDRESS}\nauth_cluster_required = none\nauth_service_required = none\nauth_client_required = \
         none\nosd_pool_default_size = {COPIES}\nosd_pool_default_min_size = 2\nosd_crush_chooseleaf_type = \
         0\nosd_pool_default_pg_autoscale_mode = off\nclient_mount_timeout = 60\nrun_dir = {folder}\npid_file =\n\
         admin_socket = {folder}/$name.asok\nlog_file = {folder}/$name.log\nmon_cluster_log_file = \
         {folder}/cluster.log\ncrash_dir = {folder}\nmon_data = {folder}/mon\nmon_data_avail_warn = \
         1\nmon_data_avail_crit = 0\nmgr_data = {folder}/mgr\nmds_data = {folder}/mds\nosd_data = \
         {folder}/osd-$id\nosd_objectstore = bluestore\nbluestore_block_create = true\nbluestore_block_size = \
         {device_bytes}\n"
    );
    rig.write_settings("ceph.conf", &text)
}

fn start_monitor(rig: &mut Rig, config: &str, fsid: &str) -> Result<()> {
    rig.make_folder("mon")?;
    let (map, address) = (rig.path("monmap"), format!("[v2:{ADDRESS}:3300]"));
    rig.run(&["monmaptool", "--create", "--fsid", fsid, "--addv", "a", &address, &map])?;
    rig.run(&["ceph-mon", "-c", config, "-i", "a", "--mkfs", "--monmap", &map])?;
    rig.start("mon", &["ceph-mon", "-c", config, "-i", "a", "-f"])?;
    // The command itself waits for the monitor, and is stopped when that does not answer.
    rig.ask(&["ceph", "-c", config, "mon", "stat"]).map(drop)
}

fn start_osd(rig: &mut Rig, config: &str, osd: u16) -> Result<()> {
    let (id, name, key) = (osd.to_string(), format!("osd-{osd}"), uuid()?);
    rig.make_folder(&name)?;
    rig.run(&["ceph", "-c", config, "osd", "new", &key, &id])?;
    rig.run(&["ceph-osd", "-c", config, "-i", &id, "--mkfs", "--osd-uuid", &key])?;
    rig.start(&name, &["ceph-osd", "-c", config, "-i", &id, "-f"])
}

/// Waits until every placement group has all its copies.
pub(super) fn wait_for_copies(rig: &mut Rig, config: &str) -> Result<()> {
    let size = rig.ask(&["ceph", "-c", config, "osd", "pool", "get", "data", "size"])?;
    ensure!(size.trim() == format!("size: {COPIES}"), "Ceph answers '{}' for its copies", size.trim());
    rig.wait("placement groups with all copies", |rig| {
        Ok(is_clean(&rig.ask(&["ceph", "-c", config, "pg", "stat"])?))
    })
}

/// Reads `49 pgs: 49 active+clean; ...`, where every group is to be so.
fn is_clean(said: &str) -> bool {
    let counts =
        said.split_once(" pgs: ").and_then(|(all, rest)| Some((all, rest.split_once(" active+clean;")?.0)));
    counts.is_some_and(|(all, clean)| all.trim() == clean && clean != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_clean_only_when_all_of_them_are() {
        assert!(is_clean("49 pgs: 49 active+clean; 2.3 KiB data, 871 MiB used, 11 GiB / 12 GiB avail\n"));
        assert!(!is_clean("49 pgs: 16 creating+peering, 33 active+clean; 0 B data\n"));
        assert!(!is_clean("0 pgs: ; 0 B data, 0 B used\n"));
    }
}
