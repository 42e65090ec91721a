//! `nova fs`: files of NovaFS, through the agent and the data plane of one host.

mod change;
mod copy;
mod fsck;
mod get;
mod links;
mod locate;
mod names;
mod namespace;
pub(crate) mod path;
mod put;
mod sync;
mod trash;
mod walk;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use novafs_client::{Client, ClientError, Counts, Progress};

use crate::arguments::{self, Global};
use crate::cluster;
use crate::dev::region::Region;
use crate::exit::{Kind, Stop};
use crate::output;
use crate::progress::Meter;

/// Between two looks at how far a transfer is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many failures are shown one by one.
const SHOWN_MAX: usize = 10;

/// Files of NovaFS.
#[derive(Args, Debug)]
pub(crate) struct Fs {
    /// Socket of the agent to speak to. Default: of the first compute host of the region that runs.
    #[arg(long, global = true, env = "NOVA_AGENT", value_name = "SOCKET")]
    agent: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put local files and folders into NovaFS, with as many copies as their namespace keeps.
    #[command(
        after_help = "Folders are walked. Modes, owners, times and extended attributes (user.) of files are kept, and modes of folders \
                      that are made; symbolic links are kept as they are, and files with several names below the sources \
                      stay one file. Holes are not stored. A file that changes while it is read is read once more, and \
                      fails when it changes again. Sockets, pipes and devices are counted as skipped.\n\n\
                      Examples:\n  \
                      nova fs put ~/photos /hot                 makes /hot/photos\n  \
                      nova fs put report.pdf /hot/2026.pdf\n  \
                      nova fs put --base /usr /usr/share/doc /hot   makes /hot/share/doc\n  \
                      find . -newer stamp -type f | nova fs put --files-from - /hot/changed"
    )]
    Put(put::Put),
    /// Get files and directories out of NovaFS into a local folder.
    #[command(
        after_help = "Files keep modes, times, extended attributes (user.), holes, and their several names below one source; \
                      they belong to whoever gets them. Set-id bits are kept where owner and group are the same as in \
                      NovaFS. Symbolic links are made as they are, and folders with the mode of new ones.\n\n\
                      Examples:\n  nova fs get /hot/photos ~/restored     makes ~/restored/photos"
    )]
    Get(get::Get),
    /// Write files to standard output.
    #[command(after_help = "Example:\n  nova fs cat /hot/log.txt | less")]
    Cat {
        /// Files in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// List a directory.
    #[command(
        after_help = "Examples:\n  nova fs ls -l /hot\n  nova --json fs ls -R /hot | jq '.entries | length'"
    )]
    Ls(names::List),
    /// Show what is known of a file or directory.
    #[command(after_help = "Example:\n  nova fs stat /hot/photos")]
    Stat {
        /// A path in NovaFS.
        path: String,
    },
    /// Make directories.
    #[command(after_help = "Example:\n  nova fs mkdir -p /hot/2026/05")]
    Mkdir {
        /// Also make missing parents; a directory that exists is no error.
        #[arg(short)]
        parents: bool,
        /// Paths in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Move a file or directory; into the target when that is a directory.
    #[command(
        after_help = "Examples:\n  nova fs mv /hot/a /hot/b\n  nova fs mv --replace /hot/new /hot/current"
    )]
    Mv {
        /// Replace a file that exists at the target.
        #[arg(long)]
        replace: bool,
        /// What to move.
        source: String,
        /// Where to.
        target: String,
    },
    /// Remove files; directories with -r.
    #[command(after_help = "Examples:\n  nova fs rm /hot/a\n  nova fs rm -r /hot/photos")]
    Rm {
        /// Remove directories with everything below them.
        #[arg(short)]
        recursive: bool,
        /// Paths in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Count files, directories and bytes below a path.
    #[command(after_help = "Example:\n  nova fs du /hot")]
    Du {
        /// A path in NovaFS.
        #[arg(default_value = "/")]
        path: String,
    },
    /// Compare the file metadata with what every member of every group holds; changes nothing.
    #[command(
        after_help = "Without --deep it compares which blocks there are, of everything in the region. With --deep it \
                      compares of every file below PATH which units each member has, of which version and length, and \
                      whether their sums make the sum that the file keeps. It reads records, not the bytes behind \
                      them: that is what scrub does, see `nova fs health`. Nothing is repaired by it: members mend \
                      by themselves what scrub or a read finds.\n\n\
                      Ends with 1 when something differs, and with 4 when members did not answer. Blocks of removed \
                      files that wait for collection are fine; what is in the trash is not looked at in depth.\n\n\
                      Examples:\n  \
                      nova fs fsck\n  \
                      nova fs fsck --deep /hot/results\n  \
                      nova --json fs fsck | jq '.findings[] | select(.kind == \"missing\")'"
    )]
    Fsck {
        /// Compare units, lengths and sums of files too.
        #[arg(long)]
        deep: bool,
        /// With --deep: a path in NovaFS; default /.
        #[arg(requires = "deep", value_name = "PATH")]
        path: Option<String>,
    },
    /// Copy files inside NovaFS; directories with -r.
    #[command(
        after_help = "Modes, owners, times, extended attributes and symbolic links are kept; files with several names below \
                      the sources stay one file. Holes are not stored.\n\n\
                      Examples:\n  nova fs cp /hot/a /hot/b\n  nova fs cp -r /hot/photos /cold"
    )]
    Cp {
        /// Copy directories with everything below them.
        #[arg(short)]
        recursive: bool,
        /// Replace files that exist. Without it they are errors.
        #[arg(long)]
        replace: bool,
        /// What to copy, then where to; into the target when that is a directory.
        #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "TARGET"])]
        paths: Vec<String>,
    },
    /// Make a tree in NovaFS like a local one, or the other way round: by size and time of change.
    #[command(
        after_help = "Symbolic links are kept as they are. A file with several names becomes several files. A change of \
                      mode or extended attributes alone is not seen.\n\n\
                      Examples:\n  nova fs sync ~/photos nova:/hot/photos\n  \
                      nova fs sync --delete --dry-run nova:/hot/photos ~/photos"
    )]
    Sync(sync::Sync),
    /// Draw a directory with everything below it.
    #[command(after_help = "Example:\n  nova fs tree -L 2 /hot")]
    Tree {
        /// How deep.
        #[arg(short = 'L', value_name = "DEPTH")]
        depth: Option<usize>,
        /// A directory in NovaFS.
        #[arg(default_value = "/")]
        path: String,
    },
    /// Read files and print their SHA-256, as sha256sum does.
    #[command(after_help = "Example:\n  nova fs checksum /hot/a /hot/b")]
    Checksum {
        /// Files in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Give a file another name, or make a symbolic link.
    #[command(after_help = "Examples:\n  nova fs ln /hot/a /hot/b\n  nova fs ln -s a /hot/c")]
    Ln(change::Link),
    /// Set permission bits.
    #[command(after_help = "Example:\n  nova fs chmod 640 /hot/a /hot/b")]
    Chmod {
        /// Octal, as 644.
        #[arg(value_parser = change::parse_mode)]
        mode: u32,
        /// Paths in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Set owner and group, in numbers.
    #[command(after_help = "Examples:\n  nova fs chown 1000:1000 /hot/a\n  nova fs chown :100 /hot/a")]
    Chown {
        /// USER, USER:GROUP or :GROUP.
        owner: String,
        /// Paths in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Set the length of files; what is missing is zeros. Files that do not exist are made.
    #[command(after_help = "Examples:\n  nova fs truncate 0 /hot/log\n  nova fs truncate 10M /hot/image")]
    Truncate {
        /// Bytes, as 0, 4096, 10M, 2G.
        size: String,
        /// Files in NovaFS.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Show, set and remove extended attributes.
    #[command(subcommand)]
    Xattr(change::Xattr),
    /// Show or set how much a directory may hold.
    #[command(
        after_help = "Examples:\n  nova fs quota /hot/projects\n  nova fs quota --bytes 500G --files 1000000 /hot/projects"
    )]
    Quota(change::Quota),
    /// Bring back what was removed, with everything below it, as `trash restore` does.
    #[command(
        after_help = "`nova fs trash ls` shows the numbers.\n\nExamples:\n  nova fs undelete 7\n  nova fs undelete 7 /hot/photos-2026"
    )]
    Undelete(trash::Restore),
    /// What was removed: list it, bring it back, free its room.
    #[command(subcommand)]
    Trash(trash::Trash),
    /// Show or set the rules of a namespace: retention, undelete window, copies, keys.
    #[command(
        after_help = "A new number of copies is for new blocks: those that exist keep theirs until they are written anew. It needs as \
                      many storage hosts.\n\nExamples:\n  nova fs space hot\n  nova fs space --retention 30d --undelete 7d hot\n  \
                      nova fs space --replicas 2 scratch"
    )]
    Space(trash::Space),
    /// Show whether everything has all its copies, and when they were last verified; exit code 1 when not.
    #[command(after_help = "Needs no agent: the controllers are asked.\n\nExamples:\n  nova fs health\n  \
                      nova --json fs health | jq '.blocks_at_risk, .oldest_verification_seconds'")]
    Health,
    /// Show on which host, device and position every unit of a file lies.
    #[command(after_help = "Example:\n  nova --json fs locate /hot/a | jq '.units[0].replicas'")]
    Locate {
        /// A file in NovaFS.
        path: String,
    },
}

