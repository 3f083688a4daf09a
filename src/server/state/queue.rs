//! A queue whose first entry lies open: it is looked at several times for every message, and there is seldom another.

use std::collections::VecDeque;

/// A queue. While it has no more than one entry it has no memory of its own.
#[derive(Debug)]
pub(super) struct Queue<T> {
    first: Option<T>,
    /// Empty while there is no first.
    others: VecDeque<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            others: VecDeque::new(),
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn push_back(&mut self, entry: T) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.others.push_back(entry);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let next = self.others.pop_front();
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(super) fn back(&self) -> Option<&T> {
        self.others.back().or(self.first.as_ref())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.others)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Keeps those for which `keep` holds, which is asked once for each, in order.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.first = self.first.take().filter(&mut keep);
        self.others.retain(keep);
        if self.first.is_none() {
            self.first = self.others.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        Change(u8),
        /// Keeps those that are not divisible by it.
        Retain(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => any::<u8>().prop_map(Step::Push),
            2 => Just(Step::Pop),
            1 => any::<u8>().prop_map(Step::Change),
            1 => (2..5_u8).prop_map(Step::Retain),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in steps()) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            for step in steps {
                match step {
                    Step::Push(entry) => {
                        queue.push_back(entry);
                        model.push_back(entry);
                    }
                    Step::Pop => prop_assert_eq!(queue.pop_front(), model.pop_front()),
                    Step::Change(to) => {
                        for front in [queue.front_mut(), model.front_mut()].into_iter().flatten() {
                            *front = to;
                        }
                    }
                    Step::Retain(divisor) => {
                        let (mut asked, mut expected) = (Vec::new(), Vec::new());
                        queue.retain(|entry| { asked.push(*entry); !entry.is_multiple_of(divisor) });
                        model.retain(|entry| { expected.push(*entry); !entry.is_multiple_of(divisor) });
                        prop_assert_eq!(asked, expected);
                    }
                }
                prop_assert_eq!(queue.front(), model.front());
                prop_assert_eq!(queue.back(), model.back());
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(queue.iter().eq(&model));
            }
        }
    }
}
