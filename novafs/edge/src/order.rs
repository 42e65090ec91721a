//! Who may change which units of a block now: in the order in which they came.
//!
//! A write that covers a unit only partly reads it, merges and seals it anew. Two of those must not meet, and a later
//! one must not overtake an earlier one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use nova_device::sync::Notify;

/// The order of the changes to one block.
#[derive(Debug, Default)]
pub(crate) struct Order {
    next: Cell<u64>,
    /// Ranges of units that are being changed or wait for it, by when they came.
    entered: RefCell<BTreeMap<u64, Range<u32>>>,
    left: Notify,
}

impl Order {
    /// Takes a place in the order at once; [`Turn::comes`] waits for it.
    pub(crate) fn enter(self: &Rc<Self>, units: Range<u32>) -> Turn {
        let number = self.next.get();
        self.next.set(number + 1);
        self.entered.borrow_mut().insert(number, units);
        Turn { order: Rc::clone(self), number }
    }

    /// How many change the block or wait for it.
    pub(crate) fn len(&self) -> usize {
        self.entered.borrow().len()
    }
}

/// A place in the order, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    order: Rc<Order>,
    number: u64,
}

impl Turn {
    /// Waits until everybody who came before and touches one of the same units has left.
    ///
    /// # Cancel safety
    /// Safe: the place is kept.
    pub(crate) async fn comes(&self) {
        loop {
            let left = self.order.left.notified();
            if self.is_first() {
                return;
            }
            left.await;
        }
    }

    fn is_first(&self) -> bool {
        let entered = self.order.entered.borrow();
        let mine = &entered[&self.number];
        entered.range(..self.number).all(|(_, before)| before.end <= mine.start || mine.end <= before.start)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.entered.borrow_mut().remove(&self.number);
        self.order.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn has_come(turn: &Turn) -> bool {
        block_on(poll_once(turn.comes())).is_some()
    }

    #[test]
    fn those_that_touch_wait_for_each_other_in_order_and_others_do_not() {
        let order = Rc::new(Order::default());
        let first = order.enter(0..4);
        let (second, apart) = (order.enter(3..5), order.enter(5..9));
        let (whole, last) = (order.enter(0..u32::MAX), order.enter(7..8));
        assert!(has_come(&first) && has_come(&apart));
        assert!(!has_come(&second) && !has_come(&whole) && !has_come(&last));
        drop(first);
        assert!(has_come(&second) && !has_come(&whole));
        drop((apart, second));
        assert!(has_come(&whole) && !has_come(&last), "a later one does not overtake");
        drop(whole);
        assert!(has_come(&last));
        assert_eq!(order.len(), 1);
    }

    #[test]
    fn who_goes_while_it_waits_holds_nobody_up() {
        let order = Rc::new(Order::default());
        let first = order.enter(0..1);
        let waiting = order.enter(0..1);
        let third = order.enter(0..1);
        drop((waiting, first));
        assert!(has_come(&third));
    }
}