/// Carries out a command.
pub(crate) fn run(global: &Global, fs: Fs) -> anyhow::Result<()> {
    if matches!(fs.command, Command::Fsck { deep: false, .. }) {
        // The controllers answer it: no host's agent is needed.
        return fsck::run(global);
    }
    if matches!(fs.command, Command::Health) {
        return cluster::health(global);
    }
    let client = connect(global, fs.agent)?;
    let outcome = match fs.command {
        Command::Put(put) => put::run(global, &client, &put),
        Command::Get(get) => get::run(global, &client, &get),
        Command::Cat { paths } => get::cat(&client, &paths),
        Command::Ls(list) => names::list(global, &client, &list),
        Command::Stat { path } => names::stat(global, &client, &path),
        Command::Mkdir { parents, paths } => names::mkdir(global, &client, parents, &paths),
        Command::Mv { replace, source, target } => names::rename(global, &client, &source, &target, replace),
        Command::Rm { recursive, paths } => names::remove(global, &client, recursive, &paths),
        Command::Du { path } => names::usage(global, &client, &path),
        Command::Cp { recursive, replace, paths } => {
            let (target, sources) = paths.split_last().expect("clap asks for two");
            copy::copy(global, &client, recursive, replace, sources, target)
        }
        Command::Sync(sync) => sync::run(global, &client, &sync),
        Command::Tree { depth, path } => copy::tree(global, &client, &path, depth),
        Command::Checksum { paths } => copy::checksum(global, &client, &paths),
        Command::Ln(link) => change::link(global, &client, &link),
        Command::Chmod { mode, paths } => change::mode(global, &client, mode, &paths),
        Command::Chown { owner, paths } => change::owner(global, &client, &owner, &paths),
        Command::Truncate { size, paths } => change::truncate(global, &client, &size, &paths),
        Command::Xattr(command) => change::xattr(global, &client, &command),
        Command::Quota(quota) => change::quota(global, &client, &quota),
        Command::Undelete(restore) => trash::restore(global, &client, &restore),
        Command::Trash(command) => trash::run(global, &client, &command),
        Command::Space(space) => trash::space(global, &client, &space),
        Command::Health => unreachable!("carried out above, without a client"),
        Command::Locate { path } => locate::run(global, &client, &path),
        Command::Fsck { path, .. } => fsck::deep::run(global, &client, path.as_deref().unwrap_or("/")),
    };
    client.end_session();
    // Dropped, it would wait until its threads next look up, 100 ms. The process ends now, and its host sees that.
    std::mem::forget(client);
    outcome
}

