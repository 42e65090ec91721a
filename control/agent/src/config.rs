//! The configuration: strict TOML, every key explained.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// What `--explain-config` prints: a configuration with every key.
pub(crate) const EXPLANATION: &str = r#"# Configuration of nova-agent. Keys without "default" must be given; unknown keys are refused.

# Name of the host, unique in the region; a host that registers under a known name is that host again.
name = "storage-1"
# What the host does: "storage" keeps blocks, "compute" runs jobs and is an edge.
roles = ["storage"]
# Failure zone. Default: "z1".
zone = "z1"
# Where other hosts reach this host's novad.
data_addr = "127.0.0.1:7101"
# Socket of novad.
novad_socket = "/run/nova/novad.sock"
# Socket for local programs; made with mode 0600.
socket = "/run/nova/agent.sock"
# gRPC addresses of all controllers.
controllers = ["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"]
# Threads of the runtime. Default: 1.
threads = 1

[tls]
# The region's CA, and the certificate and private key of this agent (PEM; the key has mode 0600).
ca = "/etc/nova/ca.pem"
certificate = "/etc/nova/agent.pem"
key = "/etc/nova/agent.key"
"#;

/// A checked configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    #[serde(default = "zone_default")]
    pub(crate) zone: String,
    pub(crate) data_addr: SocketAddr,
    pub(crate) novad_socket: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) controllers: Vec<String>,
    #[serde(default = "threads_default")]
    pub(crate) threads: usize,
    pub(crate) tls: Tls,
}

/// Where the certificates are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

fn zone_default() -> String {
    "z1".into()
}

const fn threads_default() -> usize {
    1
}

/// Roles a host can have (Spec 1.2).
const ROLES: [&str; 2] = ["storage", "compute"];
/// More threads than this serve nobody on a host whose cores belong to novad.
const THREADS_MAX: usize = 64;

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("configuration {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(!config.name.is_empty(), "name must be given");
        ensure!(!config.controllers.is_empty(), "controllers must name at least one address");
        ensure!(
            (1..=THREADS_MAX).contains(&config.threads),
            "threads is 1 to {THREADS_MAX}, not {}",
            config.threads
        );
        ensure!(!config.roles.is_empty(), "roles must name at least one of {ROLES:?}");
        for role in &config.roles {
            ensure!(ROLES.contains(&role.as_str()), "role {role:?} is not one of {ROLES:?}");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_is_itself_a_valid_configuration() {
        let config = Config::parse(EXPLANATION).expect("what we show must work");
        assert_eq!((config.zone, config.threads), (zone_default(), threads_default()));
    }

    #[test]
    fn unknown_keys_and_roles_are_refused() {
        assert!(Config::parse(&format!("colour = 'red'\n{EXPLANATION}")).is_err());
        assert!(Config::parse(&EXPLANATION.replace("[\"storage\"]", "[\"king\"]")).is_err());
    }
}
