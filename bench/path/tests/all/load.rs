//! Programs that put and read small files without a pause, and how long each had to wait.
//!
//! A file that is put here has one block, which lies in a group that its put chose; a wait that was long is looked at
//! afterwards by where that is. Every put is a file of its own, so each acknowledgement is checked at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::{Located, Status};

use super::rig::Rig;

/// Files that are there before anything happens; they are read.
const KNOWN: usize = 48;
const WRITERS: usize = 2;
const READERS: usize = 2;
/// Bytes of a file at most.
const BYTES_MAX: usize = 60_000;
/// A put or read that takes longer has failed.
const CALL_LIMIT: Duration = Duration::from_secs(40);

/// Something that was done.
#[derive(Clone, Debug)]
struct Done {
    file: usize,
    begun: Instant,
    took: Duration,
}

/// The longest waits since a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// For files of groups that lost a member, when it was long.
    pub(crate) hit: Duration,
    /// For files of the other groups, and whatever was not long.
    pub(crate) spared: Duration,
    /// Puts and reads that ended well.
    pub(crate) count: usize,
}

/// What is put and read.
pub(crate) struct Load {
    local: PathBuf,
    folder: String,
    /// The group of each file that is read.
    known: Vec<u64>,
    next: AtomicUsize,
    over: AtomicBool,
    puts: Mutex<Vec<Done>>,
    reads: Mutex<Vec<Done>>,
    failed: Mutex<Vec<String>>,
}

/// The bytes of a file follow from its number.
fn content(file: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(file as u64);
    let mut bytes = vec![0; random.usize(1..BYTES_MAX)];
    random.fill(&mut bytes);
    bytes
}

/// Groups with a replica on the device at `place` of a host.
pub(crate) fn groups_on(status: &Status, host: &str, place: usize) -> BTreeSet<u64> {
    let host = status.host(host).unwrap();
    let device = host.devices.iter().find(|device| device.place == Some(place)).unwrap();
    let held = status.groups.iter().filter(|group| {
        group.members.iter().any(|it| (it.node, it.incarnation) == (host.node, device.incarnation))
    });
    held.map(|group| u64::from(group.group)).collect()
}

impl Load {
    /// Puts the files that are read later.
    pub(crate) fn prepare(rig: &Rig) -> Self {
        let folder = "/load/small";
        rig.nova().call(["fs", "mkdir", "-p", folder]).run().unwrap();
        let mut load = Self {
            local: rig.local("small"),
            folder: folder.to_owned(),
            known: Vec::new(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            puts: Mutex::default(),
            reads: Mutex::default(),
            failed: Mutex::default(),
        };
        for _ in 0..KNOWN {
            load.put(rig);
        }
        assert_eq!(*load.failed.lock().unwrap(), Vec::<String>::new(), "nothing was wrong yet");
        load.known = (0..KNOWN).map(|file| load.group_of(rig, file)).collect();
        load
    }

    fn path(&self, file: usize) -> String {
        format!("{}/{file}", self.folder)
    }

    fn group_of(&self, rig: &Rig, file: usize) -> u64 {
        let located: Located = rig.nova().call(["fs", "locate", &self.path(file)]).answer().unwrap();
        located.units[0].group.as_u64().unwrap()
    }

    fn put(&self, rig: &Rig) {
        let file = self.next.fetch_add(1, Ordering::Relaxed);
        let source = self.local.join(file.to_string());
        fs::write(&source, content(file)).unwrap();
        let begun = Instant::now();
        let words = ["fs", "put", source.to_str().unwrap(), &self.path(file)];
        let put = rig.nova().call(words).limit(CALL_LIMIT).run();
        fs::remove_file(&source).unwrap();
        match put {
            Ok(_) => self.puts.lock().unwrap().push(Done { file, begun, took: begun.elapsed() }),
            Err(error) => self.failed.lock().unwrap().push(format!("{error:#}")),
        }
    }

    fn read(&self, rig: &Rig, file: usize) {
        let begun = Instant::now();
        let read = rig.nova().call(["fs", "cat", &self.path(file)]).limit(CALL_LIMIT).run();
        let mut failed = self.failed.lock().unwrap();
        match read {
            Ok(read) if read.stdout == content(file) => {
                self.reads.lock().unwrap().push(Done { file, begun, took: begun.elapsed() });
            }
            Ok(_) => failed.push(format!("other bytes of file {file} came")),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }

    /// Puts and reads beside `during`.
    pub(crate) fn run<T>(&self, rig: &Rig, during: impl FnOnce() -> T) -> T {
        /// Ends the load, however `during` ends.
        struct Over<'l>(&'l AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        self.over.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let _over = Over(&self.over);
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while !self.over.load(Ordering::Relaxed) {
                        self.put(rig);
                    }
                });
            }
            for reader in 0..READERS {
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(reader as u64);
                    while !self.over.load(Ordering::Relaxed) {
                        self.read(rig, random.usize(..KNOWN));
                    }
                });
            }
            during()
        })
    }

    /// The longest waits of what ended after `since`; `hit` are the groups that lost a member then. One is long that took
    /// `spared_max` or more; it is printed.
    pub(crate) fn waits(
        &self,
        rig: &Rig,
        since: Instant,
        hit: &BTreeSet<u64>,
        spared_max: Duration,
    ) -> Waits {
        let after = |done: &&Done| done.begun + done.took >= since;
        let mut waits = Waits::default();
        let mut take = |what: &str, done: &Done, group: &dyn Fn() -> u64| {
            waits.count += 1;
            if done.took < spared_max {
                waits.spared = waits.spared.max(done.took);
                return;
            }
            let (group, begun) = (group(), done.begun.saturating_duration_since(since));
            println!(
                "{what} file {} of group {group}, begun after {begun:?}, took {:?}",
                done.file, done.took
            );
            let longest = if hit.contains(&group) { &mut waits.hit } else { &mut waits.spared };
            *longest = done.took.max(*longest);
        };
        for read in self.reads.lock().unwrap().iter().filter(after) {
            take("reading", read, &|| self.known[read.file]);
        }
        for put in self.puts.lock().unwrap().iter().filter(after) {
            take("putting", put, &|| self.group_of(rig, put.file));
        }
        waits
    }

    /// Nothing failed, and every file that was acknowledged is there with its bytes.
    pub(crate) fn assert_kept(&self, rig: &Rig) {
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} puts or reads failed: {failed:#?}", failed.len());
        let target = tempfile::Builder::new().prefix("copy-").tempdir_in(rig.folder.path()).unwrap();
        rig.nova().call(["fs", "get", &self.folder, target.path().to_str().unwrap()]).run().unwrap();
        let copy = target.path().join("small");
        for Done { file, .. } in self.puts.lock().unwrap().iter() {
            let found = fs::read(copy.join(file.to_string())).unwrap_or_default();
            assert!(found == content(*file), "file {file} was acknowledged and is not what it was");
        }
    }
}