/// Attaches to an agent: the one that is named, or one of the region.
pub(crate) fn connect(global: &Global, agent: Option<PathBuf>) -> anyhow::Result<Client> {
    let socket = match agent {
        Some(socket) => socket,
        None => {
            let region = Region::load(&global.region_folder()?)?;
            let edge = region.edge().ok_or_else(|| {
                Stop::unavailable(
                    "no host of the region runs: `nova dev status` shows its processes, `nova dev up` starts them",
                )
            })?;
            edge.agent_socket.clone()
        }
    };
    Ok(Client::connect(&socket)?)
}

/// Runs a transfer and shows how far it is.
fn watch<T: Send>(
    when: arguments::Progress,
    bytes_total: u64,
    progress: &Progress,
    message: impl Fn(&Counts) -> String,
    transfer: impl FnOnce() -> Result<T, ClientError> + Send,
) -> anyhow::Result<T> {
    let mut meter = Meter::bytes(when, bytes_total);
    std::thread::scope(|scope| {
        let worker = scope.spawn(transfer);
        while !worker.is_finished() {
            let counts = progress.counts();
            meter.set(message(&counts), counts.bytes);
            std::thread::sleep(LOOK_EVERY);
        }
        let outcome = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(outcome?)
    })
}

/// Shows what failed, and ends with an error if anything did.
fn fail_if_any(failures: &[String], failed: u64, verb: &str, unavailable: bool) -> anyhow::Result<()> {
    if failed == 0 {
        return Ok(());
    }
    for failure in failures.iter().take(SHOWN_MAX) {
        output::say(format_args!("nova: {failure}"));
    }
    if failures.len() > SHOWN_MAX {
        output::say(format_args!("nova: and others"));
    }
    let kind = if unavailable { Kind::Unavailable } else { Kind::Failed };
    Err(Stop::new(kind, format!("{failed} files could not be {verb}")).into())
}

/// A size as people type it: bytes, or with K, M, G, T for powers of 1024.
fn size(text: &str) -> anyhow::Result<u64> {
    let (number, shift) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        Some('T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| Stop::usage(format!("{text:?} is no size: give bytes, or 64K, 10M, 2G, 1T")))
}

/// Seconds to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes a second, when there were some and they took time.
fn rate(bytes: u64, seconds: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole milliseconds, not negative"
    )]
    let ms = (seconds * 1000.0).round() as u64;
    bytes.checked_mul(1000)?.checked_div(ms).filter(|rate| *rate > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65_536), ("2G", 2 << 30), ("1T", 1 << 40)] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        assert!(["", "K", "10m", "-1", "99999999999T"].into_iter().all(|text| size(text).is_err()));
    }
}
