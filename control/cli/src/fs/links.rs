//! Symbolic links, and further names of files, in NovaFS.

use nova_api::files::failure::Code;
use novafs_client::{Client, ClientError, Entry, Owner};

use crate::fs::path;

/// Makes the symbolic link `name`; with `replace` a file or link that has the name makes room.
pub(super) fn symbolic(client: &Client, name: &str, text: &str, replace: bool) -> Result<(), ClientError> {
    make(client, name, replace, || client.symlink(name, text, Owner::default()))
}

/// Gives the file `first` the further name `name`, likewise.
pub(super) fn further_name(
    client: &Client,
    first: &str,
    name: &str,
    replace: bool,
) -> Result<(), ClientError> {
    // That the first name is missing must not make directories for the second.
    client.stat(first)?;
    make(client, name, replace, || client.link(first, name))
}

fn make(
    client: &Client,
    name: &str,
    replace: bool,
    make: impl Fn() -> Result<Entry, ClientError>,
) -> Result<(), ClientError> {
    let code = |made: &Result<Entry, ClientError>| match made {
        Err(ClientError::Refused { code, .. }) => Some(*code),
        _ => None,
    };
    let mut made = make();
    if code(&made) == Some(Code::NotFound)
        && let Some(folder) = path::parent(name)
    {
        // A namespace is only made by whoever asks for it.
        client.stat(&path::namespace(name))?;
        client.mkdir(folder, 0o755, true)?;
        made = make();
    }
    if replace && code(&made) == Some(Code::AlreadyExists) {
        client.unlink(name)?;
        made = make();
    }
    made.map(drop)
}
