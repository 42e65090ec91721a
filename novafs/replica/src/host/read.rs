//! May this member answer a read, and with what it found?

use std::time::Duration;

use nova_units::{CommitPoint, Epoch, GroupId, NodeId, Seq};

use super::Host;
use super::group::Group;
use crate::effect::Effect;
use crate::options::RETRY_SOON_MS;
use crate::{Answer, Message, Role};

/// Leave to read, to be judged again after the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPermit {
    group: GroupId,
    epoch: Epoch,
    turn: u64,
    /// The primary said that nothing above this was committed, after the read began.
    settled: Option<Seq>,
}

/// What to do with what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Answer with it.
    Serve,
    /// Do not; answer this.
    Refuse(Answer),
    /// Ask the primary with this message, give its answer to [`Host::settle_read`], then read again.
    Ask {
        /// The primary's host.
        primary: NodeId,
        /// The question.
        message: Message,
    },
}

impl<B: Clone> Host<B> {
    /// Whether this host's copy of a group has everything that is committed up to its own commit number: the condition
    /// for comparing it with others, which needs no lease.
    #[must_use]
    pub fn is_whole(&self, group: GroupId) -> bool {
        !self.core.device_failed
            && self.groups.get(&group).is_some_and(|found| {
                found.is_active()
                    && found.role(self.core.me.node) == Some(Role::InSync)
                    && !found.tail_in_doubt
                    && !found.damaged
            })
    }

    /// Leave to read committed units of a group.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn begin_read(&self, now: Duration, group: GroupId, epoch: Epoch) -> Result<ReadPermit, Answer> {
        if self.core.device_failed {
            return Err(Answer::DeviceFailed);
        }
        let found = self.groups.get(&group).ok_or(Answer::NotMember)?;
        if found.role(self.core.me.node) != Some(Role::InSync) {
            return Err(Answer::NotMember);
        }
        found.check_epoch(&self.core, epoch)?;
        if found.tail_in_doubt || !found.has_lease(&self.core, now) {
            return Err(Answer::NoLease);
        }
        Ok(ReadPermit { group, epoch, turn: found.turn, settled: None })
    }

    /// Whether what was read under `permit` may be sent. `newest_prepared` is the newest entry above the commit that
    /// the store holds for any of the units, found in the same moment as their committed versions.
    ///
    /// The lease is checked here, after the read: a lease that still holds now held when the units were looked up.
    #[must_use]
    pub fn end_read(
        &self,
        now: Duration,
        permit: &ReadPermit,
        newest_prepared: Option<CommitPoint>,
    ) -> ReadEnd {
        if self.core.device_failed {
            return ReadEnd::Refuse(Answer::DeviceFailed);
        }
        let Some(group) = self.current(permit) else {
            let epoch = self.groups.get(&permit.group).map_or(permit.epoch, Group::epoch);
            return ReadEnd::Refuse(if epoch > permit.epoch {
                Answer::StaleEpoch { epoch }
            } else {
                Answer::Busy { retry_after_ms: RETRY_SOON_MS }
            });
        };
        if !group.has_lease(&self.core, now) {
            return ReadEnd::Refuse(Answer::NoLease);
        }
        if newest_prepared.is_none() || permit.settled.is_some() || group.knows_commit() {
            return ReadEnd::Serve;
        }
        match group.primary() {
            Some(primary) if primary != self.core.me.node => {
                let message = Message::CommitQuery { group: permit.group, epoch: permit.epoch };
                ReadEnd::Ask { primary, message }
            }
            _ => ReadEnd::Refuse(Answer::Unsettled),
        }
    }

    /// Takes the primary's answer to the question of [`Host::end_read`]; then read again under the same permit.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn settle_read(
        &mut self,
        permit: &mut ReadPermit,
        answer: Option<&Answer>,
        out: &mut Vec<Effect<B>>,
    ) -> Result<(), Answer> {
        let Some(Answer::CommitIs { seq }) = answer else { return Err(Answer::Unsettled) };
        let Some(group) = self.groups.get_mut(&permit.group).filter(|group| group.turn == permit.turn) else {
            return Err(Answer::Busy { retry_after_ms: RETRY_SOON_MS });
        };
        let before = group.log.commit.seq;
        group.log.advance(*seq);
        if group.log.commit.seq > before {
            out.push(Effect::Commit { group: permit.group, seq: group.log.commit.seq });
        }
        // Everything committed is prepared here, so a number not durable here is not committed either.
        permit.settled = Some(*seq);
        Ok(())
    }

    fn current(&self, permit: &ReadPermit) -> Option<&Group<B>> {
        self.groups.get(&permit.group).filter(|group| group.turn == permit.turn && group.is_active())
    }
}
