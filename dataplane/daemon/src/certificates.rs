//! The certificate that this host shows to others, and the CAs it trusts: read at start, and again when the files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use novabulk_tls::{TlsConfig, TlsError};
use serde::Deserialize;

use crate::switchboard::Switchboard;

/// What a data plane is called in certificates; a holder of another one, such as an agent's, is not let in.
pub(crate) const SERVICE: &str = "novad";
/// How often the files are looked at: a new certificate is in use this soon.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the files are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFiles {
    /// The region's CA, PEM; several while one is replaced by another.
    pub(crate) ca: PathBuf,
    /// This host's certificate, PEM, with the name `spiffe://<region>.nova/<zone>/novad/<name>`.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub(crate) key: PathBuf,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "{} is the certificate of {given}, and other hosts expect {SERVICE} of {name} from this one: issue one for \
         it, or correct `name`", path.display()
    )]
    Name { path: PathBuf, given: String, name: String },
}

impl CertificateFiles {
    /// Reads them; they must be those of the data plane of the host `name`.
    pub(crate) fn read(&self, name: &str) -> Result<TlsConfig, CertificateError> {
        let config = TlsConfig::load(&[&self.ca], &self.certificate, &self.key)?;
        let given = config.name();
        if (given.service(), given.node()) != (SERVICE, name) {
            let (path, given, name) = (self.certificate.clone(), given.to_string(), name.to_owned());
            return Err(CertificateError::Name { path, given, name });
        }
        Ok(config)
    }

    /// What tells a version of the files from the next. Whoever replaces them renames the key last, or this reads half of
    /// two versions, refuses it, and looks again.
    fn version(&self) -> Vec<Option<(SystemTime, u64)>> {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [&self.ca, &self.certificate, &self.key].map(|path| of(path)).to_vec()
    }
}

/// Looks at the files on a thread of its own, as long as the process lives, and puts what changed on the board. Connections
/// that stand go on under the certificates that they began with.
pub(crate) fn watch(
    files: CertificateFiles,
    name: String,
    switchboard: &Arc<Switchboard>,
) -> std::io::Result<()> {
    let switchboard = Arc::clone(switchboard);
    let mut known = files.version();
    std::thread::Builder::new().name("certificates".into()).spawn(move || {
        while !switchboard.stop_asked() {
            std::thread::sleep(LOOK_EVERY);
            let now = files.version();
            if now == known {
                continue;
            }
            match files.read(&name) {
                Ok(config) => {
                    tracing::info!(name = %config.name(), "other certificates are in use from here on");
                    switchboard.write_board(|board| board.certificates = Some(config));
                    known = now;
                }
                Err(error) => {
                    tracing::error!("the certificates changed and cannot be used; those before stay: {error}")
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn copied(folder: &Path, name: &str) -> CertificateFiles {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../novabulk/tls/testdata");
        let copy = |from: &str, to: &str| {
            fs::copy(source.join(from), folder.join(to)).unwrap();
            fs::set_permissions(folder.join(to), Permissions::from_mode(0o600)).unwrap();
            folder.join(to)
        };
        CertificateFiles {
            ca: copy("ca.pem", "ca.pem"),
            certificate: copy(&format!("{name}.pem"), "novad.pem"),
            key: copy(&format!("{name}.key"), "novad.key"),
        }
    }

    #[test]
    fn a_certificate_of_another_host_is_refused_with_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let files = copied(folder.path(), "one");
        assert!(files.read("one").is_ok());
        let refused = files.read("storage-7").unwrap_err().to_string();
        assert!(refused.contains("novad/one") && refused.contains("storage-7"), "{refused}");
    }

    #[test]
    fn files_that_change_are_told_from_those_that_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = copied(folder.path(), "one");
        let before = files.version();
        assert_eq!(files.version(), before);
        fs::remove_file(&files.certificate).unwrap();
        assert_ne!(files.version(), before);
        copied(folder.path(), "two");
        assert_ne!(files.version(), before);
    }
}
