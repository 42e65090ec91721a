//! The writers of an attachment: one for each key that something is written under.
//!
//! Asking the data plane may take seconds, as long as it has no key yet. Nobody who needs another key waits for that; who
//! needs the same one waits for the answer, and does not ask again.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nova_ring::abi::OpenedWriter;

use crate::error::ClientError;

/// How long the version that new blocks are sealed with is taken to be the current one without asking.
const CURRENT_KEY_FOR: Duration = Duration::from_secs(1);

/// Domain and version of a key.
pub(crate) type KeyName = (u32, u32);

#[derive(Debug, Default)]
pub(crate) struct Writers {
    open: Table<KeyName, OpenedWriter>,
    /// By the domain that was asked for; 0 is a domain of the edge's choice.
    current: Table<u32, (KeyName, Instant)>,
}

impl Writers {
    /// The current key of a domain, or what `ask` says it is.
    pub(crate) fn current(
        &self,
        domain: u32,
        deadline: Duration,
        ask: impl FnOnce() -> Result<KeyName, ClientError>,
    ) -> Result<KeyName, ClientError> {
        let is_fresh = |(_, asked): &(KeyName, Instant)| asked.elapsed() < CURRENT_KEY_FOR;
        // From when it was asked: what is answered late was true then.
        let asked = Instant::now();
        self.current.get(domain, deadline, is_fresh, || Ok((ask()?, asked))).map(|(key, _)| key)
    }

    /// The writer under a key, or what `open` opens.
    pub(crate) fn of(
        &self,
        key: KeyName,
        deadline: Duration,
        open: impl FnOnce() -> Result<OpenedWriter, ClientError>,
    ) -> Result<OpenedWriter, ClientError> {
        self.open.get(key, deadline, |_| true, open)
    }

    /// The writer under a key, if it is open.
    pub(crate) fn open_of(&self, key: KeyName) -> Option<OpenedWriter> {
        self.open.lock().known.get(&key).copied()
    }

    /// Forgets all of them. What is being asked for now is not remembered either.
    pub(crate) fn forget(&self) {
        self.open.forget();
        self.current.forget();
    }
}

/// Answers by what was asked for, each asked for by one thread at a time.
#[derive(Debug)]
struct Table<K, V> {
    state: Mutex<State<K, V>>,
    answered: Condvar,
}

#[derive(Debug)]
struct State<K, V> {
    known: HashMap<K, V>,
    asking: HashSet<K>,
    /// Raised when all are forgotten.
    age: u64,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        let state = State { known: HashMap::new(), asking: HashSet::new(), age: 0 };
        Self { state: Mutex::new(state), answered: Condvar::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> {
    fn get(
        &self,
        key: K,
        deadline: Duration,
        is_good: impl Fn(&V) -> bool,
        ask: impl FnOnce() -> Result<V, ClientError>,
    ) -> Result<V, ClientError> {
        let begun = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(known) = state.known.get(&key).filter(|known| is_good(known)) {
                return Ok(*known);
            }
            if state.asking.insert(key) {
                break;
            }
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let what = "wait for a writer that another thread opens";
                let last = "the data plane has not answered it".into();
                return Err(ClientError::Unavailable { what, waited: begun.elapsed(), last });
            }
            let waited = self.answered.wait_timeout(state, left);
            state = waited.expect("no holder of this lock panics").0;
        }
        let age = state.age;
        drop(state);
        let asking = Asking { table: self, key };
        let answer = ask()?;
        let mut state = self.lock();
        if state.age == age {
            state.known.insert(key, answer);
        }
        drop(state);
        drop(asking);
        Ok(answer)
    }

    fn forget(&self) {
        let mut state = self.lock();
        state.known.clear();
        state.age += 1;
    }
}

impl<K, V> Table<K, V> {
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Lets the next one ask, also when the answer was an error.
struct Asking<'table, K: Copy + Eq + Hash, V> {
    table: &'table Table<K, V>,
    key: K,
}

impl<K: Copy + Eq + Hash, V> Drop for Asking<'_, K, V> {
    fn drop(&mut self) {
        self.table.lock().asking.remove(&self.key);
        self.table.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    fn writer(number: u64) -> OpenedWriter {
        OpenedWriter { writer: number, key_domain: 1, key_version: 1 }
    }

    #[test]
    fn who_needs_another_key_does_not_wait_and_who_needs_the_same_one_does_not_ask() {
        let writers = &Writers::default();
        let (answer, answered) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            let slow = scope.spawn(move || {
                writers.of((1, 1), LONG, || {
                    begin.send(()).unwrap();
                    Ok(answered.recv_timeout(LONG).unwrap())
                })
            });
            begun.recv_timeout(LONG).unwrap();
            assert_eq!(writers.of((2, 1), LONG, || Ok(writer(2))).unwrap(), writer(2));
            assert_eq!(writers.open_of((1, 1)), None);
            let same = scope.spawn(|| writers.of((1, 1), LONG, || panic!("it is being asked for")));
            let impatient = writers.of((1, 1), Duration::from_millis(1), || panic!("it is being asked for"));
            assert!(matches!(impatient, Err(ClientError::Unavailable { .. })), "{impatient:?}");
            answer.send(writer(1)).unwrap();
            assert_eq!(slow.join().unwrap().unwrap(), writer(1));
            assert_eq!(same.join().unwrap().unwrap(), writer(1));
        });
    }

    #[test]
    fn an_error_is_not_remembered() {
        let writers = Writers::default();
        assert!(writers.of((1, 1), LONG, || Err(ClientError::Lost)).is_err());
        assert_eq!(writers.of((1, 1), LONG, || Ok(writer(3))).unwrap(), writer(3));
        assert_eq!(writers.open_of((1, 1)), Some(writer(3)));
    }

    #[test]
    fn what_was_asked_for_before_all_were_forgotten_is_not_remembered() {
        let writers = Writers::default();
        let answer = writers.of((1, 1), LONG, || {
            writers.forget();
            Ok(writer(1))
        });
        assert_eq!(answer.unwrap(), writer(1));
        assert_eq!(writers.open_of((1, 1)), None);
        assert_eq!(writers.current(1, LONG, || Ok((1, 4))).unwrap(), (1, 4));
        assert_eq!(writers.current(1, LONG, || panic!("it is fresh")).unwrap(), (1, 4));
        writers.forget();
        assert_eq!(writers.current(1, LONG, || Ok((1, 5))).unwrap(), (1, 5));
    }
}
