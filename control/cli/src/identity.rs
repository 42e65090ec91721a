//! `nova identity`: who this user or host is to others where there is no region, and whom it trusts.
//!
//! An identity is a certificate of a CA of its own. Two ends speak when each trusts the other's CA, or when both have
//! certificates of one. `nova bulk` shows it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nova_security::{Authority, Credentials, Identity, Role, Zone};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::output;

/// Name of the region in certificates that belong to none.
const REGION: &str = "bulk";
/// Stem of the certificate and its key.
const STEM: &str = "identity";
/// CAs of others.
const TRUSTED: &str = "trusted.pem";
/// Where an identity is when nothing else is said, below the home folder.
const FOLDER: &str = ".config/nova/identity";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an identity: a certificate, its private key, and a CA for it.
    #[command(
        after_help = "The certificate holds for 90 days; --renew makes the next one. The CA stays, and so does who trusts it.\n\n\
                      Examples:\n  \
                      nova identity new\n  \
                      nova identity new --name backup-host --folder /etc/nova/identity\n  \
                      nova identity new --ca /mnt/usb/identity/ca      a second host of the same CA\n  \
                      nova identity new --renew"
    )]
    New(New),
    /// Trust the CA of somebody else: what it has signed may connect from now on.
    #[command(
        after_help = "Give each other the file ca.pem of your identities, which is no secret; see that it arrives unchanged.\n\n\
                      Example:\n  nova identity trust ~/from-other-host/ca.pem"
    )]
    Trust(Trust),
    /// Show the identity, until when it holds, and how many others it trusts.
    #[command(after_help = "Example:\n  nova identity show")]
    Show(At),
}

/// Where the identity is.
#[derive(Args, Debug)]
pub(crate) struct At {
    /// Folder of the identity [default: ~/.config/nova/identity]
    #[arg(long, value_name = "DIR", env = "NOVA_IDENTITY")]
    folder: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct New {
    #[command(flatten)]
    at: At,
    /// Name in the certificate: small letters, digits and hyphens [default: the name of this host]
    #[arg(long)]
    name: Option<String>,
    /// Folder of a CA to take the certificate from, in place of one of its own.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Replace the certificate and key that are there; the CA stays.
    #[arg(long)]
    renew: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Trust {
    #[command(flatten)]
    at: At,
    /// The other's CA certificate, PEM.
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct View {
    folder: PathBuf,
    name: String,
    ca: PathBuf,
    days_left: u64,
    trusted: usize,
}

pub(crate) fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::New(new) => make(new)?,
        Command::Trust(trust) => add(&folder_of(&trust.at)?, &trust.file)?,
        Command::Show(_) => {}
    }
    let at = match command {
        Command::New(New { at, .. }) | Command::Trust(Trust { at, .. }) | Command::Show(at) => at,
    };
    output::print(global.json, &view(&folder_of(at)?)?, View::text)
}

fn folder_of(at: &At) -> anyhow::Result<PathBuf> {
    match (&at.folder, std::env::var_os("HOME")) {
        (Some(folder), _) => Ok(std::path::absolute(folder)?),
        (None, Some(home)) => Ok(PathBuf::from(home).join(FOLDER)),
        (None, None) => {
            Err(Stop::usage("HOME is not set; name the folder of the identity with --folder DIR"))
        }
    }
}

fn make(new: &New) -> anyhow::Result<()> {
    let folder = folder_of(&new.at)?;
    if folder.join(format!("{STEM}.pem")).exists() != new.renew {
        let text = match new.renew {
            true => format!("{} has no identity to renew: leave --renew out", folder.display()),
            false => {
                format!("{} has an identity: --renew makes the next certificate of it", folder.display())
            }
        };
        return Err(Stop::usage(text));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("make {}", folder.display()))?;
    let own = folder.join("ca");
    let authority = match &new.ca {
        Some(ca) => Authority::open(ca)?,
        None if own.join("ca.pem").exists() => Authority::open(&own)?,
        None => Authority::create(&own, REGION)?,
    };
    let name = match (&new.name, new.renew) {
        (Some(name), _) => name.clone(),
        (None, true) => Credentials::load(&folder, STEM)?.identity().node().to_owned(),
        (None, false) => host_name(),
    };
    let identity = Identity::new(authority.region(), Zone::Data, Role::Daemon, name)?;
    authority.issue(&folder, STEM, &identity, &[])?;
    Ok(())
}

/// The name of this host as a certificate can have it.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let label: String =
        first.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "host".to_owned() } else { label.to_owned() }
}

