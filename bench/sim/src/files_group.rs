//! The files group of the controllers as an oracle: the real slice of file metadata behind a log that takes its time,
//! leaders that go away, and answers that are late or lost. Every command is compared with what [`Expected`] foresees.

mod log;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::MemShard;
use nova_device::sync::{Notify, oneshot};
use nova_device::{Clock, Shard};
use nova_units::{InodeId, NodeId, SessionId, TaskClass, Timestamp};
use novafs_namespace::{
    Answer, Code, Command, Done, Failure, ListAsk, Namespace, Op, Renewals, ReserveBlocks, SetSpace, Upkeep,
};

use crate::ask::{Ask, Call, Request, Told};
use crate::controller::Controller;
use crate::expected::Expected;
use crate::history::History;
use crate::net::Net;

/// Where the leader of the files group is.
pub(crate) const FILES: NodeId = NodeId(202);
/// Era of the blocks of files; those that are written without file metadata are of another.
pub(crate) const FILES_ERA: u16 = 2;
/// Policies that let files go within a run: namespace, retention and undelete window in ms, 0 for none.
const POLICIES: [(&str, u64, u64); 3] = [("hot", 0, 0), ("warm", 0, 2_500), ("scratch", 9_000, 1_000)];
/// A round of asking whether the leader still leads, in microseconds, at least and at most.
const READ_INDEX_US: (u64, u64) = (100, 5_000);

/// What the group and the way to it suffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Troubles {
    /// How long an entry of the log takes, at least and at most, in milliseconds.
    pub(crate) log_ms: (u64, u64),
    /// Of a thousand answers, how many are lost.
    pub(crate) lost_permille: u32,
    /// Of a thousand answers, how many come late.
    pub(crate) late_permille: u32,
    /// How late at most, in milliseconds.
    pub(crate) late_ms: u64,
    /// Of a thousand log entries, after how many another controller takes over from a snapshot.
    pub(crate) snapshot_permille: u32,
}

impl Troubles {
    /// A good day.
    pub(crate) const FAIR: Self =
        Self { log_ms: (1, 10), lost_permille: 0, late_permille: 0, late_ms: 1, snapshot_permille: 30 };
}

/// Commands that wait to become one entry of the log.
struct Waiter {
    commands: Vec<Command>,
    term: u64,
    answers: oneshot::Sender<Vec<Answer>>,
}

/// A snapshot and the log behind it.
#[derive(Default)]
struct Saved {
    snapshot: Vec<u8>,
    entries: Vec<(u64, Vec<Command>)>,
}

/// What the calendar shows at first, in milliseconds: some days, so that it can be set back.
const CALENDAR_BEGINS: u64 = 1_000_000_000;

/// The oracle.
pub(crate) struct FilesGroup {
    shard: MemShard,
    net: Rc<Net>,
    controller: Rc<Controller>,
    history: Rc<RefCell<History>>,
    rng: RefCell<fastrand::Rng>,
    namespace: RefCell<Namespace>,
    expected: RefCell<Expected>,
    renewals: RefCell<Renewals>,
    upkeep: RefCell<Upkeep>,
    /// When a session was opened or last renewed, as far as its client may have been told.
    heard: RefCell<BTreeMap<SessionId, Duration>>,
    /// The first answer to every request that changed something or was refused for good.
    first: RefCell<BTreeMap<(u64, u64), Answer>>,
    saved: RefCell<Saved>,
    waiting: RefCell<VecDeque<Waiter>>,
    arrived: Notify,
    index: Cell<u64>,
    /// Raised whenever the leader goes away.
    term: Cell<u64>,
    /// No leader until then, by the clock of [`FILES`].
    away_until: Cell<Duration>,
    turn: Cell<usize>,
    /// How far the calendar is from the right one, in milliseconds.
    pub(crate) jumped_ms: Cell<i64>,
    pub(crate) troubles: Cell<Troubles>,
    /// Whether what happens is written down.
    keeps_log: bool,
    log: RefCell<Vec<(Duration, String)>>,
}

impl std::fmt::Debug for FilesGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesGroup")
            .field("index", &self.index)
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}

