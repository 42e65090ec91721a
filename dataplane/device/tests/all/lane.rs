use core::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};
use std::net::SocketAddr;

use nova_device::{
    Clock, Lane, LaneError, Listener, sync,
    uring::{Reactor, RealClock, TcpLane, TcpListener},
};

use crate::bench::{Bench, MIB};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A connection to ourselves.
async fn connected(reactor: &Reactor) -> (TcpLane, TcpLane) {
    let listener = TcpListener::bind(reactor, loopback()).unwrap();
    let to = listener.address().0;
    let near = TcpLane::connect(reactor, to).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

#[test]
fn messages_arrive_whole_and_in_order_in_both_directions() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let (near, far) = connected(&bench.reactor).await;
        let talk = async |lane: &TcpLane, base: u8| {
            for number in 0..20u8 {
                let body = bench.filled(100_000, base + number).freeze();
                lane.send(&[base + number; 16], Some(body)).await.unwrap();
            }
            lane.shutdown().await.unwrap();
        };
        let listen = async |lane: &TcpLane, base: u8| {
            let mut buf = bench.pool.take(MIB).await;
            for number in 0..20u8 {
                for count in [16, 100_000] {
                    let (result, back) = lane.recv_exact(buf, count).await;
                    result.unwrap();
                    assert!(back[..count].iter().all(|&byte| byte == base + number));
                    buf = back;
                }
            }
            let (result, _buf) = lane.recv_some(buf, 1).await;
            assert_eq!(result, Err(LaneError::Closed));
        };
        let (mut a, mut b) = (pin!(talk(&near, 0)), pin!(talk(&far, 100)));
        let (mut c, mut d) = (pin!(listen(&near, 100)), pin!(listen(&far, 0)));
        let all: [core::pin::Pin<&mut dyn Future<Output = ()>>; 4] =
            [a.as_mut(), b.as_mut(), c.as_mut(), d.as_mut()];
        sync::join_all(all).await;
    });
    assert_eq!(bench.pool.free_bytes(), bench.pool.bytes());
}

#[test]
fn some_bytes_are_enough_when_some_are_asked_for() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let (near, far) = connected(&bench.reactor).await;
        near.send(b"0123456789", None).await.unwrap();
        let (result, buf) = far.recv_some(bench.filled(4096, 0), 4).await;
        let count = result.unwrap();
        assert!((4..=10).contains(&count));
        assert_eq!(&buf[..count], &b"0123456789"[..count]);
    });
}

#[test]
fn nobody_listening_is_refused() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let free = TcpListener::bind(&bench.reactor, loopback()).unwrap().address().0;
        assert_eq!(TcpLane::connect(&bench.reactor, free).await.unwrap_err(), LaneError::Refused);
    });
}

#[test]
fn a_peer_that_goes_away_breaks_or_closes_the_lane() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let (near, far) = connected(&bench.reactor).await;
        drop(far);
        let (result, _buf) = near.recv_exact(bench.filled(4096, 0), 1).await;
        assert_eq!(result, Err(LaneError::Closed));
        let mut result = Ok(());
        for _ in 0..100 {
            result = near.send(b"is anybody there", None).await;
        }
        assert!(matches!(result, Err(LaneError::Poisoned | LaneError::Broken { .. })), "{result:?}");
    });
}

#[test]
fn a_dropped_receive_returns_its_buffer_and_poisons_the_lane() {
    let bench = Bench::new();
    let all = bench.pool.bytes();
    bench.reactor.run(async {
        let (near, far) = connected(&bench.reactor).await;
        let clock = RealClock::new(&bench.reactor);
        let soon = clock.now() + Duration::from_millis(5);
        let waiting = far.recv_exact(bench.filled(MIB, 0), MIB);
        assert!(sync::timeout_at(&clock, soon, waiting).await.is_err());
        let (result, buf) = far.recv_some(bench.filled(4096, 0), 1).await;
        assert_eq!(result, Err(LaneError::Poisoned));
        drop(buf);
        // The cancel has been carried out when the buffer is back.
        let limit = clock.now() + Duration::from_secs(5);
        while bench.pool.free_bytes() < all {
            assert!(clock.now() < limit, "the kernel gives the buffer back");
            clock.sleep_until(clock.now() + Duration::from_millis(1)).await;
        }
        drop(near);
    });
}

#[test]
fn a_dropped_send_poisons_the_lane() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let (near, _far) = connected(&bench.reactor).await;
        let clock = RealClock::new(&bench.reactor);
        // Nobody reads: some mebibytes fill what the kernel is willing to hold.
        let flood = async {
            loop {
                let body = bench.pool.take(MIB).await.freeze();
                near.send(&[], Some(body)).await.unwrap();
            }
        };
        let soon = clock.now() + Duration::from_millis(300);
        assert_eq!(sync::timeout_at(&clock, soon, flood).await, Err(sync::TimedOut));
        assert_eq!(near.send(b"more", None).await, Err(LaneError::Poisoned));
    });
}

#[test]
fn an_attempt_to_accept_that_is_dropped_leaves_the_listener_usable() {
    let bench = Bench::new();
    bench.reactor.run(async {
        let listener = TcpListener::bind(&bench.reactor, loopback()).unwrap();
        {
            let mut accept = pin!(listener.accept());
            assert!(accept.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            bench.reactor.turn();
        }
        let clock = RealClock::new(&bench.reactor);
        clock.sleep_until(clock.now() + Duration::from_millis(5)).await;
        let near = TcpLane::connect(&bench.reactor, listener.address().0).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        far.send(b"welcome", None).await.unwrap();
        let (result, buf) = near.recv_exact(bench.filled(4096, 0), 7).await;
        result.unwrap();
        assert_eq!(&buf[..7], b"welcome");
    });
}