/// Adds a CA certificate to those that are trusted, once.
fn add(folder: &Path, file: &Path) -> anyhow::Result<()> {
    view(folder)?;
    let given = fs::read_to_string(file)
        .map_err(|error| Stop::not_found(format!("{} cannot be read: {error}", file.display())))?;
    let certificate = given.trim();
    if !certificate.starts_with("-----BEGIN CERTIFICATE-----")
        || certificate.matches("-----BEGIN").count() != 1
    {
        let text =
            format!("{} is not one CA certificate in PEM form: give the other's ca.pem", file.display());
        return Err(Stop::usage(text));
    }
    let path = folder.join(TRUSTED);
    let before = fs::read_to_string(&path).unwrap_or_default();
    if before.contains(certificate) {
        return Ok(());
    }
    // Appended in one write: whoever reads meanwhile has all of it or nothing.
    let mut trusted = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    trusted
        .write_all(format!("{certificate}\n").as_bytes())
        .and_then(|()| trusted.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

fn view(folder: &Path) -> anyhow::Result<View> {
    if !folder.join(format!("{STEM}.pem")).exists() {
        let text = format!("{} has no identity: `nova identity new` makes one", folder.display());
        return Err(Stop::not_found(text));
    }
    let credentials = Credentials::load(folder, STEM)?;
    let left = credentials.expires().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    let trusted = fs::read_to_string(folder.join(TRUSTED)).unwrap_or_default();
    Ok(View {
        name: credentials.identity().node().to_owned(),
        ca: folder.join("ca.pem"),
        days_left: left.as_secs() / (24 * 60 * 60),
        trusted: trusted.matches("-----BEGIN CERTIFICATE-----").count(),
        folder: folder.to_owned(),
    })
}

impl View {
    fn text(&self) -> String {
        let Self { folder, name, ca, days_left, trusted } = self;
        format!(
            "{name}, in {}, for {days_left} more days; trusts its own CA and {trusted} of others\n\
             others trust it by {} (nova identity trust)\n",
            folder.display(),
            ca.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn new(folder: &Path) -> New {
        let at = At { folder: Some(folder.to_owned()) };
        New { at, name: Some("one".into()), ca: None, renew: false }
    }

    #[test]
    fn an_identity_is_made_once_renewed_when_asked_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/identity");
        assert!(view(&folder).is_err());
        make(&new(&folder)).unwrap();
        let (first, ca) =
            (fs::read(folder.join("identity.pem")).unwrap(), fs::read(folder.join("ca.pem")).unwrap());
        let seen = view(&folder).unwrap();
        assert_eq!((seen.name.as_str(), seen.trusted), ("one", 0));
        assert!(seen.days_left >= 89, "{seen:?}");
        for key in ["identity.key", "ca/ca.key"] {
            assert_eq!(fs::metadata(folder.join(key)).unwrap().permissions().mode() & 0o077, 0, "{key}");
        }
        assert!(make(&new(&folder)).is_err(), "there is one");
        make(&New { renew: true, name: None, ..new(&folder) }).unwrap();
        assert_ne!(fs::read(folder.join("identity.pem")).unwrap(), first);
        assert_eq!(fs::read(folder.join("ca.pem")).unwrap(), ca, "who trusted it does so still");
        assert_eq!(view(&folder).unwrap().name, "one");
    }

    #[test]
    fn others_are_trusted_once_each_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        make(&new(&one)).unwrap();
        make(&new(&two)).unwrap();
        for _ in 0..2 {
            add(&one, &two.join("ca.pem")).unwrap();
        }
        assert_eq!(view(&one).unwrap().trusted, 1);
        assert!(add(&one, &two.join("identity.key")).is_err());
        assert!(add(&one, &two.join("nothing")).is_err());
        assert_eq!(view(&one).unwrap().trusted, 1);
        // A second host of the same CA.
        make(&New { ca: Some(one.join("ca")), ..new(&folder.path().join("three")) }).unwrap();
        assert_eq!(
            fs::read(folder.path().join("three/ca.pem")).unwrap(),
            fs::read(one.join("ca.pem")).unwrap()
        );
    }
}
