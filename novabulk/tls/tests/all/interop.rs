//! The records on the wire are those of TLS 1.3, as rustls and OpenSSL speak it.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nova_buf::{HugePages, Pool, PoolOptions};
use nova_device::uring::{Reactor, RealClock, TcpLane, TcpListener};
use nova_device::{Lane, LaneError, Listener};
use novabulk_tls::{ALPN, RECORDS_PER_KEY, TlsError, TlsLane};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ends::{config, file, pattern, pem, tls};

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

struct Here {
    reactor: Reactor,
    clock: RealClock,
    pool: Pool,
}

impl Here {
    fn new() -> Self {
        let reactor = Reactor::new().unwrap();
        let clock = RealClock::new(&reactor);
        let pool = Pool::new(PoolOptions { bytes: 8 << 20, huge: HugePages::Never }).unwrap();
        Self { reactor, clock, pool }
    }

    async fn take(&self, lane: &impl Lane, bytes: usize) -> Result<Vec<u8>, LaneError> {
        let (result, into) = lane.recv_exact(self.pool.try_take(bytes).unwrap(), bytes).await;
        result.map(|()| into[..bytes].to_vec())
    }

    async fn send(&self, lane: &impl Lane, head: &[u8], bytes: &[u8]) {
        let mut body = self.pool.try_take(bytes.len()).unwrap();
        body.copy_from_slice(bytes);
        lane.send(head, Some(body.freeze())).await.unwrap();
    }

    /// Lets in whoever `dial` makes connect.
    fn accept<T: Send + 'static>(
        &self,
        records_per_key: u64,
        dial: impl FnOnce(SocketAddr) -> T + Send + 'static,
    ) -> (Result<TlsLane<TcpLane>, TlsError>, thread::JoinHandle<T>) {
        let listener = TcpListener::bind(&self.reactor, LOOPBACK.into()).unwrap();
        let to = listener.address().0;
        let dialling = thread::spawn(move || dial(to));
        let secure = tls(config("two", "ca"), records_per_key);
        let accepted = self.reactor.run(async {
            let (lane, _) = listener.accept().await.unwrap();
            secure.accept(lane, &self.clock).await
        });
        (accepted, dialling)
    }
}

/// A client of rustls that shows the certificate of host one, with these versions of TLS and this protocol above.
fn rustls_client(to: SocketAddr, alpn: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&pem("one.pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&pem("one.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap());
    StreamOwned::new(connection.unwrap(), TcpStream::connect(to).unwrap())
}

#[test]
fn rustls_reads_what_we_seal_and_we_what_it_seals_over_several_keys() {
    let here = Here::new();
    let (lane, peer) = here.accept(5, |to| {
        let mut stream = rustls_client(to, ALPN);
        for round in 0..3 {
            let mut got = vec![0; 4 + 200_000];
            stream.read_exact(&mut got).unwrap();
            assert!(got[..4] == *b"head" && got[4..] == pattern(round, 200_000));
            stream.write_all(&pattern(round + 10, 150_000)).unwrap();
            // From here on it seals with another key, and asks for one of ours.
            stream.conn.refresh_traffic_keys().unwrap();
            stream.flush().unwrap();
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let mut end = [0; 1];
        assert_eq!(stream.read(&mut end).unwrap(), 0, "we ended in order too");
    });
    let lane = lane.unwrap();
    here.reactor.run(async {
        for round in 0..3 {
            here.send(&lane, b"head", &pattern(round, 200_000)).await;
            let got = here.take(&lane, 150_000).await.unwrap();
            assert!(got == pattern(round + 10, 150_000), "round {round}");
        }
        assert_eq!(here.take(&lane, 1).await, Err(LaneError::Closed));
        lane.shutdown().await.unwrap();
    });
    peer.join().unwrap();
}

#[test]
fn key_updates_without_end_and_without_data_close_the_connection() {
    let here = Here::new();
    let (lane, peer) = here.accept(RECORDS_PER_KEY, |to| {
        let mut stream = rustls_client(to, ALPN);
        stream.write_all(b"x").unwrap();
        for _ in 0..40 {
            stream.conn.refresh_traffic_keys().unwrap();
            if stream.flush().is_err() {
                break;
            }
        }
        stream
    });
    let lane = lane.unwrap();
    here.reactor.run(async {
        assert_eq!(here.take(&lane, 1).await.unwrap(), b"x");
        assert_eq!(here.take(&lane, 1).await, Err(LaneError::Forged));
    });
    drop(peer.join().unwrap());
}

#[test]
fn a_peer_that_speaks_something_else_above_tls_is_refused() {
    let here = Here::new();
    let (lane, peer) = here.accept(RECORDS_PER_KEY, |to| {
        let mut stream = rustls_client(to, b"h2");
        // The server ends the handshake with an alert.
        stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 1])).is_err()
    });
    assert!(matches!(lane, Err(TlsError::Refused(_) | TlsError::Protocol { .. })), "{lane:?}");
    drop(lane);
    assert!(peer.join().unwrap());
}

