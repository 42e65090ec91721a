//! Who is let in, and who is told what.
use futures_lite::future::{or, zip};
use nova_device::mem::World;
use nova_device::{Clock, Lane, Shard};
use novabulk_tls::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, RECORDS_PER_KEY, Tls, TlsConfig, TlsError};

use super::ends::{between, config, file, host, pem, plain, shaken, take, tls};

fn of(name: &str, ca: &str) -> Tls {
    tls(config(name, ca), RECORDS_PER_KEY)
}

#[test]
fn each_end_knows_whose_certificate_the_other_has() {
    between(RECORDS_PER_KEY, |_, one, two| async move {
        assert_eq!((one.peer().node(), two.peer().node()), ("two", "one"));
        assert_eq!(one.peer().service(), "novad");
    });
}

#[test]
fn a_certificate_of_another_ca_is_refused_on_both_sides() {
    for (dialer, listener) in [("stranger", "two"), ("one", "stranger")] {
        let refused = shaken(of(dialer, "ca"), of(listener, "ca"), |shard, (dialled, accepted)| async move {
            let Ok(dialled) = dialled else { return true };
            // A client learns with the next bytes that its own was refused.
            accepted.is_err() && take(&shard, &dialled, 1).await.is_err()
        });
        assert!(refused, "{dialer} dials {listener}");
    }
}

#[test]
fn a_certificate_that_is_over_or_has_no_name_is_refused() {
    let over = shaken(of("one", "ca"), of("over", "ca"), |_, ends| async move { ends.0.err() });
    assert!(matches!(over, Some(TlsError::Refused(_))), "{over:?}");
    let nameless = TlsConfig::from_pem(&pem("ca.pem"), &pem("nameless.pem"), &pem("nameless.key"));
    assert!(matches!(nameless, Err(TlsError::Nameless(_))), "{nameless:?}");
}

#[test]
fn other_certificates_hold_for_the_next_connection_and_not_for_those_that_stand() {
    let world = World::new(3);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let (dialer, listener) = (of("one", "ca"), of("two", "ca"));
        let connect = async || {
            let (dialled, accepted) = plain(&one, &two).await;
            let ends =
                zip(dialer.connect(dialled, one.clock()), listener.accept(accepted, two.clock())).await;
            (ends.0, ends.1)
        };
        let (first, _kept) = connect().await;
        let first = first.unwrap();
        listener.replace(config("stranger", "ca"));
        assert!(matches!(connect().await.0, Err(TlsError::Refused(_))));
        let (sent, got) = zip(first.send(b"still", None), take(&two, &_kept.unwrap(), 5)).await;
        sent.unwrap();
        assert_eq!(got.unwrap(), b"still");
    });
}

#[test]
fn who_says_nothing_or_nonsense_is_dropped_in_time() {
    let world = World::new(4);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let listener = of("two", "ca");
        let (silent, accepted) = plain(&one, &two).await;
        let begun = two.clock().now();
        let outcome = listener.accept(accepted, two.clock()).await;
        assert!(matches!(outcome, Err(TlsError::TimedOut)), "{outcome:?}");
        assert!(two.clock().now() - begun <= HANDSHAKE_TIMEOUT * 2);
        drop(silent);
        for nonsense in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 200], vec![22, 3, 1, 0xff, 0xff]] {
            let (dialled, accepted) = plain(&one, &two).await;
            dialled.send(&nonsense, None).await.unwrap();
            let outcome = listener.accept(accepted, two.clock()).await;
            assert!(outcome.is_err(), "{nonsense:?}");
        }
    });
}

#[test]
fn handshakes_under_way_are_bounded_and_more_are_refused_at_once() {
    let world = World::new(5);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let listener = of("two", "ca");
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..HANDSHAKES_MAX {
            let (silent, accepted) = plain(&one, &two).await;
            held.push(silent);
            let (listener, two) = (listener.clone(), two.clone());
            let mut shaking = Box::pin(async move { listener.accept(accepted, two.clock()).await.err() });
            assert!(futures_lite::future::poll_once(&mut shaking).await.is_none());
            waiting.push(shaking);
        }
        let (_dialled, accepted) = plain(&one, &two).await;
        let refused = or(async { listener.accept(accepted, two.clock()).await.err() }, async { None }).await;
        assert!(matches!(refused, Some(TlsError::Busy(_))), "{refused:?}");
        drop(waiting);
        let (dialled, accepted) = plain(&one, &two).await;
        let again = zip(async { of("one", "ca").connect(dialled, one.clock()).await.is_ok() }, async {
            listener.accept(accepted, two.clock()).await.is_ok()
        });
        assert_eq!(again.await, (true, true));
    });
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_to_do() {
    let folder = std::env::temp_dir().join(format!("novabulk-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = folder.join("one.key");
    std::fs::copy(file("one.key"), &key).unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let load = || TlsConfig::load(&[file("ca.pem")], &file("one.pem"), &key);
    mode(0o640);
    let exposed = load().unwrap_err().to_string();
    assert!(
        exposed.contains("one.key") && exposed.contains("640") && exposed.contains("chmod 600"),
        "{exposed}"
    );
    mode(0o600);
    assert_eq!(load().unwrap().name().node(), "one");
    let missing =
        TlsConfig::load(&[folder.join("no-ca.pem")], &file("one.pem"), &key).unwrap_err().to_string();
    assert!(missing.contains("no-ca.pem"), "{missing}");
    let swapped = TlsConfig::load(&[file("ca.pem")], &file("two.pem"), &key);
    assert!(swapped.is_err(), "a key of another certificate");
    let text = TlsConfig::from_pem(b"nothing", &pem("one.pem"), &pem("one.key")).unwrap_err().to_string();
    assert!(text.contains("trusted CAs"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
}
