//! A region for one test, trees to put into it, and the comparison of what comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer;
use nova_path::compare::{Pair, compare};
use nova_path::interrupt::Interrupt;
use nova_path::nova::{Finished, Nova};
use nova_path::region::{Region, Size};
use tempfile::TempDir;

/// Groups are whole again within this time.
pub(crate) const IN_SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// A put or get of a small tree.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// A small region; it goes down with the test, however that ends.
pub(crate) struct Rig {
    pub(crate) region: Region,
    pub(crate) folder: TempDir,
}

/// The folder of the binaries: where cargo put the demo.
pub(crate) fn bins() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_demo")).parent().unwrap().to_owned()
}

impl Rig {
    /// Starts a region with devices of `device_mib`; `name` is the test's, for its logs.
    pub(crate) fn start(name: &str, device_mib: u64) -> Self {
        Self::start_of(name, Size::standard(device_mib))
    }

    /// Starts a region of `size`.
    pub(crate) fn start_of(name: &str, size: Size) -> Self {
        // Not /tmp, which may be in memory: devices ask for direct I/O.
        let folder = tempfile::Builder::new().prefix("nova-path-").tempdir_in("/var/tmp").unwrap();
        let nova = Nova::new(&bins(), &folder.path().join("region"), Interrupt::default()).unwrap();
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.logs"));
        let _ = fs::remove_dir_all(&logs);
        let region = Region::up(nova, &bins(), &size, &logs).unwrap();
        region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        Self { region, folder }
    }

    pub(crate) fn nova(&self) -> &Nova {
        self.region.nova()
    }

    /// Room on the fullest device. Hosts of a region that was started a moment ago have not said it yet.
    pub(crate) fn room(&self) -> u64 {
        let begun = Instant::now();
        loop {
            let room = self.region.status().unwrap().bytes_free_min();
            if room > 0 {
                return room;
            }
            assert!(begun.elapsed() < IN_SYNC_TIMEOUT, "no host says how full its devices are");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Compares the file metadata with what is stored, down to the units of files; everything must agree.
    pub(crate) fn assert_no_findings(&self) -> answer::Checked {
        let checked = self.nova().call(["fs", "fsck"]).finish().unwrap();
        let found: answer::Checked = checked.answer().unwrap_or_else(|error| panic!("{checked}: {error:#}"));
        assert!(checked.code == Some(0) && found.findings.is_empty(), "{checked}: {found:?}");
        let deep = self.nova().call(["fs", "fsck", "--deep"]).limit(TRANSFER_TIMEOUT).finish().unwrap();
        let units: answer::CheckedDeep = deep.answer().unwrap_or_else(|error| panic!("{deep}: {error:#}"));
        assert!(deep.code == Some(0) && units.findings.is_empty(), "{deep}: {units:?}");
        // Every block has two copies at least, or nothing was compared.
        assert!(units.copies >= 2 * units.blocks && units.blocks <= found.blocks_referenced, "{deep}");
        found
    }

    /// Makes a folder below the test's own.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Checks that every file of `tree` is in `folder` of the region, and byte-identical.
    pub(crate) fn assert_intact(&self, folder: &str, tree: &Tree) {
        let target = tempfile::Builder::new().prefix("copy-").tempdir_in(self.folder.path()).unwrap();
        // A source goes into its target.
        let copy = target.path().join(folder.rsplit('/').next().unwrap());
        let arguments = ["fs", "get", folder, target.path().to_str().unwrap()];
        let got: answer::Get = self.nova().call(arguments).limit(TRANSFER_TIMEOUT).answer().unwrap();
        assert_eq!(
            (got.files, got.bytes),
            (tree.names.len() as u64, tree.bytes),
            "files and bytes of {folder}"
        );
        let pairs: Vec<Pair> = tree
            .names
            .iter()
            .map(|name| Pair { source: tree.base.join(name), copy: copy.join(name) })
            .collect();
        let found = compare(&pairs, &Interrupt::default()).unwrap();
        assert_eq!(found.different, 0, "{folder}: {:?}", found.described);
    }
}

/// Files of seeded random bytes.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) base: PathBuf,
    pub(crate) names: Vec<String>,
    pub(crate) bytes: u64,
}

impl Tree {
    /// Makes `files` files below `base`, in a few folders; one is empty, most are small, every eighth is `large` bytes.
    pub(crate) fn make(base: PathBuf, files: usize, large: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tree = Self { base, names: Vec::new(), bytes: 0 };
        for index in 0..files {
            let bytes = match index % 8 {
                0 => large,
                1 => index / 8 % 2,
                _ => random.usize(1..100_000),
            };
            let name = format!("folder-{}/file {index}", index % 5);
            let path = tree.base.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut content = vec![0; bytes];
            random.fill(&mut content);
            fs::write(&path, content).unwrap();
            tree.names.push(name);
            tree.bytes += bytes as u64;
        }
        tree
    }

    /// Puts the tree into `folder` of the region; answers however that ended.
    pub(crate) fn put(&self, nova: &Nova, folder: &str) -> Finished {
        self.try_put(nova, folder).unwrap()
    }

    /// The same where a put may not even end.
    pub(crate) fn try_put(&self, nova: &Nova, folder: &str) -> anyhow::Result<Finished> {
        let made = nova.call(["fs", "mkdir", "-p", folder]).finish()?;
        if made.code != Some(0) {
            return Ok(made);
        }
        let list = self.base.with_extension("list");
        fs::write(&list, self.names.join("\n") + "\n").unwrap();
        let [list, base] = [&list, &self.base].map(|path| path.to_str().unwrap());
        let arguments = ["fs", "put", "--files-from", list, "--base", base, folder];
        nova.call(arguments).limit(TRANSFER_TIMEOUT).finish()
    }
}
