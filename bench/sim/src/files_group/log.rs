//! The log of the files group: what enters it, what is made of it, and who goes on from a snapshot.

use std::rc::Rc;
use std::time::Duration;

use nova_device::sync::oneshot;
use nova_device::{Clock, Shard};
use nova_units::{BlockId, InodeId, SessionId};
use novafs_namespace::{Answer, Command, Namespace, Op, Outcome, Renewals, Reply, Upkeep, plan};

use super::{FilesGroup, Saved, Waiter};
use crate::ask::{Told, is_forgotten};
use crate::audit;

/// How often the leader plans.
const TICK: Duration = Duration::from_millis(50);
/// Of a thousand log entries, after how many the whole tree is compared; always after one that renames.
const AUDIT_PERMILLE: u32 = 60;

impl FilesGroup {
    /// Puts commands into the log. A leader that has gone away without knowing it takes them too.
    pub(super) fn propose(&self, commands: Vec<Command>) -> oneshot::Receiver<Vec<Answer>> {
        let (answers, answered) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Waiter { commands, term: self.term.get(), answers });
        self.arrived.notify_one();
        answered
    }

    pub(super) async fn run_log(self: Rc<Self>) {
        loop {
            while self.waiting.borrow().is_empty() {
                self.arrived.notified().await;
            }
            let (least, most) = self.troubles.get().log_ms;
            let delay = self.draw(|rng| rng.u64(least..=most));
            self.pause(Duration::from_millis(delay)).await;
            if self.is_away() {
                self.shard.clock().sleep_until(self.away_until.get()).await;
                continue;
            }
            let waiters: Vec<Waiter> = {
                let mut waiting = self.waiting.borrow_mut();
                let count = self.draw(|rng| rng.usize(1..=waiting.len()));
                waiting.drain(..count).collect()
            };
            self.append(waiters);
        }
    }

    /// One entry of the log.
    fn append(&self, waiters: Vec<Waiter>) {
        let at_ms = self.wall().0;
        let index = self.index.get() + 1;
        self.index.set(index);
        let mut entry = Vec::new();
        for mut waiter in waiters {
            let deposed = waiter.term != self.term.get();
            if deposed && self.draw(|rng| rng.bool()) {
                // It was in the log of the old leader only.
                continue;
            }
            for command in &mut waiter.commands {
                command.at_ms = at_ms;
            }
            let answers: Vec<_> = waiter.commands.iter().map(|command| self.apply(index, command)).collect();
            entry.append(&mut waiter.commands);
            if !deposed {
                // One that went away asks again.
                let _ = waiter.answers.send(answers);
            }
        }
        let renames = entry.iter().any(|command| matches!(command.op, Some(Op::Rename(_))));
        self.saved.borrow_mut().entries.push((index, entry));
        if renames || self.chance(AUDIT_PERMILLE) {
            self.audit();
        }
        if self.chance(self.troubles.get().snapshot_permille) {
            self.take_over();
        }
    }

    pub(super) fn apply(&self, index: u64, command: &Command) -> Answer {
        let key = (command.client, command.sequence);
        self.expected.borrow_mut().tick(command.at_ms);
        let mut namespace = self.namespace.borrow_mut();
        let first = if command.client == 0 { None } else { self.first.borrow().get(&key).cloned() };
        let Some(first) = first else {
            let answer = namespace.apply(index, command);
            let op = command.op.as_ref().expect("every command asks something");
            self.note(|| format!("files {index} {:x}/{} {} -> {}", key.0, key.1, short(op), told(&answer)));
            if let Err(wrong) = self.expected.borrow_mut().take(op, &answer) {
                self.violation(wrong);
            }
            if let Some(Reply::SessionOpened(opened)) = &answer.result {
                self.hear(SessionId(opened.session), self.now());
            }
            let again = Told::Answer(answer.clone()).is_again();
            if command.client != 0 && !again {
                self.first.borrow_mut().insert(key, answer.clone());
            }
            return answer;
        };
        let mut before = namespace.clone();
        let answer = namespace.apply(index, command);
        // Only the time may go on.
        before.apply(index, &Command { client: 0, sequence: 0, at_ms: command.at_ms, op: None });
        self.history.borrow_mut().counts.repeats += 1;
        self.note(|| format!("files {index} {:x}/{} again -> {}", key.0, key.1, told(&answer)));
        if before != *namespace {
            self.violation(format!("a repeated request was applied twice: {command:?}"));
        }
        if answer != first && !answer.failure().is_some_and(is_forgotten) {
            self.violation(format!("a repeated request was answered {answer:?}, and {first:?} at first"));
        }
        answer
    }

    /// Plans while there is a leader; a new one begins without renewals.
    pub(super) async fn lead(self: Rc<Self>) {
        let mut known = 0;
        loop {
            self.pause(TICK).await;
            if self.is_away() {
                continue;
            }
            if self.term.get() != known {
                known = self.term.get();
                self.renewals.replace(Renewals::default());
                self.upkeep.replace(Upkeep::default());
            }
            let ops = plan(
                &self.namespace.borrow(),
                &mut self.renewals.borrow_mut(),
                &mut self.upkeep.borrow_mut(),
                self.now(),
                self.wall(),
            );
            if ops.is_empty() {
                continue;
            }
            self.judge_plan(&ops);
            let command = |op| Command { client: 0, sequence: 0, at_ms: 0, op: Some(op) };
            // What was not carried out is planned again.
            let _ = self.propose(ops.into_iter().map(command).collect()).await;
        }
    }

    pub(super) fn hear(&self, session: SessionId, at: Duration) {
        let mut heard = self.heard.borrow_mut();
        let last = heard.entry(session).or_default();
        *last = at.max(*last);
    }

    /// A session that was renewed within its lease does not run out.
    fn judge_plan(&self, ops: &[Op]) {
        for op in ops {
            let Op::EndSession(end) = op else { continue };
            self.history.borrow_mut().counts.sessions_ended += 1;
            let id = SessionId(end.session);
            let lease = self.namespace.borrow().session(id).map(|session| session.lease);
            let heard = self.heard.borrow().get(&id).copied();
            if let (Some(lease), Some(heard)) = (lease, heard)
                && self.now().saturating_sub(heard) <= lease
            {
                self.violation(format!("a session that was renewed ran out: {id}"));
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.namespace.borrow().encode(&mut |piece| bytes.extend_from_slice(piece));
        bytes
    }

    pub(super) fn take_snapshot(&self) {
        self.saved.replace(Saved { snapshot: self.encode(), entries: Vec::new() });
    }

    /// Another controller goes on: one that holds an older snapshot and the log behind it.
    fn take_over(&self) {
        self.history.borrow_mut().counts.snapshots += 1;
        self.note(|| "another controller goes on from a snapshot".to_owned());
        let saved = self.saved.take();
        match Namespace::decode(&saved.snapshot) {
            Ok(mut other) => {
                for (index, entry) in &saved.entries {
                    for command in entry {
                        other.apply(*index, command);
                    }
                }
                if other != *self.namespace.borrow() {
                    self.violation("a snapshot and the log behind it make another state".to_owned());
                }
                self.namespace.replace(other);
            }
            Err(error) => self.violation(format!("a snapshot cannot be read: {error}")),
        }
        let bytes = self.encode();
        match Namespace::decode(&bytes) {
            Ok(other) if other == *self.namespace.borrow() => {}
            Ok(_) => self.violation("a snapshot is read back as another state".to_owned()),
            Err(error) => self.violation(format!("a snapshot cannot be read: {error}")),
        }
        self.take_snapshot();
    }

    /// Compares the whole state with what is expected.
    fn audit(&self) {
        for wrong in audit::compare(&self.namespace.borrow(), &self.expected.borrow()) {
            self.violation(wrong);
        }
    }

    /// The last look: the state is what is expected, and what another controller would make of its log.
    pub(crate) fn check_at_rest(&self) {
        self.audit();
        self.take_over();
        self.audit();
    }
}

/// A command in a few words.
fn short(op: &Op) -> String {
    match op {
        Op::Publish(publish) => {
            let files: Vec<_> = publish
                .files
                .iter()
                .map(|file| {
                    let blocks: Vec<_> =
                        file.blocks.iter().map(|it| format!("{}@g{}", BlockId(it.block), it.group)).collect();
                    format!("{} ({} bytes, {})", file.path, file.bytes, blocks.join(" "))
                })
                .collect();
            format!("publish s{} replace {}: {}", publish.session, publish.replace, files.join(", "))
        }
        op => format!("{op:?}"),
    }
}

fn told(answer: &Answer) -> String {
    match &answer.result {
        Some(Reply::Published(published)) => {
            let outcome = |outcome: &Outcome| match &outcome.failure {
                Some(failure) => format!("{:?}", failure.code()),
                None => InodeId(outcome.inode).to_string(),
            };
            published.outcomes.iter().map(outcome).collect::<Vec<_>>().join(" ")
        }
        Some(Reply::Failure(failure)) => format!("{:?}", failure.code()),
        Some(reply) => format!("{reply:?}"),
        None => "nothing".to_owned(),
    }
}
