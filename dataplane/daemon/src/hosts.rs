//! Speaking to hosts, this one included, and serving what they ask.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;

use nova_buf::{DmaBuf, Pool, SharedBuf};
use nova_device::{Handler, Incoming, PeerError, Peers, Reply, Request, Served, Shard};
use nova_units::NodeId;
use novabulk_link::Link;
use novafs_member::{Member, Service};
use novafs_replica::Answer;

/// The way to every host: over NovaBulk, or straight to this host's own member.
pub(crate) struct Hosts<S: Shard> {
    link: Link<S>,
    here: Rc<Here<S>>,
}

impl<S: Shard> Clone for Hosts<S> {
    fn clone(&self) -> Self {
        Self { link: self.link.clone(), here: Rc::clone(&self.here) }
    }
}

impl<S: Shard> std::fmt::Debug for Hosts<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("here", &self.here.node.get()).finish_non_exhaustive()
    }
}

/// The member of this host, which reaches other hosts through [`Hosts`].
type LocalMember<S> = Rc<Member<S, Hosts<S>>>;

/// What this host serves; the member is there once storage is up.
pub(crate) struct Here<S: Shard> {
    node: Cell<NodeId>,
    pool: Pool,
    member: RefCell<Option<LocalMember<S>>>,
}

impl<S: Shard> Here<S> {
    pub(crate) fn new(node: NodeId, pool: Pool) -> Rc<Self> {
        Rc::new(Self { node: Cell::new(node), pool, member: RefCell::new(None) })
    }

    /// From now on requests of other hosts reach `member`.
    pub(crate) fn take_member(&self, member: LocalMember<S>) {
        self.member.replace(Some(member));
    }
}

impl<S: Shard> Handler for Here<S> {
    async fn serve(&self, from: NodeId, request: Incoming) -> Served {
        let member = self.member.borrow().clone();
        match member {
            Some(member) => Service(member).serve(from, request).await,
            None => Served { head: Answer::NotMember.encode(), body: None },
        }
    }
}

impl<S: Shard> Hosts<S> {
    pub(crate) fn new(link: Link<S>, here: Rc<Here<S>>) -> Self {
        Self { link, here }
    }

    /// Carries a request to this host's own member, without a socket.
    async fn call_here(&self, request: Request) -> Result<Reply, PeerError> {
        let body = match request.body {
            Some(shared) => Some(own(&self.here.pool, shared).await),
            None => None,
        };
        let incoming = Incoming { head: request.head, body, priority: request.priority, hop: request.hop };
        // A member that is asked here may ask this host again: boxed and erased, or the future would contain itself.
        let here = Rc::clone(&self.here);
        let serving: Pin<Box<dyn Future<Output = Served>>> =
            Box::pin(async move { here.serve(here.node.get(), incoming).await });
        let served = serving.await;
        let body = match served.body {
            Some(shared) => Some(own(&self.here.pool, shared).await),
            None => None,
        };
        Ok(Reply { head: served.head, body })
    }
}

/// The bytes as a buffer of one owner: the same memory when nobody else holds it, else a copy.
async fn own(pool: &Pool, shared: SharedBuf) -> DmaBuf {
    match shared.try_thaw() {
        Ok(alone) => alone,
        Err(shared) => {
            let mut copy = pool.take(shared.len()).await;
            copy.copy_from_slice(&shared);
            if let Some(sums) = shared.page_sums() {
                copy.set_page_sums(sums.into());
            }
            copy
        }
    }
}

impl<S: Shard> Peers for Hosts<S> {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        if to == self.here.node.get() {
            return self.call_here(request).await;
        }
        self.link.call(to, request).await
    }
}
