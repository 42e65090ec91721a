//! A host of fakes, and files to put into it.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use novafs_client::{Client, ConnectOptions, Progress, PutOptions, PutReport, Source};

use super::fake_agent::{FakeAgent, State};
use super::fake_novad::{Disk, FakeNovad};

pub(super) struct Region {
    pub(super) folder: tempfile::TempDir,
    pub(super) agent: FakeAgent,
    pub(super) disk: Arc<Mutex<Disk>>,
    tickets: Arc<Mutex<Vec<[u8; 16]>>>,
    pub(super) novad: Option<FakeNovad>,
}

impl Region {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Arc::new(Mutex::new(Vec::new()));
        let novad = folder.path().join("novad.sock");
        let agent = FakeAgent::start(&folder.path().join("agent.sock"), &novad, Arc::clone(&tickets));
        let mut region = Self { folder, agent, disk: Arc::default(), tickets, novad: None };
        region.start_novad();
        region
    }

    pub(super) fn start_novad(&mut self) {
        self.novad = None;
        let socket = self.folder.path().join("novad.sock");
        self.novad = Some(FakeNovad::start(&socket, Arc::clone(&self.tickets), Arc::clone(&self.disk)));
    }

    pub(super) fn client(&self) -> Client {
        let options = ConnectOptions { arena_bytes: 8 << 20, deadline: Duration::from_secs(10) };
        Client::connect_with(&self.folder.path().join("agent.sock"), &options).unwrap()
    }

    pub(super) fn metadata(&self) -> std::sync::MutexGuard<'_, State> {
        self.agent.state.lock().unwrap()
    }

    /// Files with these lengths and different contents: their sources and contents.
    pub(super) fn make_files(&self, lengths: &[usize]) -> Vec<(Source, Vec<u8>)> {
        let folder = self.folder.path().join("in");
        std::fs::create_dir_all(&folder).unwrap();
        let make = |(index, &length): (usize, &usize)| {
            let content: Vec<u8> =
                (0..length).map(|at| u8::try_from((at * 31 + at / 251 + index * 7) % 256).unwrap()).collect();
            let local = folder.join(format!("f{index:04}"));
            std::fs::write(&local, &content).unwrap();
            (Source { local, target: format!("/hot/d{}/f{index:04}", index % 3) }, content)
        };
        lengths.iter().enumerate().map(make).collect()
    }
}

pub(super) fn options() -> PutOptions {
    PutOptions { files_in_flight: 6, deadline: Duration::from_secs(10), ..PutOptions::default() }
}

pub(super) fn put(client: &Client, files: &[(Source, Vec<u8>)], options: &PutOptions) -> PutReport {
    let sources = files.iter().map(|(source, _)| source.clone());
    client.put(sources, options, &Progress::default()).unwrap()
}

/// Every file read back is what was put.
pub(super) fn check(client: &Client, files: &[(Source, Vec<u8>)]) {
    for (source, content) in files {
        let mut found = Vec::new();
        client.read(&source.target, 0..u64::MAX, &mut found, &Progress::default()).unwrap();
        assert!(found == *content, "{} differs", source.target);
    }
}

pub(super) fn names_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
