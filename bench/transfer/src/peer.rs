//! Programs that copy files, and how each is asked to.

mod nc;
mod nova;
mod rclone;
mod rsync;
mod ssh;
mod web;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nova_measure::recipe::Recipe;

use crate::end::Side;
use crate::link::ADDRESSES;
use crate::set::{Kind as SetKind, Set};

/// Where every server listens.
const PORT: u16 = 9470;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Ours, under TLS 1.3 with certificates on both sides.
    Nova,
    /// What TCP carries in one connection: no files, nothing sealed.
    Iperf3,
    /// A file, or the output of tar, in the clear and unchecked.
    Nc,
    /// Over ssh, sealed by AES-128-GCM.
    Scp,
    /// Its own daemon, in the clear.
    Rsync,
    /// Over ssh, sealed by AES-128-GCM.
    RsyncSsh,
    /// From nginx under TLS 1.3; small files in 8 connections.
    Curl,
    /// From nginx under TLS 1.3, in 8 connections.
    Aria2,
    /// From nginx under TLS 1.3, in 8 connections.
    Rclone,
    /// Over ssh, in 8 connections.
    RcloneSftp,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nova => "nova bulk",
            Self::Iperf3 => "iperf3",
            Self::Nc => "nc",
            Self::Scp => "scp",
            Self::Rsync => "rsync",
            Self::RsyncSsh => "rsync-ssh",
            Self::Curl => "curl-https",
            Self::Aria2 => "aria2-https",
            Self::Rclone => "rclone-https",
            Self::RcloneSftp => "rclone-sftp",
        }
    }

    /// Whether what it sends is sealed.
    pub(crate) fn is_sealed(self) -> bool {
        !matches!(self, Self::Iperf3 | Self::Nc | Self::Rsync)
    }

    /// Whether it copies files; else it only shows what the link carries.
    pub(crate) fn copies(self) -> bool {
        self != Self::Iperf3
    }

    /// Whether it can do a set.
    pub(crate) fn takes(self, set: SetKind) -> bool {
        self.copies() || set != SetKind::Small
    }

    /// Programs that it consists of.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nova => &[],
            Self::Iperf3 => &["iperf3"],
            Self::Nc => &["nc", "tar"],
            Self::Scp => &["sshd", "ssh-keygen", "scp", "ssh"],
            Self::Rsync => &["rsync"],
            Self::RsyncSsh => &["rsync", "sshd", "ssh-keygen", "ssh"],
            Self::Curl => &["nginx", "openssl", "curl"],
            Self::Aria2 => &["nginx", "openssl", "aria2c"],
            Self::Rclone => &["nginx", "openssl", "rclone"],
            Self::RcloneSftp => &["rclone", "sshd", "ssh-keygen"],
        }
    }

    /// What the programs say of their version.
    fn version_words(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Nova => &[],
            Self::Iperf3 => &[&["iperf3", "--version"]],
            Self::Nc => &[&["nc", "-h"]],
            Self::Scp => &[&["ssh", "-V"]],
            Self::Rsync => &[&["rsync", "--version"]],
            Self::RsyncSsh => &[&["rsync", "--version"], &["ssh", "-V"]],
            Self::Curl => &[&["curl", "--version"], &["nginx", "-v"]],
            Self::Aria2 => &[&["aria2c", "--version"], &["nginx", "-v"]],
            Self::Rclone => &[&["rclone", "version"], &["nginx", "-v"]],
            Self::RcloneSftp => &[&["rclone", "version"], &["ssh", "-V"]],
        }
    }
}

/// A server and the command that makes it work.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the server runs; the command runs at the other end.
    pub(crate) server_at: Side,
    pub(crate) server: Vec<String>,
    pub(crate) port: u16,
    pub(crate) client: Vec<String>,
    /// Whether the files are there only when the server has ended too.
    pub(crate) server_ends: bool,
}

/// What every peer is started with.
#[derive(Debug)]
pub(crate) struct Kit {
    /// For keys and settings.
    folder: PathBuf,
    /// Where nova and nova-bulk are.
    bins: PathBuf,
    /// Connections of ours for data.
    streams: u8,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) set: &'a Set,
    /// An empty folder; the set's folder is to be in it.
    pub(crate) target: &'a Path,
}

