//! Who a certificate speaks for.

use core::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::TlsError;

/// The name in a peer's certificate: `spiffe://<region>.nova/<zone>/<service>/<node>`, checked in form. That a CA of ours
/// gave it is what TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerName {
    uri: String,
    service: (usize, usize),
}

impl PeerName {
    /// Reads the form.
    ///
    /// # Errors
    /// [`TlsError::Nameless`] when it has another one.
    pub fn parse(uri: &str) -> Result<Self, TlsError> {
        let odd =
            TlsError::Nameless("has no name of the form spiffe://<region>.nova/<zone>/<service>/<node>");
        let Some(rest) = uri.strip_prefix("spiffe://") else { return Err(odd) };
        let parts: Vec<&str> = rest.split('/').collect();
        let [domain, zone, service, node] = parts[..] else { return Err(odd) };
        let label = |text: &str| {
            (1..=63).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let region = domain.strip_suffix(".nova").unwrap_or_default();
        if ![region, zone, service, node].into_iter().all(label) {
            return Err(odd);
        }
        let begin = "spiffe://".len() + domain.len() + 1 + zone.len() + 1;
        Ok(Self { uri: uri.to_owned(), service: (begin, begin + service.len()) })
    }

    /// Reads the one URI of a certificate (SPIFFE X.509-SVID, section 2).
    ///
    /// # Errors
    /// [`TlsError::Nameless`] when it carries none, several, or one of another form.
    pub fn of_certificate(der: &[u8]) -> Result<Self, TlsError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| TlsError::Nameless("is not X.509"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| TlsError::Nameless("has malformed alternative names"))?
            .ok_or(TlsError::Nameless("has no alternative name"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::parse(uri),
            _ => Err(TlsError::Nameless("must carry exactly one URI")),
        }
    }

    /// The host.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.uri[self.service.1 + 1..]
    }

    /// What runs there, `novad` for a data plane.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.uri[self.service.0..self.service.1]
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_service_on_which_host() {
        let name = PeerName::parse("spiffe://dev.nova/data/novad/storage-1").unwrap();
        assert_eq!((name.service(), name.node()), ("novad", "storage-1"));
        assert_eq!(name.to_string(), "spiffe://dev.nova/data/novad/storage-1");
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for odd in [
            "",
            "https://dev.nova/data/novad/storage-1",
            "spiffe://dev/data/novad/storage-1",
            "spiffe://.nova/data/novad/storage-1",
            "spiffe://dev.nova/data/novad",
            "spiffe://dev.nova/data/novad/storage-1/more",
            "spiffe://dev.nova/data//storage-1",
            "spiffe://dev.nova/data/novad/Storage",
            "spiffe://dev.nova/data/novad/a b",
        ] {
            assert!(PeerName::parse(odd).is_err(), "{odd}");
        }
    }
}
