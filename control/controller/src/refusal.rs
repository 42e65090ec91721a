//! How a controller says that another one should be asked.

use nova_raft::{ProposeError, ReadError};
use tonic::Status;
use tonic::metadata::MetadataValue;

/// Metadata of a refusal: address of the leader, when one is known.
pub(crate) const LEADER_KEY: &str = "nova-leader";

/// `FAILED_PRECONDITION`, with the leader's address in the metadata.
pub(crate) fn not_leader(leader: Option<(u64, String)>) -> Status {
    let mut status = Status::failed_precondition(match &leader {
        Some((id, address)) => format!("controller {id} at {address} leads this group; ask it"),
        None => "no controller leads this group now; try again".to_owned(),
    });
    if let Some(value) = leader.and_then(|(_, address)| MetadataValue::try_from(address).ok()) {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status
}

pub(crate) fn of_read(error: ReadError) -> Status {
    match error {
        ReadError::NotLeader { leader } => not_leader(leader),
        error @ (ReadError::NoQuorum(_) | ReadError::Unavailable { .. }) => {
            Status::unavailable(error.to_string())
        }
    }
}

pub(crate) fn of_propose(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { leader } => not_leader(leader),
        error @ ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        error @ (ProposeError::Unknown { .. } | ProposeError::Unavailable { .. }) => {
            Status::unavailable(error.to_string())
        }
    }
}
