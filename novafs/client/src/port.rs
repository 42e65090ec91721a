//! Many requests over one ring: numbers out, answers to whoever waits for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;

use nova_ring::abi::{BadSlot, Slot};
use nova_ring::{LOOK_AGAIN, Link, PushError, Receiver, Sender, Socket};

/// How one request ended; `None`: the peer went away first.
pub(crate) type Outcome<T> = (u64, Option<T>);

/// Where the outcomes of requests go.
pub(crate) type Inbox<T> = mpsc::Sender<Outcome<T>>;

#[derive(Debug)]
struct State<T> {
    sender: Sender,
    waiting: HashMap<u64, Inbox<T>>,
    next: u64,
    gone: bool,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    stop: AtomicBool,
    socket: Socket,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Nothing more comes: everyone who waits is told.
    fn lose(&self) {
        let mut state = self.state();
        state.gone = true;
        for (request, inbox) in state.waiting.drain() {
            // Who no longer listens need not know.
            let _ = inbox.send((request, None));
        }
        self.room.notify_all();
    }
}

/// One ring with a thread that hands out what comes back.
#[derive(Debug)]
pub(crate) struct Port<T> {
    shared: Arc<Shared<T>>,
    pump: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Port<T> {
    /// Starts the thread. `decode` gives the number of the request and the answer.
    pub(crate) fn start(
        sender: Sender,
        receiver: Receiver,
        socket: Socket,
        decode: fn(&Slot) -> Result<(u64, T), BadSlot>,
    ) -> std::io::Result<Self> {
        let state = State { sender, waiting: HashMap::new(), next: 1, gone: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            socket,
        });
        let pump = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("nova-answers".into())
                .spawn(move || pump(&shared, receiver, decode))?
        };
        Ok(Self { shared, pump: Some(pump) })
    }

    /// Sends the slot that `make` builds for the request's number; waits while as many requests are under way as the
    /// ring has slots. `None`: the peer is gone. Nothing of the request was then done or ever will be.
    pub(crate) fn submit(&self, inbox: &Inbox<T>, make: impl FnOnce(u64) -> Slot) -> Option<u64> {
        let mut state = self.shared.state();
        loop {
            if state.gone {
                return None;
            }
            if u32::try_from(state.waiting.len()).is_ok_and(|waiting| waiting < state.sender.capacity()) {
                break;
            }
            state = self.shared.room.wait(state).expect("no holder of this lock panics");
        }
        let request = state.next;
        state.next += 1;
        let slot = make(request);
        state.waiting.insert(request, inbox.clone());
        // At most as many requests as slots: the ring is only full while the peer has not yet taken answered ones.
        loop {
            match state.sender.push(slot) {
                Ok(()) => break,
                Err(PushError::Full(_)) if !state.gone => {
                    drop(state);
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    state = self.shared.state();
                }
                Err(_) => {
                    state.waiting.remove(&request);
                    drop(state);
                    self.end();
                    return None;
                }
            }
        }
        state.sender.ring();
        Some(request)
    }

    /// Ends the attachment; everyone who waits is told.
    pub(crate) fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.socket.end();
        self.shared.lose();
    }

    /// Whether the peer went away.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.state().gone
    }
}

impl<T> Drop for Port<T> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.socket.end();
        if let Some(pump) = self.pump.take() {
            // Within one look of the ring. A pump that panicked has said so.
            let _ = pump.join();
        }
    }
}

fn pump<T>(shared: &Shared<T>, mut receiver: Receiver, decode: fn(&Slot) -> Result<(u64, T), BadSlot>) {
    while !shared.stop.load(Ordering::Acquire) {
        let mut answers = Vec::new();
        let broken = loop {
            match receiver.pop() {
                Ok(Some(slot)) => match decode(&slot) {
                    Ok(answer) => answers.push(answer),
                    Err(_) => break true,
                },
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let idle = answers.is_empty();
        if !idle {
            let mut state = shared.state();
            for (request, answer) in answers {
                if let Some(inbox) = state.waiting.remove(&request) {
                    // Who no longer listens need not know.
                    let _ = inbox.send((request, Some(answer)));
                }
            }
            shared.room.notify_all();
        }
        if broken || (idle && (shared.socket.is_gone() || receiver.wait(LOOK_AGAIN).is_err())) {
            break;
        }
    }
    shared.socket.end();
    shared.lose();
}

/// The three parts of a link that a port needs, and the rest.
pub(crate) fn split(link: Link) -> (Sender, Receiver, Socket, nova_ring::ArenaView) {
    let Link { sender, receiver, socket, area, .. } = link;
    (sender, receiver, socket, area)
}