impl Task<'_> {
    fn source(&self) -> String {
        self.set.folder.display().to_string()
    }

    /// The folder that holds the sources.
    fn above(&self) -> String {
        self.set.folder.parent().unwrap_or(Path::new("/")).display().to_string()
    }

    fn target(&self) -> String {
        self.target.display().to_string()
    }

    /// Where the files of the set arrive.
    fn arrives(&self) -> String {
        self.target.join(self.set.kind.name()).display().to_string()
    }
}

impl Kit {
    /// Makes what `peers` need in `folder`.
    pub(crate) fn new(folder: &Path, bins: &Path, streams: u8, peers: &[Kind]) -> Result<Self> {
        for program in peers.iter().flat_map(|peer| peer.programs()) {
            ensure!(
                find(program).is_some(),
                "{program} is not installed: run scripts/bench-peers transfer --install, as root"
            );
        }
        fs::create_dir_all(folder)?;
        let kit = Self { folder: folder.to_owned(), bins: bins.to_owned(), streams };
        if peers.contains(&Kind::Nova) {
            nova::prepare(&kit)?;
        }
        if peers.iter().any(|peer| peer.programs().contains(&"sshd")) {
            ssh::prepare(&kit)?;
        }
        if peers.iter().any(|peer| peer.programs().contains(&"nginx")) {
            web::prepare(&kit)?;
        }
        Ok(kit)
    }

    /// What is noted of a peer before it is used.
    pub(crate) fn recipe(&self, peer: Kind, folder: &Path) -> Result<Recipe> {
        let mut recipe = Recipe::new(peer.name(), folder);
        if peer == Kind::Nova {
            recipe.note_version(&self.ask(&[&nova::tool(self), "--version"])?);
        }
        for words in peer.version_words() {
            recipe.note_version(&self.ask(words)?);
        }
        Ok(recipe)
    }

    /// How `peer` does `task`; settings are written and noted.
    pub(crate) fn plan(&self, peer: Kind, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
        match peer {
            Kind::Nova => Ok(nova::plan(self, task)),
            Kind::Iperf3 => Ok(nc::plan_iperf(task)),
            Kind::Nc => Ok(nc::plan(task)),
            Kind::Scp => ssh::plan(self, task, recipe),
            Kind::Rsync => rsync::plan(self, task, recipe),
            Kind::RsyncSsh => rsync::plan_ssh(self, task, recipe),
            Kind::Curl => web::plan_curl(self, task, recipe),
            Kind::Aria2 => web::plan_aria2(self, task, recipe),
            Kind::Rclone => rclone::plan(self, task, recipe),
            Kind::RcloneSftp => rclone::plan_sftp(self, task, recipe),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes a file that a peer is started with, and notes it once.
    fn write(&self, name: &str, text: &str, recipe: &mut Recipe) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write {path}"))?;
        recipe.note_settings(name, text);
        Ok(path)
    }

    /// Runs a command to its end: what it said on both outputs.
    fn ask(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("timeout").arg("60").args(words).output();
        let output = output.with_context(|| format!("run {}", words[0]))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // Some say their version and fail.
        ensure!(
            output.status.code().is_some_and(|code| code < 100),
            "{} ended with {}: {}",
            words.join(" "),
            output.status,
            said.trim()
        );
        Ok(said)
    }

    /// The same, and it has to succeed.
    fn make(&self, words: &[&str]) -> Result<()> {
        let output = Command::new("timeout").arg("60").args(words).output();
        let output = output.with_context(|| format!("run {}", words[0]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} ended with {}: {}", words.join(" "), output.status, said.trim());
        Ok(())
    }
}

/// How long a program says that it took, for those whose start and end are not meant.
pub(crate) fn told_time(peer: Kind, said: &str) -> Option<Duration> {
    (peer == Kind::Iperf3).then(|| nc::iperf_time(said))?
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn address(side: Side) -> Ipv4Addr {
    match side {
        Side::Sender => ADDRESSES[0],
        Side::Receiver => ADDRESSES[1],
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
