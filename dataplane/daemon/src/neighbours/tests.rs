use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nova_device::sync::join_all;
use nova_shard::{RealShard, ShardOptions, run};
use nova_units::TaskClass;

use super::*;

const PAGE: usize = 4096;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn question(head: &[u8], body: Option<SharedBuf>) -> Question {
    Question { from: NodeId(3), head: head.to_vec(), body, priority: Priority::P1, hop: 1 }
}

/// How long a head that begins with `~` waits for its answer.
const SLOW: Duration = Duration::from_millis(100);

/// Takes what comes to a shard, and answers questions: the head comes back reversed, the body with one byte changed. A head
/// that begins with `!` is not answered.
async fn mind(shard: RealShard, switchboard: Arc<Switchboard>, neighbours: Rc<Neighbours>) {
    let mailbox = switchboard.mailbox(neighbours.own());
    let bell = shard.watch(mailbox.bell().try_clone_to_owned().unwrap());
    loop {
        for post in mailbox.take_all() {
            match post {
                Post::Answer { number, given } => neighbours.take_answer(number, given),
                Post::Ask(ask) if ask.head().first() == Some(&b'!') => {}
                Post::Ask(ask) => {
                    let (from, neighbours, pool) = (ask.from, Rc::clone(&neighbours), shard.pool().clone());
                    let clock = shard.clock().clone();
                    assert_eq!(from, NodeId(3));
                    shard.spawn(TaskClass::Client, async move {
                        let (Some(Incoming { mut head, body, priority, hop }), asker) =
                            ask.unpack(&pool).await
                        else {
                            panic!("here every asker waits until its question is begun");
                        };
                        if head.first() == Some(&b'~') {
                            clock.sleep_until(clock.now() + SLOW).await;
                        }
                        assert_eq!((priority, hop), (Priority::P1, 1));
                        head.reverse();
                        let kept_sums = body.as_ref().is_none_or(|body| body.page_sums().is_some());
                        assert!(kept_sums, "a body keeps the sums of its pages");
                        let body = body.map(|mut body| {
                            body[0] ^= 1;
                            body.freeze()
                        });
                        neighbours.answer(asker, Served { head, body });
                    });
                }
                _ => panic!("nothing else is posted here"),
            }
        }
        bell.readable().await.unwrap();
        mailbox.silence();
    }
}

/// Two shards. The second one answers until the first has done what it wants to.
fn beside_a_neighbour(asks: impl AsyncFnOnce(RealShard, Rc<Neighbours>)) {
    let switchboard = Switchboard::new(2).unwrap();
    let other = neighbour(Arc::clone(&switchboard));
    let options = ShardOptions { name: "asks".into(), ..ShardOptions::default() };
    run(options, async move |shard| {
        let neighbours = Rc::new(Neighbours::new(0, Arc::clone(&switchboard), shard.pool().bytes()));
        shard
            .spawn(TaskClass::Control, mind(shard.clone(), Arc::clone(&switchboard), Rc::clone(&neighbours)));
        asks(shard, neighbours).await;
        switchboard.ask_stop();
    })
    .unwrap();
    other.join().unwrap();
}

fn neighbour(switchboard: Arc<Switchboard>) -> JoinHandle<()> {
    let (up, is_up) = mpsc::channel();
    let thread = thread::spawn(move || {
        let options = ShardOptions { name: "answers".into(), ..ShardOptions::default() };
        run(options, async move |shard| {
            let neighbours = Rc::new(Neighbours::new(1, Arc::clone(&switchboard), shard.pool().bytes()));
            shard.spawn(TaskClass::Control, mind(shard.clone(), Arc::clone(&switchboard), neighbours));
            up.send(()).unwrap();
            while !switchboard.stop_asked() {
                let clock = shard.clock();
                clock.sleep_until(clock.now() + Duration::from_millis(5)).await;
            }
        })
        .unwrap();
    });
    is_up.recv().unwrap();
    thread
}

async fn body(shard: &RealShard, pages: usize, byte: u8) -> SharedBuf {
    let mut body = shard.pool().take(pages * PAGE).await;
    body.fill(byte);
    body.set_page_sums(vec![PageSum(7); pages].into());
    body.freeze()
}

