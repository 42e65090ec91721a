//! `nova fs ls`, `stat`, `du`, `mkdir`, `mv`, `rm`: names, without the bytes behind them.

use clap::Args;
use nova_api::files::failure::Code;
use novafs_client::{Client, ClientError, Entry, EntryKind};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::path;
use crate::output;

/// What to list.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Also show kind, mode, size and time.
    #[arg(short)]
    long: bool,
    /// Also what lies below, however deep.
    #[arg(short = 'R')]
    recursive: bool,
    /// A directory, or a file.
    #[arg(default_value = "/")]
    path: String,
}

#[derive(Debug, Serialize)]
struct ListView {
    entries: Vec<EntryView>,
}

#[derive(Debug, Serialize)]
struct EntryView {
    path: String,
    kind: &'static str,
    bytes: u64,
    mode: u32,
    modified_ms: u64,
}

#[derive(Debug, Serialize)]
struct StatView {
    path: String,
    kind: &'static str,
    inode: u64,
    bytes: u64,
    mode: u32,
    modified_ms: u64,
    created_ms: u64,
    /// Of a directory.
    children: u64,
    /// Hexadecimal; null when whoever put the file did not compute it.
    sha256: Option<String>,
}

#[derive(Debug, Serialize)]
struct UsageView {
    path: String,
    files: u64,
    directories: u64,
    bytes: u64,
    blocks: u64,
}

pub(super) fn kind(entry: &Entry) -> &'static str {
    match entry.kind() {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Unspecified => "unknown",
    }
}

/// `drwxr-xr-x`, as ls(1) shows it.
fn mode_text(kind: &str, mode: u32) -> String {
    let letters = ['r', 'w', 'x'];
    let mut text = String::from(match kind {
        "directory" => "d",
        "symlink" => "l",
        _ => "-",
    });
    for bit in (0..9).rev() {
        text.push(if mode >> bit & 1 == 1 { letters[(8 - bit) % 3] } else { '-' });
    }
    text
}

impl EntryView {
    fn of(path: String, entry: &Entry) -> Self {
        Self { path, kind: kind(entry), bytes: entry.bytes, mode: entry.mode, modified_ms: entry.modified_ms }
    }
}

pub(super) fn list(global: &Global, client: &Client, list: &List) -> anyhow::Result<()> {
    let path = path::checked(&list.path)?;
    let entry = client.stat(&path)?;
    let mut entries = Vec::new();
    if entry.kind() != EntryKind::Directory {
        entries.push(EntryView::of(path.clone(), &entry));
    } else if list.recursive {
        client.walk(&path, &mut |below, entry| {
            entries.push(EntryView::of(path::join(&path, below), entry));
            Ok(())
        })?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
    } else {
        client.list(&path, &mut |entry| {
            entries.push(EntryView::of(path::join(&path, &entry.name), &entry));
            Ok(())
        })?;
    }
    output::print(global.json, &ListView { entries }, |view| list_text(&view.entries, &path, list))
}

fn list_text(entries: &[EntryView], path: &str, list: &List) -> String {
    // Whole paths only where names alone would not tell which is meant.
    let shown = |entry: &EntryView| {
        let slash = if entry.kind == "directory" { "/" } else { "" };
        let name = if list.recursive || entry.path == path { &entry.path } else { path::name(&entry.path) };
        format!("{name}{slash}")
    };
    if !list.long {
        return entries.iter().map(|entry| shown(entry) + "\n").collect();
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let bytes = if entry.kind == "directory" { String::new() } else { entry.bytes.to_string() };
            [mode_text(entry.kind, entry.mode), bytes, output::utc(entry.modified_ms), shown(entry)]
        })
        .collect();
    output::table(["MODE", "BYTES", "MODIFIED (UTC)", "NAME"], &[1], &rows)
}

pub(super) fn stat(global: &Global, client: &Client, path: &str) -> anyhow::Result<()> {
    let path = path::checked(path)?;
    let entry = client.stat(&path)?;
    let view = StatView {
        kind: kind(&entry),
        inode: entry.inode,
        bytes: entry.bytes,
        mode: entry.mode,
        modified_ms: entry.modified_ms,
        created_ms: entry.created_ms,
        children: entry.children,
        sha256: (!entry.sha256.is_empty()).then(|| output::hex(&entry.sha256)),
        path,
    };
    output::print(global.json, &view, StatView::text)
}

