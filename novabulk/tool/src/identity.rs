//! Who this end is to others: files that `nova identity` makes.

use std::path::PathBuf;

use novabulk_tls::TlsConfig;

use crate::Global;
use crate::exit::{Kind, Stop};

/// Where an identity is when nothing else is said, below the home folder.
const FOLDER: &str = ".config/nova/identity";
/// CAs of others, one behind the other; there need not be any.
const TRUSTED: &str = "trusted.pem";

/// Reads the identity of the command line, or that of the user.
pub(crate) fn read(global: &Global) -> anyhow::Result<TlsConfig> {
    let folder = match (&global.identity, std::env::var_os("HOME")) {
        (Some(folder), _) => folder.clone(),
        (None, Some(home)) => PathBuf::from(home).join(FOLDER),
        (None, None) => {
            return Err(Stop::usage("there is no HOME to look for an identity in: give --identity DIR"));
        }
    };
    let file = |name: &str| folder.join(name);
    if !file("identity.pem").exists() {
        let text = format!(
            "{} has no identity: make one with `nova identity new`, or name its folder with --identity",
            folder.display()
        );
        return Err(Stop::error(Kind::NotFound, text));
    }
    let mut trusted = vec![file("ca.pem")];
    trusted.extend(Some(file(TRUSTED)).filter(|path| path.exists()));
    TlsConfig::load(&trusted, &file("identity.pem"), &file("identity.key"))
        .map_err(|error| Stop::error(Kind::Failed, format!("the identity in {}: {error}", folder.display())))
}
