//! What is asked of the file metadata and what is told, on its way between a program and the files group.

use std::cell::RefCell;
use std::sync::Arc;

use nova_device::sync::Notify;
use novafs_namespace::{Answer, Code, EntryView, Failure, Inode, ListPage, Op, Totals};

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Change(Op),
    /// The leader chooses the groups.
    Reserve {
        session: u64,
        count: u32,
    },
    Renew(u64),
    List {
        path: String,
        after: String,
        limit: u32,
    },
    Open(String),
    OpenInode(u64),
    Usage(String),
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Answer(Answer),
    Page(ListPage),
    File(EntryView, Arc<Inode>),
    Totals(Totals),
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        Self::Answer(failure.into())
    }
}

impl Told {
    /// The refusal in it, if it is one.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Answer(answer) => answer.failure(),
            _ => None,
        }
    }

    /// It says nothing but that the same request may be sent again.
    pub(crate) fn is_again(&self) -> bool {
        self.failure().is_some_and(|it| matches!(it.code(), Code::Unavailable | Code::NoGroups))
    }

    /// The group has forgotten what it answered.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.failure().is_some_and(is_forgotten)
    }
}

/// A refusal because the answer that was once given is no longer kept.
pub(crate) fn is_forgotten(failure: &Failure) -> bool {
    failure.code() == Code::Invalid && failure.message.contains("older than the answers kept")
}

/// A request, however often it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// 0 for one that changes nothing.
    pub(crate) client: u64,
    pub(crate) sequence: u64,
    pub(crate) ask: Ask,
}

/// Where the answers to one request arrive; several may come when it was sent again.
#[derive(Debug, Default)]
pub(crate) struct Call {
    told: RefCell<Option<Told>>,
    came: Notify,
}

impl Call {
    /// Waits for an answer.
    pub(crate) async fn answered(&self) -> Told {
        loop {
            let told = self.told.borrow().clone();
            match told {
                Some(told) => return told,
                None => self.came.notified().await,
            }
        }
    }

    /// Forgets an answer that said only to send the request again.
    pub(crate) fn again(&self) {
        self.told.replace(None);
    }

    /// Takes an answer; tells whether it contradicts an earlier one.
    pub(crate) fn take(&self, told: Told, request: &Request) -> bool {
        let mut first = self.told.borrow_mut();
        if let Some(first) = first.as_ref().filter(|first| !first.is_again()) {
            let comparable = request.client != 0 && !told.is_again() && !told.is_forgotten();
            return comparable && told != *first;
        }
        *first = Some(told);
        self.came.notify_one();
        false
    }
}
