//! What the shards of one `novad` have inswitchboard: a mailbox each, the board of what all must know, and what each tells.
//!
//! A shard locks nothing of another for longer than it takes to copy a few values. What must not be lost stands on the
//! board, which a shard reads when its bell rings; what may be asked again is left in a mailbox.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nova_ring::Link;
use nova_ring::abi::{AgentEvent, BlockRuns};
use nova_ring::snapshot::HostMap;
use nova_shard::{Full, Mailbox};
use nova_units::{BlockId, DeviceId, GroupId, Incarnation};
use novabulk_tls::TlsConfig;

use crate::attendance::GivenKey;
use crate::neighbours::{Ask, Given, Unanswered};
use crate::roster::{Found, Mounted, Muster, Roster};
use crate::seats::Seats;
use crate::tally::Tally;

/// The shard that has the ring of the agent.
pub(crate) const FRONT: usize = 0;
/// Things that wait for one shard: questions of the others, and what the agent orders.
const POSTS_MAX: usize = 16_384;
/// Questions among them leave this much room for orders and answers.
const QUESTIONS_MAX: usize = POSTS_MAX / 2;
/// Events that may wait for a slow agent; past it the oldest are dropped, because every event is said again.
const EVENTS_MAX: usize = 4096;

/// One thing in the mailbox of a shard.
#[derive(Debug)]
pub(crate) enum Post {
    /// The host's agent attached; for the first shard only.
    Agent(Link),
    /// A local program attached, and this is its home shard.
    Program(Link),
    /// Another shard has a request for a device of this one.
    Ask(Ask),
    /// The answer to a question of this shard.
    Answer { number: u64, given: Given },
    /// What the agent asks of this shard.
    Order(Order),
    /// A shard has opened the device at a place, or says why not; for the first shard only.
    Opened { place: u8, opened: Result<Mounted, String> },
    /// A shard has closed a device; for the first shard only.
    Closed { device: DeviceId },
}

/// What the agent asks of one shard; it is asked again when it is not done.
#[derive(Debug)]
pub(crate) enum Order {
    Incarnate { device: DeviceId, incarnation: Incarnation, wipe: bool },
    DeleteBlocks { group: GroupId, runs: BlockRuns },
    ListBlocks { request: u64, group: GroupId, from: BlockId, limit: u16 },
    TakeKey(GivenKey),
    OpenDevice { place: u8, path: PathBuf, expected: Arc<Vec<Expected>> },
    CloseDevice { device: DeviceId },
}

/// A device that the controllers know of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) device: DeviceId,
    /// It failed, and is never trusted again.
    pub(crate) failed: bool,
}

/// What every shard must know, however late it looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    /// Counts the changes.
    pub(crate) version: u64,
    pub(crate) map: Option<Arc<HostMap>>,
    pub(crate) lease_until: Duration,
    /// Key domains that were dropped, for good.
    pub(crate) dropped: BTreeSet<u32>,
    /// Certificates in place of those of the start.
    pub(crate) certificates: Option<TlsConfig>,
    /// Counts the agents that attached: each is told everything.
    pub(crate) agents: u64,
    /// The devices in place of those of the start.
    pub(crate) roster: Option<Arc<Roster>>,
}

/// All of it. One for a process, shared by the threads of its shards, the door and the signals.
#[derive(Debug)]
pub(crate) struct Switchboard {
    boxes: Vec<Mailbox<Post>>,
    stop: AtomicBool,
    board: Mutex<Board>,
    muster: Mutex<Muster>,
    events: Mutex<VecDeque<AgentEvent>>,
    pub(crate) seats: Seats,
    /// What each shard has counted so far.
    tallies: Mutex<Vec<Tally>>,
    /// Groups of which each shard still has data.
    held: Mutex<Vec<BTreeSet<GroupId>>>,
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().expect("no holder of this lock panics")
}

impl Switchboard {
    /// For `shards` shards.
    ///
    /// # Errors
    /// When the process has no descriptors for their bells.
    pub(crate) fn new(shards: u16) -> std::io::Result<Arc<Self>> {
        let count = usize::from(shards);
        Ok(Arc::new(Self {
            boxes: (0..count).map(|_| Mailbox::new(POSTS_MAX)).collect::<Result<_, _>>()?,
            stop: AtomicBool::new(false),
            board: Mutex::default(),
            muster: Mutex::new(Muster::new(count)),
            events: Mutex::default(),
            seats: Seats::new(count),
            tallies: Mutex::new(vec![Tally::default(); count]),
            held: Mutex::new(vec![BTreeSet::new(); count]),
        }))
    }

    pub(crate) fn shards(&self) -> usize {
        self.boxes.len()
    }

    /// The mailbox of a shard.
    pub(crate) fn mailbox(&self, shard: usize) -> &Mailbox<Post> {
        &self.boxes[shard]
    }

    fn ring_all(&self) {
        self.boxes.iter().for_each(Mailbox::ring);
    }

    /// Leaves a question, when there is room for questions.
    pub(crate) fn post_question(&self, shard: usize, ask: Ask) -> Result<(), Unanswered> {
        self.boxes[shard].post_within(QUESTIONS_MAX, Post::Ask(ask)).map_err(|Full(_)| Unanswered::Busy)
    }