#[test]
fn questions_and_their_bodies_cross_to_a_shard_and_back() {
    beside_a_neighbour(async |shard, neighbours| {
        let asking = (0..200u8).map(async |number| {
            let body = body(&shard, 1 + usize::from(number) % 256, number).await;
            let bytes = body.len();
            let asked = neighbours.ask(&shard, 1, question(&[b'n', number], Some(body)), PATIENCE);
            let Given { head, body, .. } = asked.await.unwrap();
            assert_eq!(head, [number, b'n']);
            let body = body.unwrap().unpack(shard.pool()).await;
            assert_eq!((body.len(), body[0], body[bytes - 1]), (bytes, number ^ 1, number));
        });
        join_all(asking).await;
        let bare = neighbours.ask(&shard, 1, question(b"ab", None), PATIENCE).await.unwrap();
        assert_eq!((bare.head.as_slice(), bare.body.is_none()), (&b"ba"[..], true));
        assert!(neighbours.asked.borrow().is_empty(), "nothing waits for an answer");
    });
}

#[test]
fn a_shard_that_does_not_answer_is_late_until_it_answers_again() {
    beside_a_neighbour(async |shard, neighbours| {
        let soon = Duration::from_millis(20);
        let asked = neighbours.ask(&shard, 1, question(b"!", None), soon).await;
        assert_eq!(asked.map(|given| given.head), Err(Unanswered::TimedOut));
        assert!(neighbours.is_late(1) && neighbours.asked.borrow().is_empty());
        neighbours.ask(&shard, 1, question(b"a", None), PATIENCE).await.unwrap();
        assert!(!neighbours.is_late(1));
    });
}

#[test]
fn a_shard_whose_answer_comes_too_late_is_not_late_for_ever() {
    beside_a_neighbour(async |shard, neighbours| {
        let asked = neighbours.ask(&shard, 1, question(b"~", None), SLOW / 4).await;
        assert_eq!(asked.map(|given| given.head), Err(Unanswered::TimedOut));
        assert!(neighbours.is_late(1));
        let begun = shard.clock().now();
        while neighbours.is_late(1) {
            assert!(shard.clock().now() < begun + PATIENCE, "its answer came, and nobody took note");
            shard.clock().sleep_until(shard.clock().now() + SLOW / 10).await;
        }
    });
}

#[test]
fn questions_to_a_shard_that_hangs_are_bounded_and_take_nothing_from_another_hop() {
    // Nobody reads the mailbox of the second shard.
    let switchboard = Switchboard::new(2).unwrap();
    run(ShardOptions::default(), async move |shard| {
        let neighbours = Neighbours::new(0, Arc::clone(&switchboard), shard.pool().bytes());
        let within = Duration::from_millis(200);
        // Those that find no room wait for it less long than those that have it.
        let asking = (0..ASKED_MAX + 50).map(|number| {
            let within = if number < ASKED_MAX { within } else { within / 4 };
            neighbours.ask(&shard, 1, question(b"a", None), within)
        });
        let ended = join_all(asking).await;
        let count = |why| ended.iter().filter(|it| it.as_ref().is_err_and(|it| *it == why)).count();
        assert_eq!((count(Unanswered::TimedOut), count(Unanswered::Busy)), (ASKED_MAX, 50));
        assert_eq!(switchboard.mailbox(1).take_all().len(), ASKED_MAX);
        // The room for bodies of one hop is full; that of the next is not.
        let bytes = usize::try_from(shard.pool().bytes()).unwrap() / (8 * 2 * HOPS);
        let full = body(&shard, bytes / PAGE / 4, 1).await;
        let asking = (0..5).map(|number| {
            let within = if number < 4 { within } else { within / 4 };
            neighbours.ask(&shard, 1, question(b"a", Some(full.clone())), within)
        });
        let other_hop = Question { hop: 2, ..question(b"a", Some(full.clone())) };
        let (ended, other) =
            futures_lite::future::zip(join_all(asking), neighbours.ask(&shard, 1, other_hop, within)).await;
        let busy = ended.iter().filter(|it| matches!(it, Err(Unanswered::Busy))).count();
        assert_eq!((busy, other.is_err_and(|why| why == Unanswered::TimedOut)), (1, true));
        // Nobody waits for them now: it hangs without their bodies, and serves none of them when it comes to.
        let left = switchboard.mailbox(1).take_all();
        assert_eq!(left.len(), 5);
        for post in left {
            let Post::Ask(ask) = post else { panic!("only questions were asked") };
            assert!(matches!(*ask.body.0.lock().unwrap(), Body::TakenBack), "{ask:?}");
            assert!(ask.unpack(shard.pool()).await.0.is_none());
        }
    })
    .unwrap();
}
