//! What the checks look at: the crates, the packages behind them, and every text file of ours.

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The platform the cluster runs on; packages for others are not looked at.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Folders that hold no text of ours.
const FOLDERS_SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "testdata"];

/// The repository as the checks see it.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Where the root manifest lies.
    pub(crate) root: PathBuf,
    /// Our own crates.
    pub(crate) crates: Vec<Crate>,
    /// Every package in the dependency graph, ours included.
    pub(crate) packages: Vec<Package>,
    /// Rust sources, manifests and Markdown, by path from the root.
    pub(crate) files: Vec<TextFile>,
}

/// One of our crates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crate {
    /// Package name.
    pub(crate) name: String,
    /// Folder from the root, as `dataplane/units`.
    pub(crate) folder: String,
    /// What its manifest names.
    pub(crate) edges: Vec<Edge>,
    /// SPDX expression.
    pub(crate) licence: Option<String>,
    /// Whether it could be published.
    pub(crate) publishable: bool,
    /// Paths from the root of its `lib.rs`, `main.rs` and other binaries.
    pub(crate) roots: Vec<String>,
}

/// A dependency as the manifest of one of our crates names it.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// Package name of the target.
    pub(crate) to: String,
    /// Normal, build or dev.
    pub(crate) kind: DependencyKind,
    /// Version requirement; `*` for a path.
    pub(crate) requirement: String,
    /// Whether the target is one of our crates.
    pub(crate) ours: bool,
}

/// A package in the graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    /// Package name.
    pub(crate) name: String,
    /// Version, for messages.
    pub(crate) version: String,
    /// SPDX expression.
    pub(crate) licence: Option<String>,
    /// Where it comes from; `None` for ours.
    pub(crate) source: Option<String>,
    /// Names of the packages that depend on it directly.
    pub(crate) users: Vec<String>,
}

/// A text file.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextFile {
    /// Path from the root with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl TextFile {
    /// Whether the path ends in `.rs`.
    pub(crate) fn is_rust(&self) -> bool {
        self.extension() == Some("rs")
    }

    /// Whether the path ends in `.md`.
    pub(crate) fn is_markdown(&self) -> bool {
        self.extension() == Some("md")
    }

    /// Whether it holds tests only: below a `tests` folder, or `tests.rs` beside the code it tests.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| part == "tests" || part == "tests.rs" || part == "benches")
    }

    fn extension(&self) -> Option<&str> {
        Path::new(&self.path).extension().and_then(|extension| extension.to_str())
    }
}

impl Workspace {
    /// Reads the workspace this program was built from.
    pub(crate) fn load() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(&manifest)
            .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), PLATFORM.to_owned()])
            .exec()
            .context("read cargo metadata; is Cargo.lock up to date?")?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let mut files = Vec::new();
        collect(&root, &root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let (crates, packages) = (crates(&metadata)?, packages(&metadata)?);
        Ok(Self { root, crates, packages, files })
    }

    /// The file at `path` from the root.
    pub(crate) fn file(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The crate whose folder holds `path`.
    pub(crate) fn crate_of(&self, path: &str) -> Option<&Crate> {
        self.crates
            .iter()
            .find(|one| path.strip_prefix(&one.folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// `cargo tree` over the normal edges of `names`, each line led by its depth.
    pub(crate) fn tree(&self, names: &[&str]) -> Result<String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        command.args([
            "tree", "--locked", "--target", PLATFORM, "-e", "normal", "--prefix", "depth", "-f", "{p}",
        ]);
        for name in names {
            command.args(["-p", name]);
        }
        let output = command.output().context("run cargo tree")?;
        if !output.status.success() {
            bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8(output.stdout).context("read the output of cargo tree")
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<TextFile>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8; rename it", path.display()))?;
        if kind.is_dir() && !FOLDERS_SKIPPED.contains(&name) {
            collect(root, &path, files)?;
        } else if kind.is_file() && [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)) {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            files.push(TextFile { path: relative(root, &path)?, text });
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let path =
        path.strip_prefix(root).with_context(|| format!("{} is outside the workspace", path.display()))?;
    Ok(path.to_str().context("a path is not UTF-8")?.to_owned())
}

fn crates(metadata: &Metadata) -> Result<Vec<Crate>> {
    let root = metadata.workspace_root.as_std_path();
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let folder = package.manifest_path.parent().context("a manifest lies in no folder")?;
            let targets = package.targets.iter().filter(|target| target.is_lib() || target.is_bin());
            Ok(Crate {
                name: package.name.to_string(),
                folder: relative(root, folder.as_std_path())?,
                edges: package
                    .dependencies
                    .iter()
                    .map(|dependency| Edge {
                        to: dependency.name.clone(),
                        kind: dependency.kind,
                        requirement: dependency.req.to_string(),
                        ours: dependency.path.is_some(),
                    })
                    .collect(),
                licence: package.license.clone(),
                publishable: package.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
                roots: targets
                    .map(|target| relative(root, target.src_path.as_std_path()))
                    .collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn packages(metadata: &Metadata) -> Result<Vec<Package>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata answered without a graph")?;
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let mut users: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for node in &resolve.nodes {
        for dependency in &node.deps {
            users.entry(&dependency.pkg).or_default().push(names[&node.id].name.to_string());
        }
    }
    let in_graph = resolve.nodes.iter().map(|node| names[&node.id]);
    Ok(in_graph
        .map(|package| Package {
            name: package.name.to_string(),
            version: package.version.to_string(),
            licence: package.license.clone(),
            source: package.source.as_ref().map(|source| source.repr.clone()),
            users: users.get(&package.id).cloned().unwrap_or_default(),
        })
        .collect())
}
