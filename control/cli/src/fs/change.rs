//! `nova fs ln`, `chmod`, `chown`, `truncate`, `xattr`, `quota`: what hangs on a name.

use clap::{Args, Subcommand};
use nova_api::files::failure::Code;
use novafs_client::{Attributes, Client, ClientError, OpenOptions, Owner, XattrMode};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::{path, size};
use crate::output;

/// A link to make.
#[derive(Args, Debug)]
pub(crate) struct Link {
    /// A symbolic link: its target is kept as it is.
    #[arg(short)]
    symbolic: bool,
    /// An existing file; with -s any text.
    target: String,
    /// The new name.
    name: String,
}

/// Paths that a command changed.
#[derive(Debug, Serialize)]
struct Changed {
    changed: Vec<String>,
}

fn checked(paths: &[String]) -> anyhow::Result<Vec<String>> {
    paths.iter().map(|path| path::checked(path)).collect()
}

pub(super) fn link(global: &Global, client: &Client, link: &Link) -> anyhow::Result<()> {
    let name = path::checked(&link.name)?;
    if link.symbolic {
        client.symlink(&name, &link.target, Owner::default())?;
    } else {
        client.link(&path::checked(&link.target)?, &name)?;
    }
    output::print(global.json, &Changed { changed: vec![name] }, |_| String::new())
}

pub(super) fn mode(global: &Global, client: &Client, mode: u32, paths: &[String]) -> anyhow::Result<()> {
    set(global, client, Attributes { mode: Some(mode), ..Attributes::default() }, paths)
}

pub(super) fn owner(global: &Global, client: &Client, owner: &str, paths: &[String]) -> anyhow::Result<()> {
    let (uid, gid) = parse_owner(owner)?;
    set(global, client, Attributes { uid, gid, ..Attributes::default() }, paths)
}

fn set(global: &Global, client: &Client, attributes: Attributes, paths: &[String]) -> anyhow::Result<()> {
    let changed = checked(paths)?;
    for path in &changed {
        client.set_attributes(path, attributes)?;
    }
    output::print(global.json, &Changed { changed }, |_| String::new())
}

/// Permission bits as chmod(1) takes them in octal.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o7777) => Ok(mode),
        _ => Err("an octal mode, as 644 or 1755".into()),
    }
}

