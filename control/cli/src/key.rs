//! `nova key`: the key domains of the region, and the root key file.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use nova_api::keys::keys_client::KeysClient;
use nova_api::keys::{
    ChangeResponse, CreateRequest, Domain, DropRequest, ListRequest, ListResponse, RotateRequest, version,
};
use nova_security::RootKey;
use serde::Serialize;

use crate::arguments::Global;
use crate::cluster::{Controllers, PATIENCE};
use crate::dev::region::Region;
use crate::exit::Stop;
use crate::output;

/// Commands over keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the key domains with the versions of their keys.
    #[command(after_help = "Examples:\n  nova key ls\n  nova --json key ls | jq '.domains[].versions'")]
    Ls,
    /// Make a key domain: files in it can be erased together, by dropping its key.
    #[command(after_help = "A namespace goes into a domain while it is empty.\n\n\
                      Example:\n  \
                      nova key create patients && nova fs mkdir /patients && nova fs namespace --key-domain 2 patients")]
    Create {
        /// Name of the domain: 1 to 63 of a-z, 0-9 and '-'.
        name: String,
    },
    /// Make a new version of a domain's key. New blocks are sealed with it; older ones keep theirs.
    #[command(after_help = "Done by itself after 180 days.\n\nExample:\n  nova key rotate default")]
    Rotate {
        /// Name of the domain.
        name: String,
    },
    /// Erase a domain: its keys are destroyed, and nobody can read its files any more.
    #[command(
        after_help = "Cannot be taken back. Names and lengths of the files stay until they are removed; their space \
                      comes back then.\n\n\
                      Example:\n  nova key drop patients --yes"
    )]
    Drop {
        /// Name of the domain.
        name: String,
        /// Yes, all data of the domain are to be lost.
        #[arg(long)]
        yes: bool,
    },
    /// The root key file, which wraps the keys of all domains.
    #[command(subcommand)]
    Root(Root),
}

/// Commands over the root key file. They change a file of this machine and nothing else.
#[derive(Debug, Subcommand)]
pub(crate) enum Root {
    /// Make a root key file for the controllers of a region.
    #[command(
        after_help = "Give the same file to every controller, as root in the section [keys] of its configuration, and \
                      keep a copy in a safe place: without it nothing of the region can be read.\n\n\
                      Example:\n  nova key root create /etc/nova/root.key"
    )]
    Create {
        /// Where it goes; mode 0600.
        file: PathBuf,
    },
    /// Add a version to a root key file. Controllers that start with it wrap the keys of all domains anew.
    #[command(
        after_help = "Copy the file to every controller before the first of them is started again. When `nova key ls` \
                      names no older version any more, remove the older lines: copies of the old wrapped keys, in logs \
                      and backups, are worth nothing then.\n\n\
                      Example:\n  nova key root rotate /etc/nova/root.key"
    )]
    Rotate {
        /// The file.
        file: PathBuf,
    },
}

/// Carries out a command.
pub(crate) fn run(global: &Global, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Root(root) => run_root(global, &root),
        Command::Ls => {
            let listed = list(&mut controllers(global)?)?;
            output::print(global.json, &ListView::of(listed), ListView::text)
        }
        Command::Create { name } => {
            let made = controllers(global)?.ask(PATIENCE, async |channel| {
                KeysClient::new(channel).create(CreateRequest { name: name.clone() }).await
            })?;
            print_change(global, &name, &made, |it| {
                format!("made key domain {} with number {}\n", it.name, it.domain)
            })
        }
        Command::Rotate { name } => {
            let mut controllers = controllers(global)?;
            let domain = find(list(&mut controllers)?, &name)?;
            // Named, so that a request that is sent twice makes one version.
            let version = domain.versions.last().map_or(0, |last| last.version.saturating_add(1));
            let made = controllers.ask(PATIENCE, async |channel| {
                KeysClient::new(channel).rotate(RotateRequest { name: name.clone(), version }).await
            })?;
            print_change(global, &name, &made, |it| {
                format!("new blocks of key domain {} are sealed with version {}\n", it.name, it.version)
            })
        }
        Command::Drop { name, yes } => {
            let mut controllers = controllers(global)?;
            let domain = find(list(&mut controllers)?, &name)?;
            if !yes && domain.dropped_ms == 0 {
                let holds = match domain.namespaces.as_slice() {
                    [] => "no namespace is in it now".to_owned(),
                    spaces => format!("all files of {} will be lost", spaces_text(spaces)),
                };
                return Err(Stop::usage(format!(
                    "dropping key domain {name} cannot be taken back; {holds}. Say --yes if you mean it"
                )));
            }
            let done = controllers.ask(PATIENCE, async |channel| {
                KeysClient::new(channel).drop(DropRequest { name: name.clone() }).await
            })?;
            print_change(global, &name, &done, |it| {
                format!(
                    "dropped key domain {}: hosts in touch with the controllers forget it now, others when the time for \
                     which they may hold a key is over\n",
                    it.name
                )
            })
        }
    }
}

fn controllers(global: &Global) -> anyhow::Result<Controllers> {
    Controllers::of(&Region::load(&global.region_folder()?)?)
}

