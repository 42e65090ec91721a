//! `nova mount`: a directory of NovaFS as a folder of this machine, until a signal or `umount`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use novafs_fuse::{Mount, MountOptions};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::arguments::Global;
use crate::exit::{Kind, Stop};
use crate::fs::{connect, path};
use crate::output;

/// Between two looks at whether a signal came or the mount ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Says to the process in the background that it is one, and whom to tell when it serves.
const TELL_VARIABLE: &str = "NOVA_MOUNT_TELLS";

/// What to mount where.
#[derive(Args, Debug)]
pub(crate) struct MountArguments {
    /// Socket of the agent to speak to. Default: of the first compute host of the region that runs.
    #[arg(long, env = "NOVA_AGENT", value_name = "SOCKET")]
    agent: Option<PathBuf>,
    /// Return when the mount serves, and let it run on in the background.
    #[arg(long)]
    background: bool,
    /// Write what goes wrong to this file, with --background; otherwise it is lost.
    #[arg(long, value_name = "FILE", requires = "background")]
    log: Option<PathBuf>,
    /// Let other users use it; their rights are those of their user numbers.
    #[arg(long)]
    allow_other: bool,
    /// Let nobody change anything.
    #[arg(long)]
    read_only: bool,
    /// Requests carried out at once.
    #[arg(long, value_name = "COUNT", default_value_t = MountOptions::default().threads, value_parser = threads)]
    threads: usize,
    /// A directory in NovaFS (default /), then an empty local folder.
    #[arg(required = true, num_args = 1..=2, value_names = ["PATH", "MOUNTPOINT"])]
    places: Vec<PathBuf>,
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("1 to 256 threads".into()),
    }
}

/// What is said when the mount serves.
#[derive(Debug, Deserialize, Serialize)]
struct View {
    path: String,
    mountpoint: PathBuf,
    /// The process that serves it.
    pid: u32,
}

/// How the process in the background began.
#[derive(Debug, Deserialize, Serialize)]
enum Begun {
    Serves(View),
    Failed { code: u8, message: String },
}

impl View {
    fn text(&self) -> String {
        let mountpoint = self.mountpoint.display();
        format!(
            "{} is at {mountpoint}, served by process {}; umount {mountpoint} ends it\n",
            self.path, self.pid
        )
    }
}

pub(crate) fn run(global: &Global, arguments: &MountArguments) -> anyhow::Result<()> {
    if std::env::var_os(TELL_VARIABLE).is_some() {
        return serve_and_tell(global, arguments);
    }
    if arguments.background {
        let view = start_in_background(arguments)?;
        return output::print(global.json, &view, View::text);
    }
    serve(global, arguments, |view| output::print(global.json, &view, View::text))
}

/// Mounts, and serves until somebody ends it.
fn serve(
    global: &Global,
    arguments: &MountArguments,
    tell: impl FnOnce(View) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (path, mountpoint) = places(&arguments.places)?;
    let signals = Signals::listen()?;
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .try_init();
    let client = connect(global, arguments.agent.clone())?;
    let options = MountOptions {
        allow_other: arguments.allow_other,
        read_only: arguments.read_only,
        threads: arguments.threads,
    };
    let mount = Mount::start(client.clone(), &path, &mountpoint, &options)?;
    tell(View { path, mountpoint, pid: std::process::id() })?;
    while !mount.has_ended() {
        if signals.take() {
            mount.detach()?;
            output::say(format_args!(
                "nova: unmounted; waiting for open files to be closed, once more to stop at once"
            ));
            while !mount.has_ended() {
                if signals.take() {
                    return Err(Stop::new(
                        Kind::Failed,
                        "stopped while files were open: what they had not synced is lost",
                    )
                    .into());
                }
                std::thread::sleep(LOOK_EVERY);
            }
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    mount.wait()?;
    client.end_session();
    Ok(())
}

/// The first process: starts another and waits until that one serves or has failed.
fn start_in_background(arguments: &MountArguments) -> anyhow::Result<View> {
    use std::os::unix::process::CommandExt as _;
    let log = match &arguments.log {
        Some(log) => File::create(log).with_context(|| format!("make {}", log.display()))?.into(),
        None => Stdio::null(),
    };
    let program = std::env::current_exe().context("find our own program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(TELL_VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Not in our group: Ctrl-C at this terminal is not for it.
        .process_group(0)
        .spawn()
        .context("start the process that serves the mount")?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("hear from the process that serves the mount")?;
    match serde_json::from_str(&line) {
        Ok(Begun::Serves(view)) => Ok(view),
        Ok(Begun::Failed { code, message }) => {
            let kinds = [Kind::Usage, Kind::NotFound, Kind::Unavailable];
            let kind = kinds.into_iter().find(|kind| *kind as u8 == code).unwrap_or(Kind::Failed);
            Err(Stop::new(kind, message).into())
        }
        Err(_) => anyhow::bail!("the process that serves the mount ended without a word; see its --log"),
    }
}

/// The second process: says on standard output how it began, and nothing more there.
fn serve_and_tell(global: &Global, arguments: &MountArguments) -> anyhow::Result<()> {
    let say = |begun: &Begun| -> anyhow::Result<()> {
        let mut line = serde_json::to_string(begun)?;
        line.push('\n');
        // The first process may be gone, and nobody else listens.
        let _ = std::io::stdout().write_all(line.as_bytes());
        Ok(())
    };
    let mut serves = false;
    let served = serve(global, arguments, |view| {
        serves = true;
        say(&Begun::Serves(view))
    });
    if let Err(error) = &served
        && !serves
    {
        say(&Begun::Failed { code: crate::exit::kind_of(error) as u8, message: format!("{error:#}") })?;
    }
    served
}

/// The directory in NovaFS and the local folder.
fn places(places: &[PathBuf]) -> anyhow::Result<(String, PathBuf)> {
    let (mountpoint, path) = places.split_last().expect("clap asks for one");
    let path = match path.first() {
        None => "/".to_owned(),
        Some(path) => {
            let text =
                path.to_str().ok_or_else(|| Stop::usage(format!("{} is not UTF-8", path.display())))?;
            path::checked(text)?
        }
    };
    Ok((path, std::path::absolute(mountpoint)?))
}

/// Ctrl-C and its kin, as something to look at.
struct Signals {
    came: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&came)).context("listen for signals")?;
        }
        Ok(Self { came })
    }

    /// Whether one came since the last look.
    fn take(&self) -> bool {
        self.came.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_mounts_the_root_and_two_a_directory() {
        let both = |list: &[&str]| places(&list.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(both(&["/mnt/x"]).unwrap(), ("/".to_owned(), PathBuf::from("/mnt/x")));
        assert_eq!(both(&["/hot//a/", "/mnt/x"]).unwrap(), ("/hot/a".to_owned(), PathBuf::from("/mnt/x")));
        assert!(both(&["hot", "/mnt/x"]).is_err());
    }

    #[test]
    fn the_json_of_a_mount_has_the_keys_that_scripts_read() {
        let view = View { path: "/hot".into(), mountpoint: "/mnt/x".into(), pid: 7 };
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(json, r#"{"path":"/hot","mountpoint":"/mnt/x","pid":7}"#);
        assert!(view.text().contains("umount /mnt/x"));
    }
}
