//! How hosts of files meet: everything that dials, listens or makes a [`Link`] stands here.

use core::cell::Cell;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::rc::Rc;

use nova_buf::{BufError, HugePages, Pool, PoolOptions};
use nova_device::uring::TcpListener;
use nova_device::{Clock as _, Listener as _, Shard as _};
use nova_shard::RealShard;
use nova_units::{BootId, NodeId, PeerAddr, TaskClass};
use novabulk_link::{Admitted, Link, LinkOptions, LocalIdentity};
use novabulk_tls::{Tls, TlsConfig, TlsCounters, TlsOptions};

use crate::end::{End, Remote};
use crate::host::{Host, Service};

/// Connections for bulk that a copy may have.
pub const STREAMS_MAX: u8 = 8;

/// Who answers at an address: a copy goes to an address, not to a host of a region.
const SERVER: NodeId = NodeId(u64::from_be_bytes(*b"novabulk"));
/// What a connection may hold in bodies of requests: 5 MiB, and the least for hops that files do not make.
const GRANTS: [u32; 3] = [20, 5, 5];
/// What all connections together may hold.
const RECEIVE_BYTES: u64 = 64 << 20;
/// Memory for sealed bytes; what is not used is never touched.
const SEALED_BYTES: u64 = 64 << 20;
/// A listener without resources is tried again after this.
const ACCEPT_PAUSE: core::time::Duration = core::time::Duration::from_millis(100);

/// How connections are made: under TLS, with whoever has a certificate of a CA that is trusted here. Which file of which
/// folder such a holder may have, a host's root and options say.
#[derive(Clone, Debug)]
pub struct Door {
    tls: Tls,
}

impl Door {
    /// Shows these certificates. What is sealed lies in memory of its own.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn new(certificates: TlsConfig) -> Result<Self, BufError> {
        let memory = Pool::new(PoolOptions { bytes: SEALED_BYTES, huge: HugePages::Never })?;
        Ok(Self { tls: Tls::new(certificates, TlsOptions::default(), memory) })
    }

    /// What was done to the bytes of all its connections.
    #[must_use]
    pub fn counters(&self) -> TlsCounters {
        self.tls.counters()
    }

    /// The host of files at `address`; connections are made when they are needed.
    #[must_use]
    pub fn dial(&self, shard: &RealShard, address: SocketAddr, streams: u8) -> End {
        let streams = usize::from(streams.clamp(1, STREAMS_MAX));
        let options = LinkOptions {
            connections_max: streams + 1,
            bulk_connections: streams,
            grants: GRANTS,
            receive_bytes: Some(RECEIVE_BYTES),
            ..LinkOptions::default()
        };
        // A number of its own for every copy: a host drops connections of an earlier life of the same caller.
        let local = LocalIdentity { node: NodeId(shard.random()), boot: BootId(shard.random()) };
        let link = self.made(shard, local, options);
        link.set_peers(BTreeMap::from([(SERVER, PeerAddr(address))]));
        End::There(Remote {
            link,
            node: SERVER,
            address,
            shard: shard.clone(),
            heard_at: Rc::new(Cell::new(None)),
        })
    }

    fn link(&self, shard: &RealShard) -> Link<RealShard> {
        let options =
            LinkOptions { grants: GRANTS, receive_bytes: Some(RECEIVE_BYTES), ..LinkOptions::default() };
        let local = LocalIdentity { node: SERVER, boot: BootId(shard.random()) };
        self.made(shard, local, options)
    }

    pub(crate) fn made(
        &self,
        shard: &RealShard,
        local: LocalIdentity,
        options: LinkOptions,
    ) -> Link<RealShard> {
        let link = Link::new(shard.clone(), local, options, self.tls.clone());
        link.admit(Admitted::Anyone);
        link
    }
}

/// Lets others copy from and to `host`, for as long as the shard lives.
pub fn serve(door: &Door, shard: &RealShard, listener: TcpListener, host: &Rc<Host>) {
    let link = door.link(shard);
    let service = Rc::new(Service(Rc::clone(host)));
    let on = shard.clone();
    shard.spawn(TaskClass::Control, async move {
        loop {
            match listener.accept().await {
                Ok((lane, from)) => link.accept(lane, from, Rc::clone(&service)),
                Err(_) => on.clock().sleep_until(on.clock().now() + ACCEPT_PAUSE).await,
            }
        }
    });
}
