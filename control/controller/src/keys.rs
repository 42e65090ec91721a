//! The keys of NovaFS: what the leader of the cluster group has its key service do.
//!
//! Keys are made, wrapped and unwrapped here, on the leader; the log holds wrapped ones, and hosts get them sealed to
//! their data plane. Nobody else sees one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nova_keys::{
    Answer, Command, Create, DEFAULT_DOMAIN, DEFAULT_NAME, DomainState, Drop, Due, Keys, Op, Rewrap, Rotate,
};
use nova_raft::{Group, ProposeError};
use nova_security::{DomainSecret, FileKms, KeyName, Kms, KmsError, RegionKey, RootKey, WrappedKey};
use nova_state::{ClusterCommand, StepAnswer};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::config::KeysConfig;
use crate::leader::Leading;
use crate::machine::Cluster;

/// How often a leader looks whether something is due.
const PLAN_EVERY: Duration = Duration::from_secs(1);
/// How often it asks the key service for what it could not do.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often a change is decided anew because another one came first.
const ATTEMPTS_MAX: usize = 8;

/// Why a change of keys was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(
        "this controller has no key service: give all controllers a [keys] section with the region's root key"
    )]
    NoService,
    #[error(transparent)]
    Kms(#[from] KmsError),
    #[error(transparent)]
    Propose(ProposeError),
    #[error("{0}")]
    Refused(&'static str),
    #[error("the keys change too quickly; try again")]
    Busy,
    #[error("there is no key domain {name:?}: `nova key ls` shows them")]
    NoDomain { name: String },
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// A domain with its first key.
    Create { name: String },
    /// A version of a domain's key, 0 for the next; one that is there is not made again.
    Rotate { name: String, version: u32 },
    /// Crypto-erase.
    Drop { name: String },
}

/// What becomes of a wish.
enum Decided {
    Op(Op),
    /// It is so already: domain and version.
    Already((u32, u32)),
}

/// The key service of this controller, and the rules of the region.
#[derive(Clone, Debug)]
pub(crate) struct KeyService {
    kms: Option<Arc<dyn Kms>>,
    /// The key of a region that was made before the key service.
    import: Option<Arc<RegionKey>>,
    pub(crate) rotate_after: Duration,
    /// How long a host may hold a key without hearing of it again.
    pub(crate) held: Duration,
    cluster: Group<Cluster>,
}

impl KeyService {
    /// Reads what the configuration names.
    pub(crate) fn open(config: Option<&KeysConfig>, cluster: Group<Cluster>) -> anyhow::Result<Self> {
        let Some(config) = config else {
            let (rotate_after, held) = (Duration::MAX, Duration::ZERO);
            return Ok(Self { kms: None, import: None, rotate_after, held, cluster });
        };
        let root = RootKey::open(&config.root).context("read the root key")?;
        tracing::info!(root_version = root.current_version(), "the key service is a file");
        // Its region needs it once; a file that is gone afterwards is as it should be.
        let import = match &config.import {
            Some(path) if path.exists() => Some(RegionKey::open(path).context("read the key to import")?),
            _ => None,
        };
        Ok(Self {
            kms: Some(Arc::new(FileKms::new(root))),
            import: import.map(Arc::new),
            rotate_after: Duration::from_secs(u64::from(config.rotate_after_days) * 86_400),
            held: Duration::from_secs(u64::from(config.held_hours) * 3600),
            cluster,
        })
    }

    /// Has the key service do something, where it may take its time.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Kms) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KeysError> {
        let kms = Arc::clone(self.kms.as_ref().ok_or(KeysError::NoService)?);
        match tokio::task::spawn_blocking(move || ask(&*kms)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(KmsError::Away { reason: "the request ended early".into() }.into()),
        }
    }

    /// Version of the root key that wraps.
    pub(crate) async fn root_version(&self) -> Result<u32, KeysError> {
        self.ask(|kms| kms.root_version()).await
    }

    /// A key in the clear, to be sealed to a host at once.
    pub(crate) async fn unwrap(&self, name: KeyName, wrapped: Vec<u8>) -> Result<DomainSecret, KeysError> {
        self.ask(move |kms| kms.unwrap(name, &wrapped)).await
    }

    /// Decides a change on the newest state and makes it; decides anew when another one came first. Answers domain and
    /// version.
    pub(crate) async fn change(&self, wish: &Wish) -> Result<(u32, u32), KeysError> {
        for _ in 0..ATTEMPTS_MAX {
            let keys = self.cluster.local().0.keys;
            let op = match self.decide(wish, &keys).await {
                Err(KeysError::Busy) => {
                    tokio::time::sleep(PLAN_EVERY / 4).await;
                    continue;
                }
                Ok(Decided::Already(done)) => return Ok(done),
                Ok(Decided::Op(op)) => op,
                Err(error) => return Err(error),
            };
            match self.propose(op).await? {
                Answer::Done { domain, version } => return Ok((domain, version)),
                Answer::Stale => {}
                Answer::Refused(reason) => return Err(KeysError::Refused(reason)),
            }
        }
        Err(KeysError::Busy)
    }

    async fn decide(&self, wish: &Wish, keys: &Keys) -> Result<Decided, KeysError> {
        match wish {
            Wish::Create { name } => {
                if self.kms.is_some() && keys.next_id() == DEFAULT_DOMAIN {
                    // The first id is the default domain's; the next look at what is due makes it.
                    return Err(KeysError::Busy);
                }
                let key = KeyName { domain: keys.next_id(), version: 1 };
                let wrapped = self.ask(move |kms| kms.generate(key)).await?;
                Ok(Decided::Op(create(key, name, wrapped)))
            }
            Wish::Rotate { name, version } => {
                let domain = domain_of(keys, name)?;
                let current = keys.domain(domain).and_then(nova_keys::Domain::current);
                let current = current.ok_or(KeysError::Refused("the key domain was dropped"))?.0;
                if (1..=current).contains(version) {
                    return Ok(Decided::Already((domain, current)));
                }
                if *version > current.saturating_add(1) {
                    return Err(KeysError::Refused("versions of a key are made one after the other"));
                }
                let key = KeyName { domain, version: current.saturating_add(1) };
                let wrapped = self.ask(move |kms| kms.generate(key)).await?;
                Ok(Decided::Op(rotate(key, wrapped)))
            }
            Wish::Drop { name } => {
                let domain = domain_of(keys, name)?;
                Ok(match keys.domain(domain).map(|it| &it.state) {
                    Some(DomainState::Dropped { last, .. }) => Decided::Already((domain, *last)),
                    _ => Decided::Op(Op::Drop(Drop { domain })),
                })
            }
        }
    }

    async fn propose(&self, op: Op) -> Result<Answer, KeysError> {
        let command = Command { at_ms: clock::wall().0, op: Some(op) };
        let batch = ClusterCommand { steps: vec![command.into()] };
        match self.cluster.propose(batch).await.map_err(KeysError::Propose)?.as_slice() {
            [StepAnswer::Keys(answer)] => Ok(answer.clone()),
            _ => Err(KeysError::Refused("a controller does not know the command; upgrade it")),
        }
    }

    /// Does what is due, while this controller leads.
    pub(crate) async fn run(self, leading: watch::Receiver<Leading>) {
        if self.kms.is_none() {
            return std::future::pending().await;
        }
        let mut ticks = interval(PLAN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !leading.borrow().leads() {
                continue;
            }
            if let Err(error) = self.do_what_is_due().await {
                tracing::warn!("keys are not kept as they should be: {error}; tried again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    async fn do_what_is_due(&self) -> Result<(), KeysError> {
        let root_version = self.root_version().await?;
        let keys = self.cluster.local().0.keys;
        for due in nova_keys::plan(&keys, clock::wall(), self.rotate_after, root_version) {
            let op = match due {
                Due::CreateDefault => self.first().await?,
                Due::Rotate { domain, version } => {
                    let key = KeyName { domain, version };
                    rotate(key, self.ask(move |kms| kms.generate(key)).await?)
                }
                Due::Rewrap { domain, version } => {
                    let found = keys.domain(domain).and_then(|it| it.versions().find(|it| it.0 == version));
                    let Some((_, old)) = found else { continue };
                    let (key, from, wrapped) =
                        (KeyName { domain, version }, old.root_version, old.wrapped.clone());
                    rewrap(key, from, self.ask(move |kms| kms.rewrap(key, &wrapped)).await?)
                }
            };
            match self.propose(op).await? {
                Answer::Refused(reason) => return Err(KeysError::Refused(reason)),
                answer => tracing::info!(?due, ?answer, "keys"),
            }
        }
        Ok(())
    }

    /// The default domain: with the key that the region had before, else with a new one.
    async fn first(&self) -> Result<Op, KeysError> {
        let Some(old) = &self.import else {
            let key = KeyName { domain: DEFAULT_DOMAIN, version: 1 };
            return Ok(create(key, DEFAULT_NAME, self.ask(move |kms| kms.generate(key)).await?));
        };
        if old.domain() != DEFAULT_DOMAIN {
            return Err(KeysError::Refused(
                "the region key file to import is of another domain than 1, which no release has made",
            ));
        }
        let key = KeyName { domain: DEFAULT_DOMAIN, version: old.version() };
        let old = Arc::clone(old);
        let wrapped = self.ask(move |kms| kms.wrap(key, &DomainSecret::new(old.secret()))).await?;
        tracing::info!("the region key becomes version {} of the default domain", key.version);
        Ok(create(key, DEFAULT_NAME, wrapped))
    }
}

fn domain_of(keys: &Keys, name: &str) -> Result<u32, KeysError> {
    keys.by_name(name).ok_or_else(|| KeysError::NoDomain { name: name.to_owned() })
}

fn create(key: KeyName, name: &str, wrapped: WrappedKey) -> Op {
    Op::Create(Create {
        domain: key.domain,
        name: name.to_owned(),
        version: key.version,
        root_version: wrapped.root_version,
        wrapped: wrapped.bytes,
    })
}

fn rotate(key: KeyName, wrapped: WrappedKey) -> Op {
    let WrappedKey { root_version, bytes: wrapped } = wrapped;
    Op::Rotate(Rotate { domain: key.domain, version: key.version, root_version, wrapped })
}

fn rewrap(key: KeyName, from_root_version: u32, wrapped: WrappedKey) -> Op {
    let WrappedKey { root_version, bytes: wrapped } = wrapped;
    let (domain, version) = (key.domain, key.version);
    Op::Rewrap(Rewrap { domain, version, from_root_version, root_version, wrapped })
}
