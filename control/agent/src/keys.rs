//! Keys for the host's data plane: asks the leading controller for what novad wants, and hands it on unread.

use std::sync::Arc;
use std::time::Duration;

use nova_api::keys::keys_client::KeysClient;
use nova_api::keys::{KeySet, SealedKey, WatchRequest};
use nova_ring::abi::{AgentCommand, BOXED_KEY_BYTES};
use tonic::Status;
use tonic::transport::Channel;

use crate::controllers::Controllers;
use crate::picture::{KeyWants, Picture};

/// Pause before the next controller is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(150);
/// Pause after a refusal that no other controller answers differently.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// The first set of keys may take this long.
const FIRST_SET_TIMEOUT: Duration = Duration::from_secs(5);
/// Answering a request for keys may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Brings keys for as long as the agent lives.
pub(crate) async fn attend(picture: Arc<Picture>, controllers: Arc<Controllers>) {
    let mut wants = picture.key_wants.subscribe();
    let mut leader = 0;
    let mut said = String::new();
    loop {
        let wanted = wants.wait_for(|wants| !wants.domains.is_empty()).await;
        let wanted = wanted.expect("the picture outlives its tasks").clone();
        let node = picture.map.borrow().as_ref().map(|known| known.self_node);
        let outcome = match node {
            Some(node) => {
                tokio::select! {
                    status = watch(&picture, controllers.channel(leader), node, &wanted) => Some(status),
                    changed = wants.changed() => {
                        changed.expect("the picture outlives its tasks");
                        None
                    }
                }
            }
            // Its own host is not registered yet.
            None => Some(Status::unavailable("this host is not registered yet")),
        };
        let Some(status) = outcome else { continue };
        if crate::controllers::is_elsewhere(&status) {
            leader = controllers.after(leader, &status) % controllers.count();
            tracing::debug!(%status, "asks another controller for keys");
            tokio::time::sleep(RETRY_PAUSE).await;
        } else {
            // Once for each reason: it is asked again all the time.
            if said != status.message() {
                status.message().clone_into(&mut said);
                tracing::warn!("no keys for this host: {}", status.message());
            }
            leader = (leader + 1) % controllers.count();
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// Hands on what one controller gives, until it gives no more. The status says why.
async fn watch(picture: &Picture, channel: Channel, node: u64, wants: &KeyWants) -> Status {
    let ask = WatchRequest {
        node,
        boot: wants.boot,
        public: wants.public.to_vec().into(),
        domains: wants.domains.iter().copied().collect(),
    };
    let mut client = KeysClient::new(channel);
    let mut sets = match tokio::time::timeout(CALL_TIMEOUT, client.watch(ask)).await {
        Ok(Ok(sets)) => sets.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("the controller did not answer in time"),
    };
    // The first set holds everything and comes at once; those behind it come when something changes.
    let mut next = match tokio::time::timeout(FIRST_SET_TIMEOUT, sets.message()).await {
        Ok(next) => next,
        Err(_) => return Status::deadline_exceeded("the controller gave no keys in time"),
    };
    loop {
        match next {
            Ok(Some(set)) => {
                if let Err(status) = hand_on(picture, &set) {
                    return status;
                }
            }
            Ok(None) => return Status::unavailable("the controller ended the stream of keys"),
            Err(status) => return status,
        }
        next = sets.message().await;
    }
}

fn hand_on(picture: &Picture, set: &KeySet) -> Result<(), Status> {
    for domain in &set.unknown {
        tracing::warn!(domain, "something here asks for a key domain that there is not");
    }
    let dropped = set.dropped.iter().map(|domain| Ok(AgentCommand::DropKeys { domain: *domain }));
    // What is gone first: nothing is to be read a moment longer because keys are handed on.
    for command in dropped.chain(set.keys.iter().map(|key| command_of(key, set.held_s))) {
        if !picture.command(command?) {
            return Err(Status::unavailable("novad takes no commands now; the keys are asked for again"));
        }
    }
    Ok(())
}

fn command_of(key: &SealedKey, held_s: u32) -> Result<AgentCommand, Status> {
    let boxed: [u8; BOXED_KEY_BYTES] =
        key.boxed[..].try_into().map_err(|_| Status::internal("a sealed key has not 80 bytes"))?;
    let (domain, version, current) = (key.domain, key.version, key.current);
    if version == 0 || version > current {
        return Err(Status::internal("a sealed key has a version that cannot be"));
    }
    Ok(AgentCommand::GiveKey { domain, version, current, held_s, boxed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_are_handed_on() {
        let key = SealedKey { domain: 1, version: 2, current: 3, boxed: vec![7; 80].into() };
        assert_eq!(
            command_of(&key, 60).unwrap(),
            AgentCommand::GiveKey { domain: 1, version: 2, current: 3, held_s: 60, boxed: [7; 80] }
        );
        for bad in [
            SealedKey { boxed: vec![7; 79].into(), ..key.clone() },
            SealedKey { version: 0, ..key.clone() },
            SealedKey { version: 4, ..key.clone() },
        ] {
            assert!(command_of(&bad, 60).is_err(), "{bad:?}");
        }
    }
}
