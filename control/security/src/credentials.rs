//! What a process shows to its peers, and the TLS configurations made of it.

use core::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::crypto::CryptoProvider;
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity, ServerTlsConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::private_file;
use crate::{Identity, Role, SecurityError};

/// A peer that has not finished its TLS handshake after this is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes aws-lc with TLS 1.3 alone the TLS library of this process. Call it at the start of `main`; more calls do no
/// harm. [`Credentials`] also call it.
///
/// gRPC's TLS layer is built with TLS 1.2, so the version is closed here: a provider without cipher suites for 1.2
/// neither offers nor accepts it.
///
/// # Errors
/// [`SecurityError::ForeignProvider`] when another provider with TLS 1.2 was installed before.
pub fn install_crypto() -> Result<(), SecurityError> {
    if CryptoProvider::get_default().is_none() {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        // An error means that another thread was faster; the check below judges what it installed.
        let _ = provider.install_default();
    }
    let only_tls13 =
        |provider: &Arc<CryptoProvider>| provider.cipher_suites.iter().all(|suite| suite.tls13().is_some());
    match CryptoProvider::get_default() {
        Some(provider) if only_tls13(provider) => Ok(()),
        _ => Err(SecurityError::ForeignProvider),
    }
}

/// The certificate and private key of this process, and the CA it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    expires: SystemTime,
    ca_pem: Arc<str>,
    certificate_pem: Arc<str>,
    key_pem: Arc<Zeroizing<String>>,
}

impl Credentials {
    /// Reads `ca.pem`, `<stem>.pem` and `<stem>.key` from `folder`.
    ///
    /// # Errors
    /// [`SecurityError::Exposed`] when others can read the key; otherwise what is missing or malformed.
    pub fn load(folder: &Path, stem: &str) -> Result<Self, SecurityError> {
        Self::load_files(
            &folder.join("ca.pem"),
            &folder.join(format!("{stem}.pem")),
            &folder.join(format!("{stem}.key")),
        )
    }

    /// Reads the CA certificate, our certificate and our private key from these files.
    ///
    /// # Errors
    /// As [`Credentials::load`].
    pub fn load_files(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, SecurityError> {
        install_crypto()?;
        let ca_pem = private_file::read_public(ca)?;
        CertificateFacts::read(ca, &ca_pem)?;
        let certificate_pem = private_file::read_public(certificate)?;
        let facts = CertificateFacts::read(certificate, &certificate_pem)?;
        let identity = Identity::parse(&facts.uri)?;
        let key_pem = private_file::read_private(key)?;
        let pair = KeyPair::from_pem(&key_pem).map_err(|_| SecurityError::Malformed {
            path: key.to_owned(),
            reason: "no private key in PEM form".to_owned(),
        })?;
        // A crash between the two files of a renewal leaves a pair that does not match.
        if !facts.belongs_to(&pair) {
            return Err(SecurityError::KeyMismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            });
        }
        Ok(Self {
            identity,
            expires: facts.expires,
            ca_pem: ca_pem.into(),
            certificate_pem: certificate_pem.into(),
            key_pem: Arc::new(key_pem),
        })
    }

    /// Who we are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When our certificate stops being valid.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// TLS for a gRPC server that admits holders of a certificate of our region only.
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.tls_identity())
            .client_ca_root(Certificate::from_pem(self.ca_pem.as_bytes()))
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// TLS for a gRPC client that talks to servers of `expected` role only, whatever their address is.
    #[must_use]
    pub fn client_tls(&self, expected: Role) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.tls_identity())
            .ca_certificate(Certificate::from_pem(self.ca_pem.as_bytes()))
            .domain_name(expected.server_name(self.identity.region()))
            .timeout(HANDSHAKE_TIMEOUT)
    }

    fn tls_identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(self.certificate_pem.as_bytes(), self.key_pem.as_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("expires", &self.expires)
            .field("key", &"(redacted)")
            .finish_non_exhaustive()
    }
}

/// What we need to know of a certificate.
pub(crate) struct CertificateFacts {
    /// The one URI it carries.
    pub(crate) uri: String,
    /// When it stops being valid.
    pub(crate) expires: SystemTime,
    public_key_info: Vec<u8>,
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM file.
    pub(crate) fn read(path: &Path, pem: &str) -> Result<Self, SecurityError> {
        let malformed = |reason: String| SecurityError::Malformed { path: path.to_owned(), reason };
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|_| malformed("no certificate in PEM form".to_owned()))?;
        Self::from_der(&pem.contents).map_err(|error| malformed(error.to_string()))
    }

    /// Reads a certificate.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, SecurityError> {
        let refuse = |reason: &str| SecurityError::NotAnIdentity { reason: reason.to_owned() };
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| refuse("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(refuse("bytes follow the certificate"));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| refuse("its subject alternative names are malformed"))?
            .ok_or_else(|| refuse("it has no subject alternative name"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        // SPIFFE X.509-SVID, section 2: exactly one URI.
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(refuse("it must carry exactly one URI"));
        };
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            uri: uri.to_owned(),
            expires: UNIX_EPOCH + Duration::from_secs(expires),
            public_key_info: certificate.public_key().raw.to_vec(),
        })
    }

    /// Whether `key` is the private key of this certificate.
    pub(crate) fn belongs_to(&self, key: &KeyPair) -> bool {
        key.subject_public_key_info() == self.public_key_info
    }
}
