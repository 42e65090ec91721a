//! Between openraft's types and the schema.

use std::collections::{BTreeMap, BTreeSet};

use nova_api::raft as pb;
use openraft::EntryPayload;

use crate::types::{Address, CommandBytes, Entry, LeaderId, LogId, Membership, Vote};

pub(crate) fn log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_from(id: pb::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.node }, index: id.index }
}

pub(crate) fn vote(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_from(vote: pb::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
}

pub(crate) fn membership(membership: &Membership) -> pb::Membership {
    pb::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| pb::VoterSet { ids: set.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, address)| pb::Member { id: *id, address: address.0.clone() })
            .collect(),
    }
}

pub(crate) fn membership_from(membership: pb::Membership) -> Result<Membership, String> {
    let voters: Vec<BTreeSet<u64>> =
        membership.voters.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, Address> =
        membership.members.into_iter().map(|member| (member.id, Address(member.address))).collect();
    if voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, members).map_err(|error| error.to_string())
}

pub(crate) fn entry(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(command) => pb::entry::Payload::Command(command.0.clone()),
        EntryPayload::Membership(members) => pb::entry::Payload::Membership(membership(members)),
    };
    pb::Entry { id: Some(log_id(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from(entry: pb::Entry) -> Result<Entry, String> {
    let id = entry.id.ok_or("an entry has no id")?;
    let payload = match entry.payload.ok_or("an entry has no payload that this version knows")? {
        pb::entry::Payload::Blank(pb::Blank {}) => EntryPayload::Blank,
        pb::entry::Payload::Command(command) => EntryPayload::Normal(CommandBytes(command)),
        pb::entry::Payload::Membership(members) => EntryPayload::Membership(membership_from(members)?),
    };
    Ok(Entry { log_id: log_id_from(id), payload })
}
