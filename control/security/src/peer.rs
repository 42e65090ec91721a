//! Who called.

use tonic::{Request, Status};

use crate::credentials::CertificateFacts;
use crate::{Identity, Role, SecurityError};

/// The identity in the certificates a peer presented, which TLS has verified against the region's CA.
///
/// # Errors
/// [`SecurityError::NotAnIdentity`] when there is no certificate or it carries no identity.
pub fn peer_identity<C: AsRef<[u8]>>(certificates: &[C]) -> Result<Identity, SecurityError> {
    let first = certificates
        .first()
        .ok_or_else(|| SecurityError::NotAnIdentity { reason: "the peer presented none".to_owned() })?;
    Identity::parse(&CertificateFacts::from_der(first.as_ref())?.uri)
}

/// The identity of the caller of `request`, when its role is one of `allowed`.
///
/// # Errors
/// `UNAUTHENTICATED` without an identity, `PERMISSION_DENIED` for another role.
pub fn authorize<T>(request: &Request<T>, allowed: &[Role]) -> Result<Identity, Status> {
    let certificates = request.peer_certs().ok_or_else(|| {
        Status::unauthenticated("this service speaks mutual TLS only; present a certificate of the region")
    })?;
    let identity =
        peer_identity(&certificates).map_err(|error| Status::unauthenticated(error.to_string()))?;
    if allowed.contains(&identity.role()) {
        Ok(identity)
    } else {
        Err(Status::permission_denied(format!("{identity} may not call this service")))
    }
}
