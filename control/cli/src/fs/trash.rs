//! `nova fs trash` and `nova fs space`: what can come back, and the rules of a namespace.

use clap::{Args, Subcommand};
use nova_units::Replicas;
use novafs_client::{Client, SpaceRules, Trashed};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::path;
use crate::output;

/// What was removed and can come back.
#[derive(Debug, Subcommand)]
pub(crate) enum Trash {
    /// List it, the oldest first.
    #[command(after_help = "Examples:\n  nova fs trash ls\n  nova fs trash ls hot")]
    Ls {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// Bring it back, with everything below it.
    #[command(
        after_help = "Examples:\n  nova fs trash restore 7\n  nova fs trash restore 7 /hot/photos-2026"
    )]
    Restore(Restore),
    /// Free its room now. There is no way back.
    #[command(after_help = "Examples:\n  nova fs trash purge 7\n  nova fs trash purge --all")]
    Purge {
        /// Its number, as the list shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<u64>,
        /// Everything.
        #[arg(long)]
        all: bool,
    },
}

/// What to bring back.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Its number, as `nova fs trash ls` shows it.
    id: u64,
    /// Where to; default: where it was.
    target: Option<String>,
}

/// An answer without anything to tell.
#[derive(Serialize)]
struct Done {}

#[derive(Debug, Serialize)]
struct TrashedView {
    id: u64,
    path: String,
    removed_ms: u64,
    files: u64,
    bytes: u64,
    purge_ms: u64,
}

impl From<Trashed> for TrashedView {
    fn from(trashed: Trashed) -> Self {
        let Trashed { id, path, removed_ms, files, bytes, purge_ms } = trashed;
        Self { id, path, removed_ms, files, bytes, purge_ms }
    }
}

#[derive(Debug, Serialize)]
struct ListView {
    entries: Vec<TrashedView>,
}

impl ListView {
    fn text(&self) -> String {
        let row = |entry: &TrashedView| {
            [
                entry.id.to_string(),
                output::utc(entry.removed_ms),
                output::utc(entry.purge_ms),
                entry.files.to_string(),
                entry.bytes.to_string(),
                entry.path.clone(),
            ]
        };
        let rows: Vec<_> = self.entries.iter().map(row).collect();
        output::table(["ID", "REMOVED (UTC)", "GONE FOR GOOD", "FILES", "BYTES", "WAS AT"], &[0, 3, 4], &rows)
    }
}

pub(super) fn run(global: &Global, client: &Client, command: &Trash) -> anyhow::Result<()> {
    match command {
        Trash::Ls { namespace } => {
            let namespace = namespace.as_deref().unwrap_or_default().trim_matches('/');
            let mut entries = Vec::new();
            client.trash(namespace, &mut |trashed| {
                entries.push(trashed.into());
                Ok(())
            })?;
            output::print(global.json, &ListView { entries }, ListView::text)
        }
        Trash::Restore(what) => restore(global, client, what),
        Trash::Purge { id, .. } => {
            if *id == Some(0) {
                return Err(Stop::usage("there is no number 0; --all purges everything"));
            }
            client.purge_trash(*id)?;
            output::print(global.json, &Done {}, |_| String::new())
        }
    }
}

pub(super) fn restore(global: &Global, client: &Client, what: &Restore) -> anyhow::Result<()> {
    let target = what.target.as_deref().map(path::checked).transpose()?.unwrap_or_default();
    client.undelete(what.id, &target)?;
    output::print(global.json, &Done {}, |_| String::new())
}

/// Rules of a namespace to show or set.
#[derive(Args, Debug)]
pub(crate) struct Space {
    /// How long files are kept, as 30d, 12h; `ever`: until they are removed.
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    retention: Option<u64>,
    /// How long what is removed can come back, as 7d; 0: not at all.
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    undelete: Option<u64>,
    /// Copies of each new block, 2 to 5, each on another storage host.
    #[arg(long, value_name = "COUNT", value_parser = replicas)]
    replicas: Option<u32>,
    /// Key domain of its files; only while the namespace is empty.
    #[arg(long, value_name = "NUMBER")]
    key_domain: Option<u32>,
    /// Unit size of new blocks as a power of two, 12 to 16.
    #[arg(long, value_name = "LOG2")]
    unit_log2: Option<u32>,
    /// The namespace, a directory under the root.
    namespace: String,
}

