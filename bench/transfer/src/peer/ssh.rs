//! An ssh server of our own, and scp.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nova_measure::recipe::Recipe;

use super::{Kit, PORT, Plan, Task, address, find, words};
use crate::end::Side;

/// The fastest that both ends have; scp alone would choose ChaCha20.
const CIPHER: &str = "aes128-gcm@openssh.com";
/// Where Debian's server wants to go before it knows who asks.
const PRISON: &str = "/run/sshd";

/// Makes keys of the server and of its user.
pub(super) fn prepare(kit: &Kit) -> Result<()> {
    for key in ["host", "user"] {
        kit.make(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &kit.path(key)])?;
    }
    let read = |name: &str| fs::read_to_string(kit.path(name)).with_context(|| format!("read {name}"));
    fs::write(kit.path("authorized"), read("user.pub")?)?;
    let known = format!("[{}]:{PORT} {}", address(Side::Receiver), read("host.pub")?);
    fs::write(kit.path("known"), known)?;
    fs::create_dir_all(PRISON).with_context(|| format!("create {PRISON}"))
}

/// The server's command line.
pub(super) fn server(kit: &Kit, recipe: &mut Recipe) -> Result<Vec<String>> {
    let settings = format!(
        "Port {PORT}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nMaxStartups 100:30:100\n\
         Compression no\nSubsystem sftp internal-sftp\n",
        address(Side::Receiver),
        kit.path("host"),
        kit.path("authorized"),
    );
    let settings = kit.write("sshd.conf", &settings, recipe)?;
    // It wants to know its own place.
    let sshd = find("sshd").context("sshd is not installed")?;
    Ok(words(&[&sshd.display().to_string(), "-D", "-e", "-f", &settings]))
}

/// What ssh is started with, without a name of a host.
pub(super) fn client_options(kit: &Kit) -> Vec<String> {
    let known = format!("UserKnownHostsFile={}", kit.path("known"));
    words(&[
        "-F",
        "none",
        "-i",
        &kit.path("user"),
        "-o",
        &known,
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "Compression=no",
        "-c",
        CIPHER,
    ])
}

pub(super) fn plan(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let mut client = words(&["scp", "-q", "-r", "-P", &PORT.to_string()]);
    client.extend(client_options(kit));
    client.extend(words(&[&task.source(), &remote(task.target)]));
    Ok(Plan {
        server_at: Side::Receiver,
        server: server(kit, recipe)?,
        port: PORT,
        client,
        server_ends: false,
    })
}

/// A folder of the receiver.
pub(super) fn remote(folder: &Path) -> String {
    format!("root@{}:{}/", address(Side::Receiver), folder.display())
}
