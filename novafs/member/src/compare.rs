//! Members of a group compare what they hold: a record that is missing or old passes every checksum.

use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, NodeId, Seq, Timestamp, UnitIndex};
use novafs_format::{LogEntry, UnitRecord};
use novafs_replica::compare::{Difference, FenceMark, Held, UnitMark, UnitPlace, judge};
use novafs_replica::message::UNITS_MAX;
use novafs_replica::{Answer, Message, Report, options::RETRY_SOON_MS};
use novafs_store::Listing;

use crate::Member;

/// How long a peer may take to answer.
const COMPARE_DEADLINE: Duration = Duration::from_millis(1_000);
/// How often a peer that is behind is asked again, and how long apart.
const ASKS_MAX: usize = 4;
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Parts of one range; a range with more is gone on with in the next pass.
const PARTS_MAX: usize = 256;
/// A deleted block is fenced with this generation.
const DELETED: Generation = Generation(u32::MAX);

fn held(listing: &Listing) -> Held {
    let unit = |record: &UnitRecord| UnitMark {
        place: (record.sealed.block, record.sealed.unit),
        generation: record.sealed.generation,
        counter: record.sealed.counter,
        commit: record.commit,
        digest: record.sealed.digest,
    };
    let fences = listing.fences.iter().map(|(block, record)| FenceMark {
        block: *block,
        fence: if record.deleted { DELETED } else { record.fence },
        deleted: record.deleted,
        at: record.at.seq,
    });
    Held {
        commit: listing.commit,
        units: listing.records.iter().map(unit).collect(),
        fences: fences.collect(),
    }
}

/// The unit before this one in the order of keys.
fn preceding((block, unit): UnitPlace) -> UnitPlace {
    match (block.0.checked_sub(1), unit.0.checked_sub(1)) {
        (_, Some(unit)) => (block, UnitIndex(unit)),
        (Some(block), None) => (BlockId(block), UnitIndex(u16::MAX)),
        (None, None) => (block, unit),
    }
}

