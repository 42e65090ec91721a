//! Namespaces are made by whoever asks for one, never on the way to something else.

use anyhow::Context as _;
use nova_api::files::failure::Code;
use novafs_client::{Client, ClientError};

use crate::fs::path;

/// An error unless the namespace of `path` exists: a name that was misspelt must not make one.
pub(super) fn check(client: &Client, path: &str) -> anyhow::Result<()> {
    let namespace = path::namespace(path);
    match client.stat(&namespace) {
        Ok(_) => Ok(()),
        Err(error @ ClientError::Refused { code: Code::NotFound, .. }) => Err(error).with_context(|| {
            format!("there is no namespace {namespace}; `nova fs mkdir {namespace}` makes one")
        }),
        Err(error) => Err(error.into()),
    }
}
