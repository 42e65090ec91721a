//! Who a certificate speaks for.

use core::fmt;

use crate::SecurityError;

/// Longest name of a region or node, so that it is also a DNS label (RFC 1035, 2.3.4).
pub const NAME_BYTES_MAX: usize = 63;

/// What a process is in its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `nova-control` as a controller: member of the Raft groups.
    Controller,
    /// `nova-agent`, one on every host.
    Agent,
    /// `novad`, the data plane of a host.
    Daemon,
    /// `nova-control` as the public edge.
    Gateway,
    /// `nova-monitor`.
    Monitor,
    /// A person with `nova`.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Controller, Self::Agent, Self::Daemon, Self::Gateway, Self::Monitor, Self::Operator];

    /// The word for this role in a SPIFFE or DNS name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
            Self::Daemon => "novad",
            Self::Gateway => "gateway",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
        }
    }

    /// The role with this word, if there is one.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }

    /// Whether a process of this role accepts connections; the others get certificates for clients only.
    #[must_use]
    pub const fn serves(self) -> bool {
        !matches!(self, Self::Operator)
    }

    /// The DNS name that every server of this role carries in `region`; clients ask for it in the handshake.
    #[must_use]
    pub fn server_name(self, region: &str) -> String {
        format!("{}.{region}.nova", self.word())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Spec 4.7: the security zone a process stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// Gateways only.
    Public,
    /// Compute hosts and the service mesh.
    Application,
    /// Storage hosts.
    Data,
    /// Controllers, monitoring and operators.
    Management,
}

impl Zone {
    /// Every zone.
    pub const ALL: [Self; 4] = [Self::Public, Self::Application, Self::Data, Self::Management];

    /// The word for this zone in a SPIFFE name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Application => "application",
            Self::Data => "data",
            Self::Management => "management",
        }
    }

    /// The zone with this word, if there is one.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.word() == word)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who a certificate speaks for: one process of one node of one region.
///
/// Its text form is the URI in the certificate: `spiffe://<region>.nova/<zone>/<service>/<node>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    region: String,
    zone: Zone,
    role: Role,
    node: String,
}

impl Identity {
    /// An identity whose names can stand in a certificate.
    ///
    /// # Errors
    /// [`SecurityError::BadName`] when `region` or `node` is not a DNS label in lower case.
    pub fn new(
        region: impl Into<String>,
        zone: Zone,
        role: Role,
        node: impl Into<String>,
    ) -> Result<Self, SecurityError> {
        let region = checked_name("region", region.into())?;
        let node = checked_name("node", node.into())?;
        Ok(Self { region, zone, role, node })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`SecurityError::NotAnIdentity`] when `uri` is not a name of this form.
    pub fn parse(uri: &str) -> Result<Self, SecurityError> {
        let refuse = |reason: &str| SecurityError::NotAnIdentity { reason: format!("{uri:?} {reason}") };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| refuse("is not a SPIFFE name"))?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(zone), Some(service), Some(node), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse("does not have the parts region, zone, service, node"));
        };
        let region = domain.strip_suffix(".nova").ok_or_else(|| refuse("is not of a NovaClustr region"))?;
        let zone = Zone::from_word(zone).ok_or_else(|| refuse("names no zone"))?;
        let role = Role::from_word(service).ok_or_else(|| refuse("names no service"))?;
        Self::new(region, zone, role, node)
            .map_err(|_| refuse("has a region or node name that is not allowed"))
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The security zone.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// What the process is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The node, or the person for an operator.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}.nova/{}/{}/{}", self.region, self.zone, self.role, self.node)
    }
}

/// Gives `name` back when it is a DNS label in lower case.
pub(crate) fn checked_name(what: &'static str, name: String) -> Result<String, SecurityError> {
    let bytes = name.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let sound = (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if sound { Ok(name) } else { Err(SecurityError::BadName { what, name }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form_is_the_spiffe_name_and_reads_back() {
        let identity = Identity::new("eu-1", Zone::Data, Role::Agent, "host7").unwrap();
        assert_eq!(identity.to_string(), "spiffe://eu-1.nova/data/agent/host7");
        assert_eq!(Identity::parse("spiffe://eu-1.nova/data/agent/host7").unwrap(), identity);
        assert_eq!(Role::Controller.server_name("eu-1"), "controller.eu-1.nova");
    }

    #[test]
    fn names_that_could_be_read_in_two_ways_are_refused() {
        for name in ["", "-a", "a-", "A", "a/b", "a.b", "ä", "a b", &"a".repeat(64)] {
            let refused = Identity::new("eu-1", Zone::Data, Role::Agent, name);
            assert!(matches!(refused, Err(SecurityError::BadName { .. })), "{name:?}");
        }
        for uri in [
            "",
            "https://eu-1.nova/data/agent/h",
            "spiffe://eu-1.nova/data/agent",
            "spiffe://eu-1.nova/data/agent/h/x",
            "spiffe://eu-1.evil/data/agent/h",
            "spiffe://.nova/data/agent/h",
            "spiffe://eu-1.nova/data/root/h",
            "spiffe://eu-1.nova/data/agent/",
            "spiffe://user@eu-1.nova/data/agent/h",
        ] {
            assert!(matches!(Identity::parse(uri), Err(SecurityError::NotAnIdentity { .. })), "{uri:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_what_it_takes_prints_the_same(uri in "(spiffe://)?[a-z./-]{0,40}") {
            if let Ok(identity) = Identity::parse(&uri) {
                prop_assert_eq!(identity.to_string(), uri);
            }
        }
    }
}