/// `USER`, `USER:GROUP` or `:GROUP`, in numbers: names are each host's own.
fn parse_owner(text: &str) -> anyhow::Result<(Option<u32>, Option<u32>)> {
    let number = |text: &str| {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    match (number(user), number(group)) {
        (Ok(uid), Ok(gid)) if uid.is_some() || gid.is_some() => Ok((uid, gid)),
        _ => Err(Stop::usage(format!(
            "{text:?} is no owner: give numbers, as 1000:1000 (id -u, id -g tell them)"
        ))),
    }
}

pub(super) fn truncate(
    global: &Global,
    client: &Client,
    bytes: &str,
    paths: &[String],
) -> anyhow::Result<()> {
    let bytes = size(bytes)?;
    let changed = checked(paths)?;
    let options = OpenOptions { write: true, create: true, mode: 0o644, ..OpenOptions::default() };
    for path in &changed {
        let file = client.open(path, &options).map_err(|error| match error {
            ClientError::Refused { code: Code::Busy, .. } => {
                anyhow::Error::new(error).context("another client writes the file: try again when it is done")
            }
            error => error.into(),
        })?;
        file.set_bytes(bytes)?;
        file.close()?;
    }
    output::print(global.json, &Changed { changed }, |_| String::new())
}

/// Extended attributes of a name.
#[derive(Debug, Subcommand)]
pub(crate) enum Xattr {
    /// Show all of them.
    #[command(after_help = "Example:\n  nova fs xattr ls /hot/a")]
    Ls {
        /// A path in NovaFS.
        path: String,
    },
    /// Set one.
    #[command(after_help = "Example:\n  nova fs xattr set /hot/a user.origin camera-7")]
    Set {
        /// A path in NovaFS.
        path: String,
        /// Its name; begins with user.
        name: String,
        /// Its value.
        value: String,
    },
    /// Remove one.
    #[command(after_help = "Example:\n  nova fs xattr rm /hot/a user.origin")]
    Rm {
        /// A path in NovaFS.
        path: String,
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Serialize)]
struct XattrView {
    name: String,
    /// Text, or hexadecimal digits after 0x.
    value: String,
}

pub(super) fn xattr(global: &Global, client: &Client, command: &Xattr) -> anyhow::Result<()> {
    match command {
        Xattr::Ls { path } => {
            #[derive(Serialize)]
            struct View {
                xattrs: Vec<XattrView>,
            }
            let found = client.xattrs(&path::checked(path)?)?;
            let view = |xattr: novafs_client::Xattr| {
                let value = match std::str::from_utf8(&xattr.value) {
                    Ok(text) if !text.contains(char::is_control) => text.to_owned(),
                    _ => format!("0x{}", output::hex(&xattr.value)),
                };
                XattrView { name: xattr.name, value }
            };
            let view = View { xattrs: found.into_iter().map(view).collect() };
            output::print(global.json, &view, |view| {
                view.xattrs.iter().map(|xattr| format!("{} = {}\n", xattr.name, xattr.value)).collect()
            })
        }
        Xattr::Set { path, name, value } => {
            let path = path::checked(path)?;
            client.set_xattr(&path, name, value.as_bytes(), XattrMode::Set)?;
            output::print(global.json, &Changed { changed: vec![path] }, |_| String::new())
        }
        Xattr::Rm { path, name } => {
            let path = path::checked(path)?;
            client.remove_xattr(&path, name)?;
            output::print(global.json, &Changed { changed: vec![path] }, |_| String::new())
        }
    }
}

/// A quota to show or set.
#[derive(Args, Debug)]
pub(crate) struct Quota {
    /// Most bytes below the directory, as 500G; 0 is no limit.
    #[arg(long, value_name = "SIZE")]
    bytes: Option<String>,
    /// Most files, links and directories below it; 0 is no limit.
    #[arg(long, value_name = "COUNT")]
    files: Option<u64>,
    /// A directory in NovaFS.
    path: String,
}

#[derive(Debug, Serialize)]
struct QuotaView {
    path: String,
    bytes: u64,
    /// 0: no limit.
    bytes_max: u64,
    files: u64,
    /// 0: no limit.
    files_max: u64,
}

pub(super) fn quota(global: &Global, client: &Client, quota: &Quota) -> anyhow::Result<()> {
    let path = path::checked(&quota.path)?;
    let now = client.usage(&path)?;
    if quota.bytes.is_some() || quota.files.is_some() {
        let bytes_max = quota.bytes.as_deref().map_or(Ok(now.bytes_max), size)?;
        client.set_quota(&path, bytes_max, quota.files.unwrap_or(now.files_max))?;
    }
    let now = client.usage(&path)?;
    let view = QuotaView {
        path,
        bytes: now.bytes,
        bytes_max: now.bytes_max,
        files: now.files + now.directories,
        files_max: now.files_max,
    };
    output::print(global.json, &view, QuotaView::text)
}

impl QuotaView {
    fn text(&self) -> String {
        let of = |max: u64, text: String| if max == 0 { "no limit".to_owned() } else { text };
        format!(
            "bytes  {} of {}\nfiles  {} of {}\n",
            output::bytes(self.bytes),
            of(self.bytes_max, output::bytes(self.bytes_max)),
            self.files,
            of(self.files_max, self.files_max.to_string())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_owners_are_numbers() {
        assert_eq!((parse_mode("644"), parse_mode("1777")), (Ok(0o644), Ok(0o1777)));
        assert!(parse_mode("u+x").is_err() && parse_mode("10000").is_err());
        assert_eq!(parse_owner("1000:100").unwrap(), (Some(1000), Some(100)));
        assert_eq!(parse_owner(":7").unwrap(), (None, Some(7)));
        assert_eq!(parse_owner("0").unwrap(), (Some(0), None));
        assert!(parse_owner("root").is_err() && parse_owner(":").is_err());
    }

    #[test]
    fn a_quota_without_a_limit_says_so() {
        let view = QuotaView { path: "/hot".into(), bytes: 1024, bytes_max: 0, files: 3, files_max: 10 };
        assert_eq!(view.text(), "bytes  1.00 KiB of no limit\nfiles  3 of 10\n");
    }
}