impl FilesGroup {
    /// An empty namespace, led from `shard`.
    pub(crate) fn start(
        shard: &MemShard,
        net: &Rc<Net>,
        controller: &Rc<Controller>,
        history: &Rc<RefCell<History>>,
        (seed, keeps_log): (u64, bool),
    ) -> Rc<Self> {
        let group = Rc::new(Self {
            shard: shard.clone(),
            net: Rc::clone(net),
            controller: Rc::clone(controller),
            history: Rc::clone(history),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            namespace: RefCell::new(Namespace::new(FILES_ERA)),
            expected: RefCell::new(Expected::new()),
            renewals: RefCell::default(),
            upkeep: RefCell::default(),
            heard: RefCell::default(),
            first: RefCell::default(),
            saved: RefCell::default(),
            waiting: RefCell::default(),
            arrived: Notify::new(),
            index: Cell::new(0),
            term: Cell::new(1),
            away_until: Cell::default(),
            turn: Cell::new(0),
            jumped_ms: Cell::default(),
            troubles: Cell::new(Troubles::FAIR),
            keeps_log,
            log: RefCell::default(),
        });
        for (name, retention_ms, undelete_ms) in POLICIES {
            let (retention_ms, undelete_ms) = (Some(retention_ms), Some(undelete_ms));
            let set = SetSpace { name: name.to_owned(), retention_ms, undelete_ms, ..SetSpace::default() };
            group.apply(
                0,
                &Command { client: 0, sequence: 0, at_ms: group.wall().0, op: Some(Op::SetSpace(set)) },
            );
        }
        group.take_snapshot();
        shard.spawn(TaskClass::Control, Rc::clone(&group).run_log());
        shard.spawn(TaskClass::Control, Rc::clone(&group).lead());
        group
    }

    fn now(&self) -> Duration {
        self.shard.clock().now()
    }

    /// The calendar, at the pace of the clock, or as wrong as it was set.
    fn wall(&self) -> Timestamp {
        let millis = u64::try_from(self.now().as_millis()).expect("a run is short");
        Timestamp((CALENDAR_BEGINS + millis).saturating_add_signed(self.jumped_ms.get()))
    }

    async fn pause(&self, time: Duration) {
        self.shard.clock().sleep_until(self.now() + time).await;
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    fn chance(&self, permille: u32) -> bool {
        self.draw(|rng| rng.u32(..1000) < permille)
    }

    fn violation(&self, what: String) {
        self.note(|| format!("WRONG: {what}"));
        self.history.borrow_mut().violation(what);
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.keeps_log {
            self.log.borrow_mut().push((self.now(), what()));
        }
    }

    /// What happened, in order, by the time of the world.
    pub(crate) fn log(&self) -> Vec<(Duration, String)> {
        let offset = Duration::from_secs(FILES.0 * 10);
        self.log.borrow().iter().map(|(at, what)| (at.saturating_sub(offset), what.clone())).collect()
    }

    /// What the namespace must hold.
    pub(crate) fn expected(&self) -> std::cell::Ref<'_, Expected> {
        self.expected.borrow()
    }