fn list(controllers: &mut Controllers) -> anyhow::Result<ListResponse> {
    controllers.ask(PATIENCE, async |channel| KeysClient::new(channel).list(ListRequest {}).await)
}

fn find(listed: ListResponse, name: &str) -> anyhow::Result<Domain> {
    let found = listed.domains.into_iter().find(|domain| domain.name == name);
    found.ok_or_else(|| Stop::not_found(format!("there is no key domain {name:?}: `nova key ls` shows them")))
}

fn spaces_text(spaces: &[String]) -> String {
    spaces.iter().map(|space| format!("/{space}")).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Serialize)]
struct ChangeView {
    name: String,
    domain: u32,
    version: u32,
}

fn print_change(
    global: &Global,
    name: &str,
    change: &ChangeResponse,
    text: impl FnOnce(&ChangeView) -> String,
) -> anyhow::Result<()> {
    let view = ChangeView { name: name.to_owned(), domain: change.domain, version: change.version };
    output::print(global.json, &view, text)
}

#[derive(Debug, Serialize)]
struct RootView {
    file: PathBuf,
    version: u32,
}

fn run_root(global: &Global, root: &Root) -> anyhow::Result<()> {
    let (file, key) = match root {
        Root::Create { file } => (file, RootKey::create(file).context("make the root key")?),
        Root::Rotate { file } => (file, RootKey::add_version(file).context("add a version to the root key")?),
    };
    let view = RootView { file: file.clone(), version: key.current_version() };
    output::print(global.json, &view, |it| {
        format!("{} wraps with version {} of the root key\n", it.file.display(), it.version)
    })
}

#[derive(Debug, Serialize)]
struct ListView {
    rotate_after_ms: u64,
    /// 0: the controllers have no key service, or it is away.
    root_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    trouble: String,
    domains: Vec<DomainView>,
}

#[derive(Debug, Serialize)]
struct DomainView {
    domain: u32,
    name: String,
    /// `live` or `dropped`.
    state: &'static str,
    created_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_ms: Option<u64>,
    namespaces: Vec<String>,
    versions: Vec<VersionView>,
}

#[derive(Debug, Serialize)]
struct VersionView {
    version: u32,
    /// `current` or `readable`.
    state: &'static str,
    created_ms: u64,
    root_version: u32,
}

impl ListView {
    fn of(listed: ListResponse) -> Self {
        let version = |it: nova_api::keys::Version| VersionView {
            version: it.version,
            state: match it.state() {
                version::State::Current => "current",
                version::State::Readable | version::State::Unspecified => "readable",
            },
            created_ms: it.created_ms,
            root_version: it.root_version,
        };
        let domain = |it: Domain| DomainView {
            domain: it.domain,
            name: it.name,
            state: if it.dropped_ms == 0 { "live" } else { "dropped" },
            created_ms: it.created_ms,
            dropped_ms: (it.dropped_ms != 0).then_some(it.dropped_ms),
            namespaces: it.namespaces,
            versions: it.versions.into_iter().map(version).collect(),
        };
        Self {
            rotate_after_ms: listed.rotate_after_ms,
            root_version: listed.root_version,
            trouble: listed.trouble,
            domains: listed.domains.into_iter().map(domain).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for it in &self.domains {
            text += &format!("{:>6}  {:<24} {:<8}", it.domain, it.name, it.state);
            let newest = it.versions.last().map_or(0, |last| last.version);
            if newest > 0 {
                let roots: std::collections::BTreeSet<_> =
                    it.versions.iter().map(|version| version.root_version.to_string()).collect();
                let roots = roots.into_iter().collect::<Vec<_>>().join(", ");
                text += &format!(
                    "  version {newest} of {}, wrapped under root version {roots}  {}",
                    it.versions.len(),
                    spaces_text(&it.namespaces)
                );
            }
            text = text.trim_end().to_owned() + "\n";
        }
        if !self.trouble.is_empty() {
            text += &format!("! {}\n", self.trouble);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use nova_api::keys::Version;

    use super::*;

    #[test]
    fn the_json_of_the_keys_has_the_keys_that_scripts_read() {
        let live = Domain {
            domain: 1,
            name: "default".into(),
            created_ms: 5,
            versions: vec![
                Version {
                    version: 1,
                    created_ms: 5,
                    state: version::State::Readable.into(),
                    root_version: 1,
                },
                Version { version: 2, created_ms: 9, state: version::State::Current.into(), root_version: 2 },
            ],
            namespaces: vec!["hot".into()],
            ..Domain::default()
        };
        let gone = Domain { domain: 2, name: "gone".into(), dropped_ms: 7, ..Domain::default() };
        let listed = ListResponse { domains: vec![live, gone], root_version: 2, ..ListResponse::default() };
        let view = ListView::of(listed);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["domains"][0]["versions"][1]["state"], "current");
        assert_eq!(
            (&json["domains"][1]["state"], &json["domains"][1]["dropped_ms"]),
            (&"dropped".into(), &7.into())
        );
        let text = view.text();
        assert!(text.contains("version 2 of 2, wrapped under root version 1, 2  /hot"), "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("dropped"), "{text}");
    }
}
