//! What this end shows and whom it trusts.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::verify::OfOurs;
use crate::{ALPN, PeerName, TlsError};

/// Certificate, private key and trusted CAs of this end. Shared by the shards of a process; cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    name: PeerName,
}

impl PartialEq for TlsConfig {
    /// Whether both are of one reading.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client)
    }
}

impl Eq for TlsConfig {}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads the CA certificates (one or more files, each with one or more), our certificate and our private key, PEM.
    ///
    /// # Errors
    /// [`TlsError::Exposed`] when others may read the key; otherwise what is missing or malformed.
    pub fn load(cas: &[impl AsRef<Path>], certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let mut roots = Vec::new();
        for ca in cas {
            roots.extend(read(ca.as_ref())?);
            roots.push(b'\n');
        }
        Self::from_pem(&roots, &read(certificate)?, &read_private(key)?)
    }

    /// The same of texts.
    ///
    /// # Errors
    /// What is malformed, or does not belong together.
    pub fn from_pem(cas: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let malformed = |what: &str, wanted, reason: String| TlsError::Malformed {
            what: what.to_owned(),
            wanted,
            reason,
        };
        let certificates = |what: &str, pem: &[u8]| {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match found {
                Ok(found) if !found.is_empty() => Ok(found),
                Ok(_) => Err(malformed(what, "certificate in PEM form", "there is none".to_owned())),
                Err(error) => Err(malformed(what, "certificate in PEM form", error.to_string())),
            }
        };
        let mut roots = RootCertStore::empty();
        for ca in certificates("the file of trusted CAs", cas)? {
            roots.add(ca)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("our certificate", certificate)?;
        let name = PeerName::of_certificate(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| malformed("our private key", "private key in PEM form", error.to_string()))?;
        let provider = Arc::new(provider());

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| malformed("the file of trusted CAs", "set of CAs", error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.enable_secret_extraction = true;
        // A resumed session would outlive the revocation of its certificate, and early data could be replayed.
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfOurs { roots, provider }))
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_secret_extraction = true;
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), name })
    }

    /// The name in our certificate.
    #[must_use]
    pub fn name(&self) -> &PeerName {
        &self.name
    }
}

/// TLS 1.3 alone, AES-128-GCM first: it is the quickest here and no weaker than the certificates' curve.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| {
        let preferred = [
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
            rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
            rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        preferred.iter().position(|one| *one == suite.suite()).unwrap_or(usize::MAX)
    });
    provider
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// The mode is that of the open file, so that one swapped in between is judged by its own.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(0).clamp(1, 1 << 20) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    io::Read::read_to_end(&mut file, &mut bytes).map_err(failed)?;
    Ok(bytes)
}
