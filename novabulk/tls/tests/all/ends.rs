//! Two hosts in one seeded world, and a connection between them.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use futures_lite::future::zip;
use nova_buf::{DmaBuf, HugePages, Pool, PoolOptions, SharedBuf};
use nova_device::mem::{HostOptions, MemLane, MemShard, World};
use nova_device::{Lane, LaneError, Listener, Shard};
use nova_units::PeerAddr;
use novabulk_tls::{SealedBy, Tls, TlsConfig, TlsError, TlsLane, TlsOptions};

pub(crate) const PORT: u16 = 7400;

pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

pub(crate) fn pem(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

/// What a host of this name shows; it trusts `ca`.
pub(crate) fn config(name: &str, ca: &str) -> TlsConfig {
    let (certificate, key) = (pem(&format!("{name}.pem")), pem(&format!("{name}.key")));
    TlsConfig::from_pem(&pem(&format!("{ca}.pem")), &certificate, &key).unwrap()
}

pub(crate) fn tls(config: TlsConfig, records_per_key: u64) -> Tls {
    tls_by(config, records_per_key, SealedBy::Here)
}

pub(crate) fn tls_by(config: TlsConfig, records_per_key: u64, sealed_by: SealedBy) -> Tls {
    let memory = Pool::new(PoolOptions { bytes: 16 << 20, huge: HugePages::Never }).unwrap();
    Tls::new(config, TlsOptions { records_per_key, sealed_by }, memory)
}

fn ip(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

pub(crate) fn host(world: &World, number: u8) -> MemShard {
    world.add_host(HostOptions { address: ip(number), pool_bytes: 64 << 20, ..HostOptions::default() })
}

/// A plain connection: the end that dialled, and the other.
pub(crate) async fn plain(dialer: &MemShard, listener: &MemShard) -> (MemLane, MemLane) {
    let listening = listener.listen(PORT);
    let to = PeerAddr(SocketAddr::new(listener.address(), PORT));
    let (dialled, accepted) = zip(dialer.connect(to), listening.accept()).await;
    (dialled.unwrap(), accepted.unwrap().0)
}

pub(crate) type Ends = (Result<TlsLane<MemLane>, TlsError>, Result<TlsLane<MemLane>, TlsError>);

/// Both ends shake hands; what `run` makes of them is the answer.
pub(crate) fn shaken<T: 'static, F: Future<Output = T> + 'static>(
    dialer: Tls,
    listener: Tls,
    run: impl FnOnce(MemShard, Ends) -> F + 'static,
) -> T {
    let world = World::new(1);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let (dialled, accepted) = plain(&one, &two).await;
        let ends = zip(dialer.connect(dialled, one.clock()), listener.accept(accepted, two.clock())).await;
        run(one, ends).await
    })
}

/// The two hosts of the test region, connected.
pub(crate) fn between<T: 'static, F: Future<Output = T> + 'static>(
    records_per_key: u64,
    run: impl FnOnce(MemShard, TlsLane<MemLane>, TlsLane<MemLane>) -> F + 'static,
) -> T {
    let (one, two) = (tls(config("one", "ca"), records_per_key), tls(config("two", "ca"), records_per_key));
    shaken(one, two, move |shard, (dialled, accepted)| run(shard, dialled.unwrap(), accepted.unwrap()))
}

pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; bytes];
    fill(seed, &mut bytes);
    bytes
}

fn fill(seed: u64, bytes: &mut [u8]) {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in bytes.chunks_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_be_bytes()[..chunk.len()]);
    }
}

pub(crate) fn body(shard: &MemShard, bytes: &[u8]) -> SharedBuf {
    let mut body = shard.pool().try_take(bytes.len()).unwrap();
    body.copy_from_slice(bytes);
    body.freeze()
}

pub(crate) fn room(shard: &MemShard, bytes: usize) -> DmaBuf {
    shard.pool().try_take(bytes).unwrap()
}

/// Exactly these bytes.
pub(crate) async fn take(shard: &MemShard, lane: &impl Lane, bytes: usize) -> Result<Vec<u8>, LaneError> {
    let (result, into) = lane.recv_exact(room(shard, bytes), bytes).await;
    result.map(|()| into[..bytes].to_vec())
}