/// An `openssl` that ends with its owner.
struct Openssl(Child);

impl Openssl {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed; scripts/prepare.sh sees to it");
        Self(child)
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path(name: &str) -> String {
    file(name).to_str().unwrap().to_owned()
}

#[test]
fn openssl_dials_us_and_is_told_what_it_says() {
    let here = Here::new();
    let (lane, client) = here.accept(RECORDS_PER_KEY, |to| {
        let (ca, certificate, key) = (path("ca.pem"), path("one.pem"), path("one.key"));
        Openssl::start(&[
            "s_client",
            "-connect",
            &to.to_string(),
            "-tls1_3",
            "-alpn",
            "novabulk/1",
            "-CAfile",
            &ca,
            "-cert",
            &certificate,
            "-key",
            &key,
            "-verify_return_error",
            "-quiet",
        ])
    });
    let lane = lane.unwrap();
    let mut client = client.join().unwrap();
    assert_eq!(lane.peer().node(), "one");
    here.reactor.run(async {
        // A line that begins with `K` makes it change its key and ask for one of ours.
        client.0.stdin.as_mut().unwrap().write_all(b"good morning\n").unwrap();
        assert_eq!(here.take(&lane, 13).await.unwrap(), b"good morning\n");
        here.send(&lane, b"", &pattern(3, 100_000)).await;
        let mut got = vec![0; 100_000];
        client.0.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
        assert!(got == pattern(3, 100_000));
    });
}

#[test]
fn openssl_is_refused_without_a_certificate_and_with_tls_1_2() {
    for odd in [&["-tls1_3"][..], &["-tls1_2", "-cert", &path("one.pem"), "-key", &path("one.key")]] {
        let here = Here::new();
        let odd: Vec<String> = odd.iter().map(|&it| it.to_owned()).collect();
        let (lane, client) = here.accept(RECORDS_PER_KEY, move |to| {
            let to = to.to_string();
            let mut arguments = vec!["s_client", "-connect", &to, "-alpn", "novabulk/1"];
            arguments.extend(odd.iter().map(String::as_str));
            Openssl::start(&arguments)
        });
        assert!(matches!(lane, Err(TlsError::Refused(_))), "{lane:?}");
        drop(client.join().unwrap());
    }
}

#[test]
fn we_dial_openssl_and_hear_our_lines_backwards() {
    // It takes no port of its own choice.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (ca, certificate, key) = (path("ca.pem"), path("two.pem"), path("two.key"));
    let _server = Openssl::start(&[
        "s_server",
        "-accept",
        &port.to_string(),
        "-tls1_3",
        "-alpn",
        "novabulk/1",
        "-CAfile",
        &ca,
        "-cert",
        &certificate,
        "-key",
        &key,
        "-Verify",
        "1",
        "-verify_return_error",
        "-rev",
        "-num_tickets",
        "0",
    ]);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "openssl does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    let here = Here::new();
    here.reactor.run(async {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let lane = TcpLane::connect(&here.reactor, to).await.unwrap();
        let lane = tls(config("one", "ca"), 2).connect(lane, &here.clock).await.unwrap();
        assert_eq!(lane.peer().node(), "two");
        for word in ["abc", "novabulk", "sealed"] {
            lane.send(word.as_bytes(), None).await.unwrap();
            lane.send(b"\n", None).await.unwrap();
            let backwards: String = word.chars().rev().chain(['\n']).collect();
            assert_eq!(here.take(&lane, backwards.len()).await.unwrap(), backwards.as_bytes());
        }
    });
}
