//! The region's certificate authority.

use core::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, string::Ia5String,
};
use zeroize::Zeroizing;

use crate::identity::checked_name;
use crate::private_file::{self, PRIVATE, PUBLIC};
use crate::{Identity, SecurityError};

/// Spec 2.6: certificates are rotated every 90 days, so none lives longer.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// A region's CA is replaced by hand, long before this.
pub const REGION_CA_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);
/// A certificate is valid this long before it was made, for hosts whose clock is behind.
pub const CLOCK_SKEW_ALLOWED: Duration = Duration::from_secs(5 * 60);

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const SERIAL_BYTES: usize = 16;

const _: () = assert!(REGION_CA_LIFETIME.as_secs() > 4 * CERTIFICATE_LIFETIME.as_secs());

/// Signs the certificates of one region. ECDSA P-256, so that an HSM can take over the key.
pub struct Authority {
    region: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Where an issued certificate and its private key were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM; anyone may read it.
    pub certificate: PathBuf,
    /// The private key, PEM, mode 0600.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a CA for `region` and writes `ca.pem` and a 0600 `ca.key` into `folder`, making the folder if needed.
    ///
    /// # Errors
    /// [`SecurityError::Exists`] when the folder holds a CA; otherwise what failed.
    pub fn create(folder: &Path, region: &str) -> Result<Self, SecurityError> {
        let region = checked_name("region", region.to_owned())?;
        let (certificate_path, key_path) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        // Both names are looked at first, so that half a CA is not made beside an old one.
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(SecurityError::Exists { path: path.clone() });
            }
        }
        fs::create_dir_all(folder)
            .map_err(|source| SecurityError::Write { path: folder.to_owned(), source })?;

        let key = generate_key()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(REGION_CA_LIFETIME);
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = named(&format!("NovaClustr region {region}"));
        params.subject_alt_names = vec![SanType::URI(ia5(&format!("spiffe://{region}.nova"))?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).map_err(|e| crypto("the CA certificate", &e))?.pem();

        private_file::create(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes(), PRIVATE)?;
        private_file::create(&certificate_path, certificate_pem.as_bytes(), PUBLIC)?;
        Self::assemble(region, certificate_pem, key, &certificate_path)
    }

    /// Opens the CA in `folder`.
    ///
    /// # Errors
    /// [`SecurityError::Exposed`] when others can read `ca.key`; otherwise what is missing or malformed.
    pub fn open(folder: &Path) -> Result<Self, SecurityError> {
        let (certificate_path, key_path) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        let certificate_pem = private_file::read_public(&certificate_path)?;
        let key_pem = private_file::read_private(&key_path)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| SecurityError::Malformed {
            path: key_path.clone(),
            reason: "no private key in PEM form".to_owned(),
        })?;
        let facts = crate::credentials::CertificateFacts::read(&certificate_path, &certificate_pem)?;
        if !facts.belongs_to(&key) {
            return Err(SecurityError::KeyMismatch { certificate: certificate_path, key: key_path });
        }
        let region = facts.uri.strip_prefix("spiffe://").and_then(|domain| domain.strip_suffix(".nova"));
        let region = region.ok_or_else(|| SecurityError::Malformed {
            path: certificate_path.clone(),
            reason: format!("{:?} is not the name of a region's CA", facts.uri),
        })?;
        let region = checked_name("region", region.to_owned())?;
        Self::assemble(region, certificate_pem, key, &certificate_path)
    }

    fn assemble(
        region: String,
        certificate_pem: String,
        key: KeyPair,
        path: &Path,
    ) -> Result<Self, SecurityError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|e| SecurityError::Malformed { path: path.to_owned(), reason: e.to_string() })?;
        Ok(Self { region, certificate_pem, issuer })
    }

    /// The region this CA speaks for.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The CA certificate, PEM: what every process of the region trusts.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate for `identity`, valid for [`CERTIFICATE_LIFETIME`], and writes `<stem>.pem` and a 0600
    /// `<stem>.key` into `folder`, replacing older ones, and `ca.pem` beside them.
    ///
    /// `further_names` are IP addresses and DNS names for tools that check the host; our own clients ask for the
    /// name of the role ([`crate::Role::server_name`]).
    ///
    /// # Errors
    /// [`SecurityError::NotAnIdentity`] for an identity of another region; otherwise what failed.
    pub fn issue(
        &self,
        folder: &Path,
        stem: &str,
        identity: &Identity,
        further_names: &[&str],
    ) -> Result<Issued, SecurityError> {
        if identity.region() != self.region {
            let reason = format!("{identity} is not of region {}", self.region);
            return Err(SecurityError::NotAnIdentity { reason });
        }
        let stem = checked_name("file", stem.to_owned())?;
        let key = generate_key()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(CERTIFICATE_LIFETIME);
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = named(identity.node());
        params.subject_alt_names = subject_names(identity, further_names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.role().serves() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| crypto("a certificate", &e))?;

        fs::create_dir_all(folder)
            .map_err(|source| SecurityError::Write { path: folder.to_owned(), source })?;
        let issued = Issued {
            certificate: folder.join(format!("{stem}.pem")),
            key: folder.join(format!("{stem}.key")),
        };
        private_file::replace(&issued.key, Zeroizing::new(key.serialize_pem()).as_bytes(), PRIVATE)?;
        private_file::replace(&issued.certificate, certificate.pem().as_bytes(), PUBLIC)?;
        private_file::replace(&folder.join(CA_CERTIFICATE), self.certificate_pem.as_bytes(), PUBLIC)?;
        Ok(issued)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("region", &self.region).field("key", &"(redacted)").finish()
    }
}

fn subject_names(identity: &Identity, further: &[&str]) -> Result<Vec<SanType>, SecurityError> {
    let mut names = vec![SanType::URI(ia5(&identity.to_string())?)];
    if identity.role().serves() {
        names.push(SanType::DnsName(ia5(&identity.role().server_name(identity.region()))?));
    }
    for name in further {
        names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            // A name under `.nova` would let one role answer for another.
            Err(_) if is_dns_name(name) && !name.ends_with(".nova") => SanType::DnsName(ia5(name)?),
            Err(_) => return Err(SecurityError::BadSubjectName { name: (*name).to_owned() }),
        });
    }
    Ok(names)
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| checked_name("host", label.to_owned()).is_ok())
}

fn generate_key() -> Result<KeyPair, SecurityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| crypto("a private key", &e))
}

fn random_serial() -> Result<SerialNumber, SecurityError> {
    let mut bytes = [0; SERIAL_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| crypto("a serial number", &e))?;
    // RFC 5280, 4.1.2.2: positive, and not shortened by a leading zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity<T>(lifetime: Duration) -> (T, T)
where
    T: From<SystemTime>,
{
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = now.saturating_sub(CLOCK_SKEW_ALLOWED);
    (T::from(UNIX_EPOCH + from), T::from(UNIX_EPOCH + now + lifetime))
}

fn ia5(text: &str) -> Result<Ia5String, SecurityError> {
    Ia5String::try_from(text).map_err(|_| SecurityError::BadSubjectName { name: text.to_owned() })
}

fn crypto(what: &'static str, reason: &impl fmt::Display) -> SecurityError {
    SecurityError::Crypto { what, reason: reason.to_string() }
}