    /// Leaves an order; one that finds no room is asked again.
    pub(crate) fn post_order(&self, shard: usize, order: Order) {
        if let Err(Full(post)) = self.boxes[shard].post(Post::Order(order)) {
            tracing::error!(shard, ?post, "a shard does not take what is left for it: an order is lost");
        }
    }

    /// Asks every shard to stop.
    pub(crate) fn ask_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring_all();
    }

    /// Whether somebody asked.
    pub(crate) fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Changes the board, and wakes every shard to read it.
    pub(crate) fn write_board(&self, change: impl FnOnce(&mut Board)) {
        let mut board = locked(&self.board);
        change(&mut board);
        board.version += 1;
        drop(board);
        self.ring_all();
    }

    /// The board, when it has changed since `version`.
    pub(crate) fn read_board(&self, version: u64) -> Option<Board> {
        let board = locked(&self.board);
        (board.version != version).then(|| board.clone())
    }

    /// The newest map.
    pub(crate) fn map(&self) -> Option<Arc<HostMap>> {
        locked(&self.board).map.clone()
    }

    /// A shard has looked at its devices; when all have, it is known which of them serve.
    pub(crate) fn muster(&self, shard: usize, found: Found) {
        locked(&self.muster).take(shard, found);
        self.ring_all();
    }

    /// Which devices serve at the start; `None` until every shard has looked.
    pub(crate) fn roster(&self) -> Option<Arc<Roster>> {
        locked(&self.muster).roster()
    }

    /// Tells the agent something, or keeps it for the next one.
    pub(crate) fn tell(&self, event: AgentEvent) {
        let mut events = locked(&self.events);
        let was_empty = events.is_empty();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
        drop(events);
        if was_empty {
            self.boxes[FRONT].ring();
        }
    }

    /// Whether there is something to tell.
    pub(crate) fn has_events(&self) -> bool {
        !locked(&self.events).is_empty()
    }

    /// Gives the events to `send` in order until it takes one no more.
    pub(crate) fn drain_events<E>(
        &self,
        mut send: impl FnMut(&AgentEvent) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut events = locked(&self.events);
        while let Some(event) = events.front() {
            if !send(event)? {
                break;
            }
            events.pop_front();
        }
        Ok(())
    }

    /// Forgets what the agent was not told: a new one is told everything.
    pub(crate) fn clear_events(&self) {
        locked(&self.events).clear();
    }

    /// What a shard has counted so far.
    pub(crate) fn publish_tally(&self, shard: usize, tally: Tally) {
        locked(&self.tallies)[shard] = tally;
    }

    /// What all have counted.
    pub(crate) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        locked(&self.tallies).iter().for_each(|tally| all.join(tally));
        all
    }

    /// Groups of which a shard has data.
    pub(crate) fn publish_held(&self, shard: usize, groups: BTreeSet<GroupId>) {
        locked(&self.held)[shard] = groups;
    }

    /// A shard that has data of the group.
    pub(crate) fn holder_of(&self, group: GroupId) -> Option<usize> {
        locked(&self.held).iter().position(|groups| groups.contains(&group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_the_board_reaches_a_shard_that_looks_late_and_only_once() {
        let switchboard = Switchboard::new(2).unwrap();
        assert!(switchboard.read_board(0).is_none(), "nothing was written");
        switchboard.write_board(|board| board.lease_until = Duration::from_secs(1));
        switchboard.write_board(|board| {
            board.dropped.insert(7);
        });
        let board = switchboard.read_board(0).expect("it was written twice");
        assert_eq!((board.version, board.lease_until), (2, Duration::from_secs(1)));
        assert!(board.dropped.contains(&7));
        assert!(switchboard.read_board(board.version).is_none());
    }

    #[test]
    fn events_past_the_limit_push_out_the_oldest_and_stay_until_they_are_taken() {
        let switchboard = Switchboard::new(1).unwrap();
        for place in 0..=EVENTS_MAX {
            switchboard.tell(AgentEvent::DeviceBroken { place: u8::try_from(place % 256).unwrap() });
        }
        let mut taken = Vec::new();
        let room_for_two = |event: &AgentEvent| {
            let room = taken.len() < 2;
            if room {
                taken.push(*event);
            }
            Ok::<_, ()>(room)
        };
        switchboard.drain_events(room_for_two).unwrap();
        let place = |place| AgentEvent::DeviceBroken { place };
        assert_eq!(taken, [place(1), place(2)]);
        let mut next = None;
        switchboard
            .drain_events(|event| {
                next = Some(*event);
                Err(())
            })
            .unwrap_err();
        assert_eq!(next, Some(place(3)));
        assert!(switchboard.has_events(), "one that was not taken comes again");
    }

    #[test]
    fn a_group_is_found_where_its_data_are() {
        let switchboard = Switchboard::new(3).unwrap();
        switchboard.publish_held(2, [GroupId(5)].into());
        assert_eq!((switchboard.holder_of(GroupId(5)), switchboard.holder_of(GroupId(6))), (Some(2), None));
        switchboard.publish_held(2, BTreeSet::new());
        assert_eq!(switchboard.holder_of(GroupId(5)), None);
    }
}
