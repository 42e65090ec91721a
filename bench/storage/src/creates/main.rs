//! Many files in one tree, made one by one by many threads, while the controllers write out the state of the files group:
//! how long a create takes with a snapshot under way, and without.
#![forbid(unsafe_code)]

mod latency;
mod snapshots;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nova_path::interrupt::Interrupt;
use nova_path::nova::Nova;
use nova_path::region::{Region, Size};
use novafs_client::{Client, ClientError, Entry, EntryKind};
use serde_json::json;

use crate::latency::{Latency, Made};
use crate::snapshots::Watch;

/// Groups are formed within this time after the start.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// Devices hold no files here: these have no bytes.
const DEVICE_MIB: u64 = 256;
/// Threads that share a client: as many requests as one has on their way at once.
const THREADS_EACH: usize = 16;
/// Files of a directory.
const FILES_EACH: usize = 1000;
/// Where the tree is.
const ROOT: &str = "/hot/many";
/// How often it is said how far it came.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Makes many files through the client library on a region of this machine while snapshots are written.
#[derive(Debug, Parser)]
#[command(
    name = "creates",
    version,
    after_help = "Fails when a file is missing in the listings at the end, or no snapshot was written meanwhile.\n\n\
                  Example:\n  creates --folder /var/tmp --files 1000000"
)]
struct Arguments {
    /// A folder for the region, which goes away.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Files to be made.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=5_000_000))]
    files: u32,
    /// Files on their way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Seconds from one snapshot to the next.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    snapshot_seconds: u32,
    /// Hardware profile of every host, as `nova dev up --profile` takes it.
    #[arg(long, default_value = "laptop")]
    profile: String,
    /// Where nova, nova-control, nova-agent and novad are; by default beside this program.
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// One JSON line instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("creates: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::catch().context("catch signals")?;
    let bins = match &arguments.bins {
        Some(bins) => std::path::absolute(bins)?,
        None => std::env::current_exe()?.parent().context("find the folder of this program")?.to_owned(),
    };
    let folder = arguments.folder.join(format!("novaclustr-creates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let outcome = measure(arguments, &bins, &folder, &interrupt);
    // The region in it is down by now.
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn measure(arguments: &Arguments, bins: &Path, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let nova = Nova::new(bins, &folder.join("region"), interrupt.clone())?;
    let size = Size { profile: Some(arguments.profile.clone()), ..Size::standard(DEVICE_MIB) };
    let mut region = Region::up(nova, bins, &size, &folder.with_extension("logs"))?;
    let controllers = set_snapshots(&mut region, arguments.snapshot_seconds)?;
    region.wait_in_sync(3, FORM_TIMEOUT)?;
    let socket = region.processes().host("compute-1").and_then(|it| it.agent_socket.clone());
    let socket = socket.context("the region has no compute-1")?;
    let threads = usize::try_from(arguments.threads)?;
    // As many programs as it takes for no thread to wait for another.
    let clients = (0..threads.div_ceil(THREADS_EACH)).map(|_| Client::connect(&socket));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let client = &clients[0];
    let files = usize::try_from(arguments.files)?;
    for folder in 0..files.div_ceil(FILES_EACH) {
        client.mkdir(folder_of(folder * FILES_EACH).as_str(), 0o755, true)?;
    }
    let watch = Watch::start(&controllers);
    let begun = Instant::now();
    let made = make(&clients, files, threads, interrupt)?;
    let took = begun.elapsed();
    let written = watch.end();
    let begun = Instant::now();
    check(client, files)?;
    let listed = begun.elapsed();
    let (during, between) = Latency::split(made, &written.spans);
    let per_second = f64::from(arguments.files) / took.as_secs_f64();
    if arguments.json {
        let line = json!({
            "files": files, "threads": arguments.threads, "seconds": took.as_secs_f64(),
            "creates_per_second": per_second, "listed_seconds": listed.as_secs_f64(),
            "snapshots": written.spans.len(), "snapshot_bytes": written.bytes_last,
            "snapshot_ms_max": written.longest().as_secs_f64() * 1e3,
            "during_snapshots": during.json(), "between_snapshots": between.json(),
        });
        println!("{line}");
    } else {
        println!(
            "{files} files made in {:.0} s by {} threads, {per_second:.0} a second; all listed in {:.1} s",
            took.as_secs_f64(),
            arguments.threads,
            listed.as_secs_f64()
        );
        println!(
            "{} snapshots were written meanwhile, the last of {} bytes, the longest in {:?}",
            written.spans.len(),
            written.bytes_last,
            written.longest()
        );
        println!("a create with a snapshot under way: {during}");
        println!("a create at other times:            {between}");
    }
    ensure!(!written.spans.is_empty(), "no snapshot was written meanwhile: give more --files");
    drop(clients);
    region.down()
}

/// Has every controller write snapshots so often; answers where those of the files group are.
fn set_snapshots(region: &mut Region, seconds: u32) -> Result<Vec<PathBuf>> {
    let names: Vec<String> = region.processes().controllers.iter().map(|one| one.name.clone()).collect();
    let mut folders = Vec::new();
    for name in names {
        let home = region.nova().region().join(&name);
        let config = home.join("control.toml");
        let mut file = OpenOptions::new().append(true).open(&config);
        let written = file.as_mut().map(|file| write!(file, "\n[snapshots]\nevery_seconds = {seconds}\n"));
        written.ok().context("configure snapshots")?.with_context(|| format!("{}", config.display()))?;
        region.kill(&name)?;
        region.restart(&name)?;
        folders.push(snapshots::folder_below(&home)?);
    }
    Ok(folders)
}

fn folder_of(number: usize) -> String {
    format!("{ROOT}/d{}/e{}", number / (FILES_EACH * 100), number / FILES_EACH)
}

fn name_of(number: usize) -> String {
    format!("file-{number}")
}

/// Makes all files; answers when each create began, and how long it took.
fn make(clients: &[Client], files: usize, threads: usize, interrupt: &Interrupt) -> Result<Vec<Made>> {
    let next = AtomicUsize::new(0);
    let one = |client: &Client| -> Result<Vec<Made>> {
        let mut made = Vec::with_capacity(files / threads + 1);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= files {
                return Ok(made);
            }
            interrupt.check()?;
            let path = format!("{}/{}", folder_of(number), name_of(number));
            let begun = Instant::now();
            create(client, &path).with_context(|| format!("make {path}"))?;
            made.push(Made { begun, took: begun.elapsed() });
        }
    };
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || one(&clients[thread / THREADS_EACH]))).collect();
        let (begun, mut said) = (Instant::now(), Instant::now());
        while running.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                let count = next.load(Ordering::Relaxed).min(files);
                eprintln!("{:.0} s: {count} files", begun.elapsed().as_secs_f64());
            }
        }
        let mut all = Vec::with_capacity(files);
        for thread in running {
            all.extend(thread.join().expect("a thread that makes files does not panic")?);
        }
        Ok(all)
    })
}

