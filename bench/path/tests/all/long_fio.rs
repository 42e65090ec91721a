//! fio(1) writes to a mount in the ways programs do, and verifies every block of it: while it writes, and after another
//! mount.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::mounted::{Mounted, cannot_mount};
use super::rig::Rig;
use super::skip::skip;

/// What all jobs have in common: two files each, and blocks that carry their sum, their place and their order.
const GLOBAL: &str = "
[global]
ioengine=psync
nrfiles=2
verify_fatal=1
verify_dump=0
randseed=20260127
fallocate=none
thread
";
/// One job each. What lies over an older block replaces it, so random ones need no place of their own.
const JOBS: &str = "
[unaligned]
rw=randwrite
bssplit=1111/40:3333/30:11110/20:199980/10
size=23331k
fsync=40
verify=crc32c

[small]
rw=randwrite
bssplit=512/30:4k/40:16k/20:64k/10
size=8m
fdatasync=64
verify=sha256

[again]
rw=randwrite
bs=4k
norandommap
io_size=24m
size=8m
verify=crc32c

[stream]
rw=write
bs=1m
size=48m
end_fsync=1
verify=crc32c

[direct]
rw=randwrite
direct=1
ioengine=libaio
iodepth=8
bsrange=4k-256k
size=24m
verify=crc32c

[mapped]
rw=randwrite
ioengine=mmap
bs=4k
fsync=32
size=8m
verify=sha256
";

/// Why fio cannot run here.
fn cannot_run_fio() -> Option<String> {
    let why = match Command::new("fio").arg("--version").output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => format!("fio does not run: {}", output.status),
        Err(_) => "there is no fio: install the package fio".to_owned(),
    };
    skip(&why);
    Some(why)
}

/// Runs all jobs in `folder`, with `extra` in the common part.
fn fio(jobs: &Path, folder: &Path, extra: &str) -> Output {
    std::fs::write(jobs, format!("{GLOBAL}directory={}\n{extra}\n{JOBS}", folder.display())).unwrap();
    Command::new("fio").arg("--output-format=terse").arg(jobs).current_dir("/").output().unwrap()
}

fn assert_success(output: &Output, what: &str) {
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "fio {what}: {}\n{errors}\n{said}", output.status);
}

#[test]
fn fio_finds_every_block_that_it_wrote_and_notices_one_that_is_not() {
    if cannot_mount().is_some() || cannot_run_fio().is_some() {
        return;
    }
    let rig = Rig::start("long_fio", 1024);
    let jobs = rig.local("jobs").join("verify.fio");
    let mounted = Mounted::start(&rig, "/hot");
    // Verified by who wrote, some blocks later.
    assert_success(&fio(&jobs, &mounted.at, "verify_backlog=50"), "writes and verifies");
    mounted.end();

    // Nothing of it is in memory of a kernel or a client any more.
    let again = Mounted::start(&rig, "/hot");
    assert_success(&fio(&jobs, &again.at, "verify_only"), "verifies after another mount");

    // One byte in the middle of a file: what found nothing above does find something.
    let file = File::options().read(true).write(true).open(again.at.join("stream.0.1")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 11_500_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 11_500_000).unwrap();
    drop(file);
    let found = fio(&jobs, &again.at, "verify_only");
    assert!(!found.status.success(), "fio does not notice a byte that was changed");
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(said.contains("verify failed"), "{said}");
    again.end();
    rig.assert_no_findings();
    rig.region.down().unwrap();
}
