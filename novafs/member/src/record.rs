//! What the machine keeps on the device, as the store keeps it.

use nova_device::Shard;
use nova_units::{CommitPoint, Seq};
use novafs_format::GroupRecord;
use novafs_replica::{RecoveredGroup, SavedGroup, Standing, Trust};
use novafs_store::{Opened, Suspect};

const STANDING: u32 = 0b11;
const JOINING: u32 = 0b01;
const FILLING: u32 = 0b10;
const JOINERS_COUNT: u32 = 0b100;

/// The record of a group. Its commit is the store's business; 0 leaves it as it is.
pub(crate) fn to_record(saved: SavedGroup) -> GroupRecord {
    let standing = match saved.standing {
        Standing::InSync => 0,
        Standing::Joining => JOINING,
        Standing::Filling => FILLING,
    };
    let role = standing | if saved.joiners_count { JOINERS_COUNT } else { 0 };
    GroupRecord { epoch: saved.epoch, promised: saved.epoch, commit: Seq(0), role }
}

fn from_record(record: &GroupRecord) -> SavedGroup {
    let standing = match record.role & STANDING {
        0 => Standing::InSync,
        JOINING => Standing::Joining,
        _ => Standing::Filling,
    };
    SavedGroup { epoch: record.epoch, standing, joiners_count: record.role & JOINERS_COUNT != 0 }
}

/// Every group of a store that was just opened, and how far it can be believed.
pub(crate) fn recovered<S: Shard>(opened: &Opened<S>) -> Vec<RecoveredGroup> {
    let groups = opened.store.groups().into_iter();
    groups
        .map(|found| {
            let trust = opened.suspects.iter().map(|suspect| match suspect {
                Suspect::DroppedEntry { group, .. } | Suspect::Gap { group, .. } if *group != found.group => {
                    Trust::Whole
                }
                Suspect::DroppedEntry { .. } | Suspect::Gap { .. } | Suspect::DamagedTail { .. } => {
                    Trust::TailInDoubt
                }
                // A lost batch may have held anything, and so may whatever else comes to be suspected.
                _ => Trust::Damaged,
            });
            RecoveredGroup {
                group: found.group,
                saved: from_record(&found.record),
                commit: CommitPoint { epoch: found.record.epoch, seq: found.commit_seq },
                tail: found.prepared,
                trust: trust.fold(Trust::Whole, worse),
            }
        })
        .collect()
}

fn worse(one: Trust, other: Trust) -> Trust {
    match (one, other) {
        (Trust::Damaged, _) | (_, Trust::Damaged) => Trust::Damaged,
        (Trust::TailInDoubt, _) | (_, Trust::TailInDoubt) => Trust::TailInDoubt,
        (Trust::Whole, Trust::Whole) => Trust::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_units::Epoch;

    #[test]
    fn every_standing_comes_back_from_its_record() {
        for standing in [Standing::InSync, Standing::Joining, Standing::Filling] {
            for joiners_count in [false, true] {
                let saved = SavedGroup { epoch: Epoch(9), standing, joiners_count };
                assert_eq!(from_record(&to_record(saved)), saved);
            }
        }
    }
}