/// Makes one file as any program does: open, close.
fn create(client: &Client, path: &str) -> Result<(), ClientError> {
    let options = novafs_client::OpenOptions {
        write: true,
        create: true,
        exclusive: true,
        mode: 0o644,
        ..novafs_client::OpenOptions::default()
    };
    client.open(path, &options)?.close()
}

/// Every file is listed once, in its place, and nothing else; and the sums of the root say the same.
fn check(client: &Client, files: usize) -> Result<()> {
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    for folder in (0..files).step_by(FILES_EACH) {
        let due: Vec<usize> = (folder..files.min(folder + FILES_EACH)).collect();
        let mut found = BTreeMap::new();
        let mut each = |entry: Entry| {
            *found.entry(entry.name.clone()).or_insert(0) += usize::from(entry.kind() == EntryKind::File);
            Ok(())
        };
        client.list(folder_of(folder).as_str(), &mut each)?;
        let whole = due.iter().filter(|number| found.get(&name_of(**number)) == Some(&1)).count();
        if whole != due.len() || found.len() != due.len() {
            missing.insert(folder_of(folder), due.len() - whole);
        }
    }
    ensure!(missing.is_empty(), "listings are not what was made: {missing:?}");
    let usage = client.usage(ROOT)?;
    ensure!(usage.files == u64::try_from(files)?, "{ROOT} counts {} files of {files}", usage.files);
    Ok(())
}
