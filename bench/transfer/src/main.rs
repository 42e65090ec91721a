//! `nova bulk` beside other programs that copy files, in turns: which part of a link the bytes of files get, what both
//! ends pay for it in processor time, and how many files a second come. What arrived is compared with the source.
//!
//! The ends are two network namespaces, each with a control group. Everything is in memory and goes away with the run.
#![forbid(unsafe_code)]

mod chart;
mod end;
mod figure;
mod group;
mod line;
mod link;
mod peer;
mod row;
mod run;
mod set;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nova_path::interrupt::Interrupt;

use crate::row::Row;
use crate::set::Amount;

/// Says that this process has mounts of its own already.
const APART: &str = "NOVA_TRANSFER_APART";

/// Measures nova bulk beside other programs that copy files.
#[derive(Debug, Parser)]
#[command(
    name = "transfer",
    version,
    after_help = "Examples:\n  transfer --peer iperf3,scp,rsync --rounds 3\n  \
                  transfer --row large@1,small@none --large-mib 1024 --json\n  \
                  transfer --delay 80ms --loss 0.01%,0.1%,1% --row large@0.5 --large-mib 64 --streams 8"
)]
pub(crate) struct Arguments {
    /// What goes over which link: large, text or small, and Gbit/s or none.
    /// By default large@1,large@5,large@10,large@none,text@1,small@10, or large@0.5 over a long line.
    #[arg(long = "row", value_name = "SET@GBIT,...", value_delimiter = ',')]
    rows: Vec<Row>,
    #[command(flatten)]
    amount: Amount,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Programs that do the same in the same rounds; scripts/bench-peers installs them.
    #[arg(long = "peer", value_name = "NAME,...", value_enum, value_delimiter = ',')]
    peers: Vec<peer::Kind>,
    /// Connections of nova bulk for data [default: what the command has by itself].
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    streams: u8,
    /// A long line between the ends, in user space: milliseconds there and back, as 80ms.
    #[arg(long, value_parser = parse_delay)]
    delay: Option<Duration>,
    /// Which part of the packets the long line loses, each way, as 0.1%; each is a row of its own [default: 0%].
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', value_parser = parse_loss, requires = "delay")]
    loss: Vec<f64>,
    /// Congestion control of all connections, as the kernel names it [default: that of this machine].
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// MiB that a connection may have under way, at most, in each direction [default: that of this machine].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    socket_mib: Option<u32>,
    /// A transfer that takes longer is ended, and its peer is not asked again in this row.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
    /// A folder on a disk, for sources and targets, instead of memory.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where nova and nova-bulk are; by default beside this program.
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// JSON lines instead of tables.
    #[arg(long)]
    json: bool,
    /// Also draw the table into a file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("transfer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Goes on with mounts of its own, so that none of this stays whatever happens to it.
fn start(arguments: &Arguments) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the ends are network namespaces with control groups of their own: run this as root"
    );
    if std::env::var_os(APART).is_none() {
        let program = std::env::current_exe().context("find this program")?;
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private"]).arg(program);
        let error = again.args(std::env::args_os().skip(1)).env(APART, "1").exec();
        return Err(error).context("run unshare, which is in util-linux");
    }
    let interrupt = Interrupt::catch().context("catch signals")?;
    let bins = match &arguments.bins {
        Some(bins) => std::path::absolute(bins)?,
        None => std::env::current_exe()?.parent().context("find the folder of this program")?.to_owned(),
    };
    let (table, recipes) = run::run(arguments, &bins, &interrupt)?;
    let lines = table.lines();
    if let Some(path) = &arguments.svg {
        std::fs::write(path, chart::draw(&lines)).with_context(|| format!("write {}", path.display()))?;
    }
    if arguments.json {
        lines
            .into_iter()
            .chain(recipes.iter().map(nova_measure::recipe::Recipe::line))
            .for_each(|line| println!("{line}"));
    } else {
        print!("{table}");
        recipes.iter().for_each(|recipe| print!("\n{recipe}"));
    }
    Ok(())
}

impl Arguments {
    /// The rows, each with each loss when the line is long.
    pub(crate) fn all_rows(&self) -> Vec<Row> {
        let default = if self.delay.is_some() {
            "large@0.5"
        } else {
            "large@1,large@5,large@10,large@none,text@1,small@10"
        };
        let rows = match self.rows.as_slice() {
            [] => default.split(',').map(|row| row.parse().expect("a row of ours is one")).collect(),
            rows => rows.to_vec(),
        };
        let Some(round_trip) = self.delay else { return rows };
        let losses = if self.loss.is_empty() { &[0.0][..] } else { &self.loss };
        let long = |row: &Row| {
            let row = *row;
            let with = move |&loss: &f64| Row { length: Some(link::Length { round_trip, loss }), ..row };
            losses.iter().map(with)
        };
        rows.iter().flat_map(long).collect()
    }

    /// Where sources, targets and settings are, which is made and removed here.
    pub(crate) fn place(&self) -> PathBuf {
        let above = self.folder.as_deref().unwrap_or(Path::new("/var/tmp"));
        above.join(format!("novabench-{}", std::process::id()))
    }
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let millis = text.trim_end_matches("ms").parse::<u64>().ok().filter(|millis| (1..=2000).contains(millis));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text} is no delay: give milliseconds up to 2000, as 80ms"))
}

fn parse_loss(text: &str) -> Result<f64, String> {
    let percent =
        text.trim_end_matches('%').parse::<f64>().ok().filter(|percent| (0.0..=50.0).contains(percent));
    percent
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text} is no loss: give per cent up to 50, as 0.1%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["transfer"], words].concat()).unwrap()
    }

    #[test]
    fn a_long_line_has_a_row_for_each_loss() {
        assert_eq!(arguments(&[]).all_rows().len(), 6);
        let long = arguments(&["--delay", "80ms", "--loss", "0.01%,1%", "--row", "large@0.2,small@0.2"]);
        let names: Vec<String> = long.all_rows().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(names[1], "large at 200 Mbit/s, 80 ms there and back, 1 % lost");
    }

    #[test]
    fn what_is_no_delay_or_loss_is_refused() {
        for words in
            [["--delay", "x"], ["--delay", "0"], ["--row", "large"], ["--loss", "1%"], ["--streams", "9"]]
        {
            assert!(Arguments::try_parse_from([&["transfer"], &words[..]].concat()).is_err(), "{words:?}");
        }
    }
}