#[derive(Debug, Serialize)]
struct SpaceView {
    namespace: String,
    /// 0: until files are removed.
    retention_ms: u64,
    undelete_ms: u64,
    replicas: u32,
    key_domain: u32,
    unit_log2: u32,
}

/// A number of copies that a namespace may keep.
fn replicas(text: &str) -> Result<u32, String> {
    let known = text.parse().ok().and_then(Replicas::new);
    known.map(Replicas::get).ok_or_else(|| Replicas::RANGE.to_owned())
}

/// A time as people type it, in ms.
fn duration_ms(text: &str) -> Result<u64, String> {
    if text == "ever" {
        return Ok(0);
    }
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" if number == "0" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let number = number.parse::<u64>().ok().filter(|_| factor > 0);
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| "a time, as 30d, 12h, 90m, 10s".into())
}

/// Milliseconds for people.
fn duration_text(ms: u64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms > 0 && ms.is_multiple_of(factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms} ms")
}

pub(super) fn space(global: &Global, client: &Client, space: &Space) -> anyhow::Result<()> {
    let namespace = space.namespace.trim_matches('/').to_owned();
    let path = path::checked(&format!("/{namespace}"))?;
    let rules = SpaceRules {
        retention_ms: space.retention,
        replicas: space.replicas,
        key_domain: space.key_domain,
        undelete_ms: space.undelete,
        unit_log2: space.unit_log2,
    };
    if rules != SpaceRules::default() {
        client.set_space(&namespace, rules)?;
    }
    let entry = client.stat(&path)?;
    let Some(found) = entry.space else {
        return Err(Stop::usage(format!("{path} is no namespace: those lie under the root")));
    };
    let view = SpaceView {
        namespace,
        retention_ms: found.retention_ms,
        undelete_ms: found.undelete_ms,
        replicas: found.replicas,
        key_domain: found.key_domain,
        unit_log2: found.unit_log2,
    };
    output::print(global.json, &view, SpaceView::text)
}

impl SpaceView {
    fn text(&self) -> String {
        let kept = match self.retention_ms {
            0 => "until removed".to_owned(),
            ms => duration_text(ms),
        };
        format!(
            "retention   {kept}\nundelete    {}\nreplicas    {}\nkey domain  {}\nunits       {}\n",
            duration_text(self.undelete_ms),
            self.replicas,
            self.key_domain,
            output::bytes(1 << self.unit_log2.min(63))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_typed_and_shown_with_their_unit() {
        for (text, ms) in
            [("30d", 2_592_000_000), ("12h", 43_200_000), ("0", 0), ("ever", 0), ("90s", 90_000)]
        {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        assert!(["30", "x", "d", "5w"].into_iter().all(|text| duration_ms(text).is_err()));
        assert_eq!(
            (duration_text(2_592_000_000), duration_text(90_000)),
            ("30d".to_owned(), "90s".to_owned())
        );
    }

    #[test]
    fn one_copy_alone_cannot_be_asked_for() {
        assert_eq!(["2", "5"].map(replicas), [Ok(2), Ok(5)]);
        for wrong in ["1", "6", "0", "-2", "two"] {
            assert!(replicas(wrong).unwrap_err().contains("2 to 5"), "{wrong}");
        }
    }

    #[test]
    fn the_json_of_the_trash_has_the_keys_that_scripts_read() {
        let trashed = Trashed { id: 7, path: "/hot/a".into(), files: 2, bytes: 10, ..Trashed::default() };
        let view = ListView { entries: vec![trashed.into()] };
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["entries"][0]["id"], &json["entries"][0]["path"]), (&7.into(), &"/hot/a".into()));
        assert!(view.text().contains("/hot/a"));
    }
}
