//! State and command make the next state and an answer.

mod attributes;
mod entry;
mod publish;
mod rename;
mod session;
mod space;
mod trash;
mod writer;

pub(crate) use publish::optional_digest;
use std::sync::Arc;

use nova_units::Timestamp;

use crate::answer::{Answer, Code, Failure};
use crate::command::{Command, Op};
use crate::limits::{ANSWERS_PER_CLIENT_MAX, CLIENTS_MAX, OUTCOMES_PER_CLIENT_MAX};
use crate::model::Namespace;

impl Namespace {
    /// Applies the command at `index` of the log. A request that its client sent before is answered as it was then,
    /// unless that was a refusal for the time being: then it is tried again.
    pub fn apply(&mut self, index: u64, command: &Command) -> Answer {
        self.clock = self.clock.max(Timestamp(command.at_ms));
        if command.client == 0 {
            return self.execute(command);
        }
        if let Some(known) = self.remembered(command.client, command.sequence) {
            return known;
        }
        let answer = self.execute(command);
        // Its client sends the request again, with the same number, until there is room for it.
        if !answer.is_for_now() {
            self.remember(index, command, &answer);
        }
        answer
    }

    fn execute(&mut self, command: &Command) -> Answer {
        let result = match &command.op {
            Some(Op::OpenSession(open)) => self.open_session(command.client, open),
            Some(Op::EndSession(end)) => self.end_session(end),
            Some(Op::ReserveBlocks(reserve)) => self.reserve_blocks(reserve),
            Some(Op::Publish(publish)) => self.publish(publish),
            Some(Op::MakeDirectory(make)) => self.make_directory(make),
            Some(Op::Rename(rename)) => self.rename(rename),
            Some(Op::Remove(remove)) => self.remove(remove),
            Some(Op::Sweep(sweep)) => Ok(self.sweep(sweep)),
            Some(Op::Collected(collected)) => Ok(self.collected(collected)),
            Some(Op::OpenFile(open)) => self.open_file(open),
            Some(Op::CommitFile(commit)) => self.commit_file(commit),
            Some(Op::CloseFile(close)) => self.close_file(close),
            Some(Op::Truncate(truncate)) => self.truncate(truncate),
            Some(Op::SetAttributes(set)) => self.set_attributes(set),
            Some(Op::Link(link)) => self.link(link),
            Some(Op::MakeSymlink(make)) => self.make_symlink(make),
            Some(Op::SetXattr(set)) => self.set_xattr(set),
            Some(Op::RemoveXattr(remove)) => self.remove_xattr(remove),
            Some(Op::SetQuota(set)) => self.set_quota(set),
            Some(Op::SetSpace(set)) => self.set_space(set),
            Some(Op::Undelete(undelete)) => self.undelete(undelete),
            Some(Op::PurgeTrash(purge)) => self.purge_trash(purge),
            Some(Op::Purge(purge)) => Ok(self.purge(purge)),
            Some(Op::Expire(expire)) => Ok(self.expire(expire)),
            None => {
                Err(Failure::new(Code::Invalid, "", "this controller does not know the command; upgrade it"))
            }
        };
        result.unwrap_or_else(Answer::from)
    }

    /// What was answered to this request before.
    #[must_use]
    pub fn remembered(&self, client: u64, sequence: u64) -> Option<Answer> {
        let record = self.clients.get(&client)?;
        if let Some(answer) = record.answers.get(&sequence) {
            return Some(Answer::clone(answer));
        }
        (sequence <= record.floor).then(|| {
            Failure::new(Code::Invalid, "", "the request is older than the answers kept for its client")
                .into()
        })
    }

    fn remember(&mut self, index: u64, command: &Command, answer: &Answer) {
        let mut record = self.clients.get(&command.client).cloned().unwrap_or_default();
        self.clients_by_age.remove(&(record.last_index, command.client));
        record.last_index = index;
        record.outcomes += answer.weight();
        record.answers.insert(command.sequence, Arc::new(answer.clone()));
        while record.answers.len() > 1
            && (record.answers.len() > ANSWERS_PER_CLIENT_MAX || record.outcomes > OUTCOMES_PER_CLIENT_MAX)
        {
            let (oldest, forgotten) = record.answers.get_min().cloned().expect("there is more than one");
            record.answers.remove(&oldest);
            record.outcomes -= forgotten.weight();
            record.floor = oldest;
        }
        self.clients.insert(command.client, record);
        self.clients_by_age.insert((index, command.client), ());
        while self.clients.len() > CLIENTS_MAX {
            let ((index, client), ()) = *self.clients_by_age.get_min().expect("every client has its age");
            self.clients_by_age.remove(&(index, client));
            self.clients.remove(&client);
        }
    }
}
