//! What happens next: one heap, ordered by time and then by when it was put in.
//!
//! Nothing else decides an order, so the same seed gives the same run on every machine.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use weir_core::units::{Micros, Span};

/// The heap, and the true time that no process can see.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    now: Micros,
    entered: u64,
    heap: BinaryHeap<Reverse<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    at: Micros,
    number: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Self { now: Micros::EPOCH, entered: 0, heap: BinaryHeap::new() }
    }

    /// True time since the run began.
    pub(super) const fn now(&self) -> Micros {
        self.now
    }

    /// Puts something in for later.
    pub(super) fn after(&mut self, pause: Span, what: T) {
        self.at(self.now.plus(pause), what);
    }

    /// Puts something in for a moment; one that has passed means now.
    pub(super) fn at(&mut self, at: Micros, what: T) {
        self.entered += 1;
        let entry = Entry { at: at.max(self.now), number: self.entered, what };
        self.heap.push(Reverse(entry));
    }

    /// Takes out what is next and moves the time there.
    pub(super) fn next(&mut self) -> Option<T> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }

    /// How much is planned.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_first_comes_first_among_equals() {
        let mut agenda = Agenda::new();
        agenda.at(Micros::from_micros(5), "b");
        agenda.at(Micros::from_micros(3), "a");
        agenda.at(Micros::from_micros(5), "c");
        assert_eq!(agenda.next(), Some("a"));
        agenda.at(Micros::EPOCH, "late is now");
        assert_eq!(agenda.now(), Micros::from_micros(3));
        assert_eq!(agenda.next(), Some("late is now"));
        assert_eq!(agenda.now(), Micros::from_micros(3), "time never steps back");
        assert_eq!((agenda.next(), agenda.next(), agenda.next()), (Some("b"), Some("c"), None));
    }
}
