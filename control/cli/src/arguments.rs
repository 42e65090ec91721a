//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bulk;
use crate::cluster;
use crate::dev;
use crate::fs;
use crate::identity;
use crate::key;
use crate::mount;

/// Starts regions of NovaClustr, moves files in and out of them, and shows how they are.
#[derive(Debug, Parser)]
#[command(
    name = "nova",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 unavailable (try again).\n\n\
                  Examples:\n  \
                  nova dev up                     a whole region on this machine\n  \
                  nova fs put ~/photos /hot       copy a folder into it, three replicas\n  \
                  nova fs ls -l /hot/photos       look at it\n  \
                  nova mount /mnt/nova            use it with every program\n  \
                  nova cluster status             hosts, groups, controllers\n  \
                  nova dev down --wipe            end the region and delete its data"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Folder of the region, as `nova dev up` made it. Default: ~/.local/share/novaclustr/dev.
    #[arg(long, global = true, env = "NOVA_REGION", value_name = "DIR")]
    region: Option<PathBuf>,
    /// Print one JSON object on standard output instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Whether progress is shown on standard error.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// When standard error is a terminal.
    Auto,
    /// Also when it is not.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A region on this machine, for development: start it, look at it, break it, end it.
    #[command(subcommand)]
    Dev(dev::Command),
    /// Files of NovaFS: put, get, copy, synchronize, list, move, remove, restore.
    Fs(fs::Fs),
    /// Show a directory of NovaFS as a folder of this machine, for every program.
    #[command(
        after_help = "Runs until Ctrl-C or SIGTERM, or until somebody runs umount; a second Ctrl-C does not wait for open \
                      files. It needs /dev/fuse, and root or the program fusermount3.\n\n\
                      Examples:\n  \
                      nova mount /mnt/nova                        the whole region\n  \
                      nova mount /hot/projects ~/projects         one directory\n  \
                      nova mount --background --log nova.log /mnt/nova && ls /mnt/nova; umount /mnt/nova"
    )]
    Mount(mount::MountArguments),
    /// Copy files and folders between hosts that need no region: serve, copy, doctor.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  \
                      nova identity new\n  \
                      nova bulk serve --root /srv/data\n  \
                      nova bulk copy ~/photos 127.0.0.1:9470/"
    )]
    Bulk(bulk::Bulk),
    /// Who this user or host is to others where there is no region, and whom it trusts.
    #[command(subcommand)]
    Identity(identity::Command),
    /// The cluster as its controllers see it.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The hosts of the region.
    #[command(subcommand)]
    Node(cluster::NodeCommand),
    /// The keys of NovaFS: list, create, rotate, erase.
    #[command(subcommand)]
    Key(key::Command),
    /// Print the completion script of a shell.
    #[command(
        after_help = "Example:\n  nova completions bash > ~/.local/share/bash-completion/completions/nova"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Global {
    /// The region's folder.
    pub(crate) fn region_folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.region {
            return Ok(std::path::absolute(folder)?);
        }
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
        let data = data.ok_or_else(|| {
            crate::exit::Stop::usage("HOME is not set; name the region's folder with --region DIR")
        })?;
        Ok(data.join("novaclustr/dev"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path}");
            }
            command.get_subcommands().for_each(|below| check(below, &path));
        }
        Arguments::command().debug_assert();
        check(&Arguments::command(), "");
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["nova --json --region /r dev status", "nova dev status --json --region /r"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.global.json);
            assert_eq!(arguments.global.region_folder().unwrap(), std::path::Path::new("/r"));
        }
        assert_eq!(
            Arguments::try_parse_from(["nova", "dev", "up", "--storage", "2"]).unwrap_err().exit_code(),
            2
        );
    }
}