fn cut_to(mut held: Held, end: Option<UnitPlace>) -> Held {
    if let Some(end) = end {
        held.units.retain(|unit| unit.place < end);
        held.fences.retain(|fence| (fence.block, UnitIndex(0)) < end);
    }
    held
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// Compares a range with every other in-sync member, and takes from them what is missing or old here. `pass` is
    /// the scrub pass for which this is done.
    pub(crate) async fn compare(
        self: &Rc<Self>,
        group: GroupId,
        mut from: UnitPlace,
        to: UnitPlace,
        pass: Timestamp,
    ) {
        for _ in 0..PARTS_MAX {
            let peers = self.peers_in_sync(group);
            if peers.is_empty() || !self.drive.borrow().host.is_whole(group) {
                return;
            }
            let Ok(listing) = self.store.list(group, from, to, UNITS_MAX).await else { return };
            let mine = held(&listing);
            let end = listing.next.map_or(to, preceding);
            let message = Message::Compare {
                group,
                from,
                to: end,
                commit: mine.commit,
                digest: mine.digest(mine.commit),
            };
            let (mut answers, mut next, mut same) = (Vec::new(), listing.next, true);
            for peer in &peers {
                match self.ask_held(*peer, &message, mine.commit).await {
                    Some(None) => answers.push(mine.clone()),
                    Some(Some((theirs, rest))) => {
                        same = false;
                        answers.push(theirs);
                        next = [next, rest].into_iter().flatten().min();
                    }
                    None => {}
                }
            }
            self.count(|counters| {
                counters.compares += 1;
                counters.compares_unanswered += (peers.len() - answers.len()) as u64;
            });
            if !same {
                let all_answered = answers.len() == peers.len();
                let answers: Vec<Held> = answers.into_iter().map(|held| cut_to(held, next)).collect();
                for difference in judge(&cut_to(mine.clone(), next), &answers) {
                    // Whether a unit should be there at all takes everybody's word.
                    let counts =
                        all_answered || matches!(difference, Difference::Stale(_) | Difference::Fence(_));
                    if counts {
                        self.settle(group, difference, &peers, mine.commit, pass).await;
                    }
                }
            }
            match next {
                Some(next) if next > from => from = next,
                _ => return,
            }
        }
    }

    /// What a peer holds of a range: `Some(None)` for the same, `None` when it does not say.
    async fn ask_held(
        &self,
        peer: NodeId,
        message: &Message,
        commit: Seq,
    ) -> Option<Option<(Held, Option<UnitPlace>)>> {
        for _ in 0..ASKS_MAX {
            match self.ask(peer, message, None, COMPARE_DEADLINE).await?.0 {
                Answer::Same => return Some(None),
                Answer::Held { held, next } if held.commit >= commit => return Some(Some((held, next))),
                Answer::Busy { .. } => {
                    let clock = self.shard.clock();
                    clock.sleep_until(clock.now() + ASK_AGAIN).await;
                }
                _ => return None,
            }
        }
        None
    }

    async fn settle(
        self: &Rc<Self>,
        group: GroupId,
        difference: Difference,
        peers: &[NodeId],
        seen: Seq,
        pass: Timestamp,
    ) {
        self.count(|counters| counters.differences_found += 1);
        let (place, settled) = match difference {
            Difference::Missing(mark) | Difference::Stale(mark) => {
                (mark.place, self.take_over(group, &mark, peers, seen).await)
            }
            Difference::Fence(mark) => {
                let block = mark.block;
                let entry = if mark.deleted {
                    LogEntry::Delete { block }
                } else {
                    LogEntry::Fence { block, generation: mark.fence }
                };
                let at = CommitPoint { epoch: Epoch(0), seq: mark.at };
                let taken = self.store.install(group, at, &entry, None).await;
                ((block, UnitIndex(0)), taken.is_ok())
            }
            Difference::Disputed(place) => (place, false),
        };
        if settled {
            self.count(|counters| counters.differences_settled += 1);
        } else {
            self.health.borrow_mut().note_disputed((group, place.0, place.1), pass);
        }
    }

    /// Takes exactly this version from a peer that has it. True when nothing is missing any more.
    async fn take_over(
        self: &Rc<Self>,
        group: GroupId,
        mark: &UnitMark,
        peers: &[NodeId],
        seen: Seq,
    ) -> bool {
        let (block, unit) = mark.place;
        let message =
            Message::Copy { group, block, unit, generation: mark.generation, counter: mark.counter };
        for peer in peers {
            let asked = self.ask(*peer, &message, None, COMPARE_DEADLINE).await;
            let Some((Answer::Units { units }, Some(body))) = asked else { continue };
            let [found] = &units[..] else { continue };
            let same = (found.sealed.block, found.sealed.unit, found.sealed.digest)
                == (block, unit, mark.digest)
                && found.commit == mark.commit
                && found.sealed.compute_digest(&body) == mark.digest;
            if !same {
                continue;
            }
            match self.store.restore(group, found.sealed, found.commit, body, seen).await {
                Ok(true) => {
                    self.health.borrow_mut().note_repaired((group, block, unit));
                    self.count(|counters| counters.units_repaired += 1);
                    self.queue_report(Report::PageRepaired { group, block, unit });
                    return true;
                }
                // Something newer is here by now: a write, or a cut.
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// What this host holds of a range, for a member that compares.
    pub(crate) async fn serve_compare(
        &self,
        group: GroupId,
        from: UnitPlace,
        to: UnitPlace,
        commit: Seq,
        digest: &[u8; 32],
    ) -> Answer {
        if !self.drive.borrow().host.is_whole(group) {
            return Answer::NotMember;
        }
        match self.store.list(group, from, to, UNITS_MAX).await {
            Ok(listing) if listing.commit >= commit => {
                let held = held(&listing);
                if listing.next.is_none() && held.digest(commit) == *digest {
                    Answer::Same
                } else {
                    Answer::Held { held, next: listing.next }
                }
            }
            _ => Answer::Busy { retry_after_ms: RETRY_SOON_MS },
        }
    }

    /// The other members of a group that hold everything.
    fn peers_in_sync(&self, group: GroupId) -> Vec<NodeId> {
        let drive = self.drive.borrow();
        let me = drive.host.identity().node;
        let view = drive.configuration.group(group);
        view.map(|view| view.in_sync().filter(|node| *node != me).collect()).unwrap_or_default()
    }
}
