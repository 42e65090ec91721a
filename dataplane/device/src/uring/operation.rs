//! One operation as its future sees it.

use core::{
    fmt,
    future::Future,
    pin::Pin,
    ptr,
    task::{Context, Poll},
};
use std::rc::Rc;

use nova_buf::SharedBuf;

use super::{
    reactor::Inner,
    slots::{Key, Payload},
};

/// Waits for one operation. Dropped early, it leaves the operation to the reactor.
pub(super) struct Flight {
    reactor: Rc<Inner>,
    key: Option<Key>,
}

impl Flight {
    pub(super) fn new(reactor: Rc<Inner>, key: Key) -> Self {
        Self { reactor, key: Some(key) }
    }
}

impl Future for Flight {
    type Output = (i32, Payload);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("not polled after its result");
        match self.reactor.poll_operation(key, context.waker()) {
            Some(landed) => {
                self.key = None;
                Poll::Ready(landed)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.reactor.abandon(key);
        }
    }
}

/// A gather list of head and body for one `sendmsg`, with all it points to.
pub(super) struct Message {
    head: Vec<u8>,
    body: Option<SharedBuf>,
    sent: usize,
    parts: [libc::iovec; 2],
    header: libc::msghdr,
}

impl Message {
    pub(super) fn new(head: &[u8], body: Option<SharedBuf>) -> Box<Self> {
        let parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2];
        let header = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Box::new(Self { head: head.to_vec(), body, sent: 0, parts, header })
    }

    /// Bytes not sent yet.
    pub(super) fn left(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, |body| body.len()) - self.sent
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(self.sent <= self.head.len() + self.body.as_ref().map_or(0, |body| body.len()));
    }

    /// Points the gather list at what is left. The result is valid while `self` stays in its box and is not changed.
    pub(super) fn header(&mut self) -> *const libc::msghdr {
        let head = &self.head[self.sent.min(self.head.len())..];
        let body = self.body.as_deref().unwrap_or(&[]);
        let body = &body[self.sent.saturating_sub(self.head.len())..];
        for (part, bytes) in self.parts.iter_mut().zip([head, body]) {
            *part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = 2;
        &raw const self.header
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("left", &self.left()).finish_non_exhaustive()
    }
}