    /// The state as it is.
    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace.borrow().clone()
    }

    /// The leader goes away; another leads after `time`.
    pub(crate) fn go_away(&self, time: Duration) {
        self.term.set(self.term.get() + 1);
        self.away_until.set(self.now() + time);
    }

    /// Somebody leads from now on.
    pub(crate) fn come_back(&self) {
        self.away_until.set(self.away_until.get().min(self.now()));
    }

    fn is_away(&self) -> bool {
        self.now() < self.away_until.get()
    }

    /// No session is open and no tree waits to be taken apart.
    pub(crate) fn is_quiet(&self) -> bool {
        let namespace = self.namespace.borrow();
        namespace.sessions().next().is_none() && !namespace.has_sweep()
    }

    /// Carries one copy of a request there and an answer back, each way with what the network does to it.
    pub(crate) fn send(self: &Rc<Self>, from: NodeId, request: Request, call: &Rc<Call>) {
        let (group, call) = (Rc::clone(self), Rc::clone(call));
        self.shard.spawn(TaskClass::Control, async move {
            if !group.net.travel(from, FILES).await {
                return;
            }
            let Some(told) = group.serve(&request).await else { return };
            let troubles = group.troubles.get();
            if group.chance(troubles.lost_permille) {
                return;
            }
            if group.chance(troubles.late_permille) {
                let late = group.draw(|rng| rng.u64(..=troubles.late_ms));
                group.pause(Duration::from_millis(late)).await;
            }
            if group.net.travel(FILES, from).await && call.take(told, &request) {
                group.violation(format!("a repeated request was answered otherwise: {request:?}"));
            }
        });
    }

    /// What the leader answers; nothing when it does not know.
    async fn serve(&self, request: &Request) -> Option<Told> {
        let op = match &request.ask {
            Ask::Change(op) => op.clone(),
            Ask::Reserve { session, count } => Op::ReserveBlocks(self.with_groups(*session, *count)),
            ask => return self.read(ask).await,
        };
        let command = Command { client: request.client, sequence: request.sequence, at_ms: 0, op: Some(op) };
        if self.is_away() && self.draw(|rng| rng.bool()) {
            let silent = self.draw(|rng| rng.bool());
            return (!silent).then(|| Failure::new(Code::Unavailable, "", "no leader").into());
        }
        let answers = self.propose(vec![command]).await.ok()?;
        answers.into_iter().next().map(Told::Answer)
    }

    fn with_groups(&self, session: u64, count: u32) -> ReserveBlocks {
        let mut groups = self.controller.writable();
        if !groups.is_empty() {
            let turn = self.turn.get();
            self.turn.set(turn + 1);
            let by = turn % groups.len();
            groups.rotate_left(by);
        }
        ReserveBlocks { session, count, groups: groups.into_iter().map(|group| group.0).collect() }
    }

    /// A question to the state: not older than the question, and only from a leader that still leads.
    async fn read(&self, ask: &Ask) -> Option<Told> {
        let heard = self.now();
        let term = self.term.get();
        let delay = self.draw(|rng| rng.u64(READ_INDEX_US.0..=READ_INDEX_US.1));
        self.pause(Duration::from_micros(delay)).await;
        if self.is_away() || self.term.get() != term {
            let silent = self.draw(|rng| rng.bool());
            return (!silent).then(|| Failure::new(Code::Unavailable, "", "no leader").into());
        }
        let namespace = self.namespace.borrow();
        let expected = self.expected.borrow();
        let mut judged = Ok(());
        let told = match ask {
            Ask::Renew(session) => {
                let session = SessionId(*session);
                if namespace.session(session).is_none() {
                    return Some(Failure::new(Code::Fenced, "", "the writer session has ended").into());
                }
                self.renewals.borrow_mut().renew(session, heard);
                self.hear(session, heard);
                Told::Answer(Done {}.into())
            }
            Ask::List { path, after, limit } => {
                match namespace.list(&ListAsk { path, after, limit: *limit, ..ListAsk::default() }) {
                    Ok(page) => {
                        judged = expected.judge_page(path, after, *limit as usize, &page);
                        Told::Page(page)
                    }
                    Err(failure) => {
                        if expected.directories().contains(path) {
                            judged = Err(format!("a directory is gone: {path}: {failure:?}"));
                        }
                        failure.into()
                    }
                }
            }
            Ask::Open(path) => match namespace.open(0, path) {
                Ok((inode, view)) => {
                    judged = expected.judge_open(path, Some((&view, &inode)));
                    Told::File(view, inode)
                }
                Err(failure) => {
                    judged = expected.judge_open(path, None);
                    failure.into()
                }
            },
            Ask::OpenInode(inode) => match namespace.open_inode(InodeId(*inode)) {
                Ok((inode, view)) => Told::File(view, inode),
                Err(failure) => {
                    if expected.has_inode(*inode) {
                        judged = Err(format!("an acknowledged file is gone: inode {inode}"));
                    }
                    failure.into()
                }
            },
            Ask::Usage(path) => namespace.usage(0, path).map_or_else(Told::from, |it| Told::Totals(it.0)),
            Ask::Change(_) | Ask::Reserve { .. } => unreachable!("these go through the log"),
        };
        if let Err(wrong) = judged {
            self.violation(wrong);
        }
        Some(told)
    }
}