impl StatView {
    fn text(&self) -> String {
        let size = match self.kind {
            "directory" => format!("children  {}", self.children),
            _ => format!("size      {} bytes ({})", self.bytes, output::bytes(self.bytes)),
        };
        let sha256 = self.sha256.as_ref().map_or_else(String::new, |sha256| format!("sha256    {sha256}\n"));
        format!(
            "path      {}\nkind      {}\n{size}\nmode      {}\ninode     {}\nmodified  {} UTC\ncreated   {} UTC\n\
             {sha256}",
            self.path,
            self.kind,
            mode_text(self.kind, self.mode),
            self.inode,
            output::utc(self.modified_ms),
            output::utc(self.created_ms)
        )
    }
}

pub(super) fn usage(global: &Global, client: &Client, path: &str) -> anyhow::Result<()> {
    let path = path::checked(path)?;
    let usage = client.usage(&path)?;
    let view = UsageView {
        files: usage.files,
        directories: usage.directories,
        bytes: usage.bytes,
        blocks: usage.blocks,
        path,
    };
    output::print(global.json, &view, |view| {
        format!(
            "{} in {} files and {} directories below {}\n",
            output::bytes(view.bytes),
            view.files,
            view.directories,
            view.path
        )
    })
}

pub(super) fn mkdir(global: &Global, client: &Client, parents: bool, paths: &[String]) -> anyhow::Result<()> {
    /// What mkdir(1) gives without a umask of its own.
    const MODE: u32 = 0o755;
    #[derive(Serialize)]
    struct View {
        made: Vec<String>,
    }
    let made = paths.iter().map(|path| path::checked(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for path in &made {
        client.mkdir(path, MODE, parents)?;
    }
    output::print(global.json, &View { made }, |_| String::new())
}

pub(super) fn rename(
    global: &Global,
    client: &Client,
    source: &str,
    target: &str,
    replace: bool,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        source: String,
        target: String,
    }
    let source = path::checked(source)?;
    let mut target = path::checked(target)?;
    if path::name(&source).is_empty() {
        return Err(Stop::usage("the root has no other place"));
    }
    if matches!(client.stat(&target), Ok(entry) if entry.kind() == EntryKind::Directory) {
        target = path::join(&target, path::name(&source));
    }
    client.rename(&source, &target, replace).map_err(|error| match error {
        ClientError::Refused { code: Code::AlreadyExists, .. } => {
            anyhow::Error::new(error).context("--replace replaces a file that exists")
        }
        ClientError::Refused { code: Code::CrossDomain, .. } => anyhow::Error::new(error).context(
            "`nova fs cp` copies it, sealed anew under the keys of its new place; then `nova fs rm`",
        ),
        error => error.into(),
    })?;
    output::print(global.json, &View { source, target }, |_| String::new())
}

pub(super) fn remove(
    global: &Global,
    client: &Client,
    recursive: bool,
    paths: &[String],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        removed: Vec<String>,
    }
    let removed = paths.iter().map(|path| path::checked(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for path in &removed {
        client.remove(path, recursive).map_err(|error| match error {
            ClientError::Refused { code: Code::NotEmpty, .. } => {
                anyhow::Error::new(error).context("-r removes a directory with everything below it")
            }
            error => error.into(),
        })?;
    }
    output::print(global.json, &View { removed }, |_| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: &'static str) -> EntryView {
        EntryView { path: path.into(), kind, bytes: 7, mode: 0o644, modified_ms: 951_782_400_000 }
    }

    #[test]
    fn modes_are_shown_as_ls_does() {
        assert_eq!(mode_text("directory", 0o755), "drwxr-xr-x");
        assert_eq!(mode_text("file", 0o640), "-rw-r-----");
    }

    #[test]
    fn a_listing_shows_names_and_a_deep_one_paths() {
        let entries = [entry("/hot/a", "file"), entry("/hot/b", "directory")];
        let mut list = List { long: false, recursive: false, path: "/hot".into() };
        assert_eq!(list_text(&entries, "/hot", &list), "a\nb/\n");
        list.recursive = true;
        assert_eq!(list_text(&entries, "/hot", &list), "/hot/a\n/hot/b/\n");
        list.long = true;
        let text = list_text(&entries[..1], "/hot", &list);
        assert!(text.ends_with("-rw-r--r--      7  2000-02-29 00:00:00  /hot/a\n"), "{text}");
    }

    #[test]
    fn the_json_of_a_listing_has_the_keys_that_scripts_read() {
        let json = serde_json::to_value(ListView { entries: vec![entry("/hot/a", "file")] }).unwrap();
        assert_eq!(json["entries"][0]["path"], "/hot/a");
        assert_eq!(json["entries"][0]["kind"], "file");
        assert_eq!(json["entries"][0]["bytes"], 7);
        assert_eq!(json["entries"][0]["modified_ms"], 951_782_400_000_u64);
    }
}
