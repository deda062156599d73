//! Rows that wait: those that deltas brought and that no window has shown, and windows that are not read again after all.
//! Pure.

use super::ledger::{Ledger, Waiting, Window};
use super::times::{LATEST, OLDEST, Seconds};

impl Ledger {
    /// Rows that a delta brings wait under this number; it asked for changes since this second. They can be of any time:
    /// created lately, by a clock that may be ahead of `now`, or brought back.
    pub(crate) fn expect_changes(&mut self, number: u32, since: Seconds) {
        let changed_since = Some(since);
        self.waiting.push(Waiting {
            number,
            from: OLDEST,
            to: LATEST,
            read_at_ms: None,
            rows: None,
            changed_since,
        });
    }

    /// Since when all that deltas brought and that still waits has changed; `None` if nothing of it waits.
    pub(crate) fn unplaced_since(&self) -> Option<Seconds> {
        self.waiting.iter().filter_map(|waiting| waiting.changed_since).min()
    }

    /// What still waits under this number is not looked for again.
    pub(crate) fn forget_change(&mut self, number: u32) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.number == number) {
            waiting.changed_since = None;
        }
    }

    /// A delta of this number that missed nothing asked again since `since`: the numbers of earlier deltas whose rows it
    /// would have brought, were they still there. They wait no longer.
    pub(crate) fn take_vanished(&mut self, delta: u32, since: Seconds) -> Vec<u32> {
        let is_gone = |waiting: &Waiting| {
            waiting.number < delta && waiting.changed_since.is_some_and(|changed| changed >= since)
        };
        let gone =
            self.waiting.iter().filter(|waiting| is_gone(waiting)).map(|waiting| waiting.number).collect();
        self.waiting.retain(|waiting| !is_gone(waiting));
        gone
    }

    /// Windows that were to be read again, and of which nothing was, are windows again. `rows`: how many rows carry a
    /// number; a window of which a delta took some stays a gap. They stay due as they were at `rolled_at_ms`.
    pub(crate) fn reinstate(&mut self, rows: impl Fn(u32) -> u64, rolled_at_ms: u64) {
        let mut back: Vec<Window> = Vec::new();
        let windows = &self.windows;
        self.waiting.retain(|waiting| match *waiting {
            Waiting { number, from, to, rows: Some(held), read_at_ms: Some(read_at_ms), .. }
                if rows(number) == held
                    && !windows.iter().chain(&back).any(|window| window.from <= to && from <= window.to) =>
            {
                back.push(Window { number, from, to, rows: held, read_at_ms, sure: true });
                false
            }
            _ => true,
        });
        if !back.is_empty() {
            self.rolled_at_ms = rolled_at_ms;
        }
        back.into_iter().for_each(|window| self.insert(window));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(number: u32, from: Seconds, to: Seconds) -> Window {
        Window { number, from, to, rows: 5, read_at_ms: 7, sure: true }
    }

    /// Whose window of five rows is to be read again, all but one that follows it.
    fn retired() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.insert(window(1, 0, 9));
        ledger.insert(window(2, 10, 19));
        ledger.retire(|window| window.number == 1);
        ledger
    }

    #[test]
    fn a_window_that_was_not_read_again_is_one_again_if_nobody_took_its_rows() {
        let mut ledger = retired();
        ledger.reinstate(|_| 5, 1_000);
        assert_eq!(ledger.windows, [window(1, 0, 9), window(2, 10, 19)]);
        assert_eq!((ledger.waiting.len(), ledger.rolled_at_ms), (0, 1_000));

        let mut ledger = retired();
        ledger.reinstate(|_| 4, 1_000);
        assert_eq!((ledger.windows.len(), ledger.waiting.len(), ledger.rolled_at_ms), (1, 1, 0));
    }

    #[test]
    fn a_window_of_which_a_part_was_read_again_stays_a_gap() {
        for (from, to) in [(0, 0), (9, 9), (3, 4)] {
            let mut ledger = retired();
            ledger.insert(window(3, from, to));
            ledger.reinstate(|_| 5, 1_000);
            assert_eq!((ledger.windows.len(), ledger.waiting.len()), (2, 1), "{from} {to}");
        }
    }

    #[test]
    fn a_delta_that_asks_again_tells_of_earlier_rows_that_have_changed_since() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.unplaced_since(), None);
        for (number, since) in [(3, 100), (4, 99), (5, 101), (9, 200)] {
            ledger.expect_changes(number, since);
        }
        ledger.expect(6, 0, 50);
        assert_eq!(ledger.unplaced_since(), Some(99));
        assert_eq!(ledger.take_vanished(9, 100), [3, 5]);
        let left: Vec<u32> = ledger.waiting.iter().map(|waiting| waiting.number).collect();
        assert_eq!(left, [4, 9, 6]);
        ledger.forget_change(4);
        assert_eq!(ledger.unplaced_since(), Some(200));
    }
}
