//! State and command make the next state and an answer.

use imbl::OrdMap;
use nova_units::Timestamp;

use crate::command::{Answer, Command, Create, Drop, Op, Rewrap, Rotate};
use crate::model::{
    DOMAINS_MAX, Domain, DomainState, KeyVersion, Keys, NAME_BYTES_MAX, VERSIONS_MAX, WRAPPED_BYTES_MAX,
};

impl Keys {
    /// Applies a command.
    pub fn apply(&mut self, command: &Command) -> Answer {
        self.clock = self.clock.max(Timestamp(command.at_ms));
        let answer = match &command.op {
            Some(Op::Create(create)) => self.create(create),
            Some(Op::Rotate(rotate)) => self.rotate(rotate),
            Some(Op::Rewrap(rewrap)) => self.rewrap(rewrap),
            Some(Op::Drop(drop)) => self.drop_domain(*drop),
            None => Answer::Refused("this controller does not know the command; upgrade it"),
        };
        if matches!(answer, Answer::Done { .. }) {
            self.revision += 1;
        }
        answer
    }

    fn create(&mut self, create: &Create) -> Answer {
        if !is_name(&create.name) {
            return Answer::Refused("the name of a key domain is 1 to 63 of a-z, 0-9 and '-'");
        }
        if let Some(there) = self.by_name(&create.name) {
            return Answer::Refused(match self.domains.get(&there).map(|domain| &domain.state) {
                Some(DomainState::Dropped { .. }) => {
                    "a key domain of this name was dropped; names are not used again, take another"
                }
                _ => "there is a key domain of this name",
            });
        }
        if self.domains.len() >= DOMAINS_MAX {
            return Answer::Refused("a region has at most 4,096 key domains, dropped ones included");
        }
        if create.domain != self.next_id() {
            return Answer::Stale;
        }
        if create.version == 0 || create.root_version == 0 || !is_wrapped(&create.wrapped) {
            return Answer::Refused("a key has a version from 1 and 1 to 1,024 wrapped bytes");
        }
        let versions = OrdMap::unit(create.version, self.version(create.root_version, &create.wrapped));
        let state = DomainState::Live { versions };
        let domain = Domain { name: create.name.clone(), created: self.clock, state };
        self.names.insert(create.name.clone(), create.domain);
        self.domains.insert(create.domain, domain);
        Answer::Done { domain: create.domain, version: create.version }
    }

    fn rotate(&mut self, rotate: &Rotate) -> Answer {
        let made = self.version(rotate.root_version, &rotate.wrapped);
        let versions = match self.live(rotate.domain) {
            Ok(versions) => versions,
            Err(refused) => return refused,
        };
        let current = versions.get_max().map_or(0, |(version, _)| *version);
        if current.checked_add(1) != Some(rotate.version) {
            return Answer::Stale;
        }
        if versions.len() >= VERSIONS_MAX {
            return Answer::Refused("a key domain has at most 1,024 versions: copy its files into another");
        }
        if rotate.root_version == 0 || !is_wrapped(&rotate.wrapped) {
            return Answer::Refused("a key has 1 to 1,024 wrapped bytes");
        }
        versions.insert(rotate.version, made);
        Answer::Done { domain: rotate.domain, version: rotate.version }
    }

    fn rewrap(&mut self, rewrap: &Rewrap) -> Answer {
        let versions = match self.live(rewrap.domain) {
            Ok(versions) => versions,
            Err(refused) => return refused,
        };
        let Some(key) = versions.get_mut(&rewrap.version) else {
            return Answer::Refused("the key domain has no key of this version");
        };
        if key.root_version != rewrap.from_root_version {
            return Answer::Stale;
        }
        if rewrap.root_version <= rewrap.from_root_version || !is_wrapped(&rewrap.wrapped) {
            return Answer::Refused("a key is wrapped anew under a later version of the root key");
        }
        key.root_version = rewrap.root_version;
        key.wrapped.clone_from(&rewrap.wrapped);
        Answer::Done { domain: rewrap.domain, version: rewrap.version }
    }

    fn drop_domain(&mut self, drop: Drop) -> Answer {
        let at = self.clock;
        let last = match self.live(drop.domain) {
            Ok(versions) => versions.get_max().map_or(0, |(version, _)| *version),
            Err(refused) => return refused,
        };
        let domain = self.domains.get_mut(&drop.domain).expect("it is live");
        domain.state = DomainState::Dropped { at, last };
        Answer::Done { domain: drop.domain, version: last }
    }

    fn live(&mut self, domain: u32) -> Result<&mut OrdMap<u32, KeyVersion>, Answer> {
        match self.domains.get_mut(&domain).map(|domain| &mut domain.state) {
            Some(DomainState::Live { versions }) => Ok(versions),
            Some(DomainState::Dropped { .. }) => Err(Answer::Refused("the key domain was dropped")),
            None => Err(Answer::Refused("there is no such key domain")),
        }
    }

    fn version(&self, root_version: u32, wrapped: &[u8]) -> KeyVersion {
        KeyVersion { created: self.clock, root_version, wrapped: wrapped.to_vec() }
    }
}

/// What a domain may be called.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What may be a wrapped key.
pub(crate) fn is_wrapped(bytes: &[u8]) -> bool {
    (1..=WRAPPED_BYTES_MAX).contains(&bytes.len())
}
