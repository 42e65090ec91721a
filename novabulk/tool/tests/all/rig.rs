//! A host that serves a folder, and the tool that copies.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The tool.
pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_nova-bulk");

/// An identity that trusts itself, for all tests of this process; keys in the repository cannot be private files.
pub(crate) fn identity() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tls/testdata");
        for (from, to) in [("ca.pem", "ca.pem"), ("one.pem", "identity.pem"), ("one.key", "identity.key")] {
            fs::copy(testdata.join(from), folder.path().join(to)).unwrap();
            fs::set_permissions(folder.path().join(to), fs::Permissions::from_mode(0o600)).unwrap();
        }
        folder
    });
    folder.path()
}

/// A host of files in a process of its own; it goes down with the test.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
}

impl Served {
    /// Serves `root` on any port.
    pub(crate) fn start(root: &Path, options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", root, options)
    }

    pub(crate) fn start_at(address: &str, root: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(TOOL)
            .args(["--json", "serve", "--listen", address, "--identity"])
            .arg(identity())
            .arg("--root")
            .arg(root)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, address: told["listening"].as_str().unwrap().to_owned() }
    }

    /// A path at this host.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Ends it without a word, as power does to a process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two folders, and a host that serves the second.
pub(crate) struct Rig {
    folder: TempDir,
    pub(crate) served: Served,
}

impl Rig {
    pub(crate) fn new(options: &[&str]) -> Self {
        // Not /tmp, which may be in memory: holes and attributes are those of a real file system.
        let folder = tempfile::Builder::new().prefix("nova-bulk-").tempdir_in("/var/tmp").unwrap();
        fs::create_dir(folder.path().join("here")).unwrap();
        fs::create_dir(folder.path().join("there")).unwrap();
        let served = Served::start(&folder.path().join("there"), options);
        Self { folder, served }
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.folder.path().join("here").join(name)
    }

    pub(crate) fn there(&self, name: &str) -> PathBuf {
        self.folder.path().join("there").join(name)
    }
}

/// What a copy said, as JSON, with its exit code.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) code: Option<i32>,
    pub(crate) told: serde_json::Value,
    pub(crate) errors: String,
}

impl Copied {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        Self {
            code: output.status.code(),
            told: serde_json::from_str(text.trim()).unwrap_or_default(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.told[key].as_u64().unwrap_or_else(|| panic!("{key} in {self:?}"))
    }

    /// Panics unless the copy succeeded.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Runs `nova-bulk copy` to its end.
pub(crate) fn copy<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Copied {
    Copied::of(&copying(arguments).output().unwrap())
}

/// `nova-bulk copy`, not started yet.
pub(crate) fn copying<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(TOOL);
    command
        .args(["--json", "--identity"])
        .arg(identity())
        .arg("copy")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Bytes that do not repeat, from a seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut all);
    all
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Names in a folder, in order, with those of temporary files.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
