//! How the source of a world behaves while it is read, and how the program reads it. Drawn from a stream of random numbers
//! of its own, so that the other draws of a seed stay what they were.

use std::time::Duration;

use fastrand::Rng;
use okki_sync_sandbox::{ChangeMix, ListOrder, Options, TimeFilter};

/// What a world draws for its reads.
#[derive(Debug, Clone)]
pub struct Reading {
    pub order: ListOrder,
    pub filter: TimeFilter,
    pub clock_offset_s: i64,
    pub visible_late_s: u64,
    late_now_and_then: bool,
    row_times: bool,
    synthetic_group: bool,
    /// Changes in a minute, while people are at work.
    pub edits_per_minute: f64,
    mix: ChangeMix,
    /// In place of the pipeline's own, so that a small catalogue has dozens of pages.
    pub page_size: Option<u32>,
    /// Calls in a second, in place of the pipeline's own, so that a read takes longer than a run.
    pub pace: Option<f64>,
    /// A server's cap on the page size, so that a second may hold many pages.
    max_page_size: Option<usize>,
    /// Products without a creation time, for which windows cannot be used.
    untimed_rows: usize,
}

impl Reading {
    pub fn of(seed: u64) -> (Self, Rng) {
        let mut rng = Rng::with_seed(seed ^ 0x5ea_d1f6);
        let orders = [
            ListOrder::NewestUpdateFirst,
            ListOrder::NewestUpdateFirst,
            ListOrder::NewestUpdateFirstStable,
            ListOrder::ById,
            ListOrder::Shuffled,
        ];
        let is_steady = rng.bool();
        let is_late = rng.u8(0..8) < 2;
        let mut reading = Self {
            order: *rng.choice(&orders).unwrap(),
            filter: match rng.u8(0..24) {
                0 | 1 => TimeFilter::StartExclusive,
                2 => TimeFilter::EndExclusive,
                3 => TimeFilter::BothExclusive,
                4 => TimeFilter::Ignored,
                5 => TimeFilter::CreationIgnored,
                6 => TimeFilter::Refused,
                _ => TimeFilter::Honoured,
            },
            clock_offset_s: match rng.u8(0..10) {
                0 => -28_800,
                1 => 28_800,
                _ => 0,
            },
            visible_late_s: if is_late { *rng.choice(&[3, 30, 30, 90]).unwrap() } else { 0 },
            row_times: rng.u8(0..4) == 0,
            synthetic_group: rng.u8(0..4) == 0,
            edits_per_minute: if is_steady { *rng.choice(&[2.0, 10.0, 60.0]).unwrap() } else { 0.0 },
            mix: ChangeMix {
                edits: 60,
                creations: 15,
                deletions: 15,
                restores: *rng.choice(&[0, 10]).unwrap(),
            },
            page_size: (rng.u8(0..3) == 0).then(|| rng.u32(3..10)),
            pace: (rng.u8(0..3) == 0).then(|| *rng.choice(&[0.5, 1.0, 2.0]).unwrap()),
            max_page_size: (rng.u8(0..5) == 0).then(|| rng.usize(4..12)),
            untimed_rows: 0,
            late_now_and_then: false,
        };
        if is_late {
            reading.late_now_and_then = rng.u8(0..4) > 0;
            reading.edits_per_minute = *rng.choice(&[10.0, 60.0]).unwrap();
        }
        if reading.is_filtered() && rng.u8(0..10) < 2 {
            reading.untimed_rows = rng.usize(1..4);
            // A product that comes back leaves no trace in a source without windows. One that is created hides another one
            // that is deleted.
            reading.mix = ChangeMix { edits: 20, creations: 40, deletions: 40, restores: 0 };
            // New products come last: what is deleted before them moves all rows between.
            reading.order = ListOrder::ById;
        }
        // Without a filter and without an order that lasts, no way to read is left.
        if !reading.is_filtered() && reading.order == ListOrder::NewestUpdateFirst {
            reading.order = ListOrder::NewestUpdateFirstStable;
        }
        (reading, rng)
    }

    pub fn apply(&self, options: &mut Options) {
        options.list_order = self.order;
        options.filter = self.filter;
        options.filter_clock_offset_s = self.clock_offset_s;
        options.visible_late_s = self.visible_late_s;
        options.row_times = self.row_times;
        options.synthetic_group = self.synthetic_group;
        options.edits_per_minute = self.edits_per_minute;
        options.edit_mix = self.mix;
        options.late_now_and_then = self.late_now_and_then;
        options.untimed_rows = self.untimed_rows;
        options.change_log = true;
        options.max_page_size = self.max_page_size.unwrap_or(options.max_page_size);
    }

    /// People change few rows beside what can be read in the same time: the newest page must hold still for some calls.
    /// An empty catalogue gets its first products from them.
    pub fn keep_readable(&mut self, pace: f64, page_size: u32, products: usize) {
        let page = (page_size as usize).min(self.max_page_size.unwrap_or(usize::MAX));
        let rows = page.min(products.max(5)) as f64;
        self.edits_per_minute = self.edits_per_minute.min(rows * pace * 60.0 / 40.0);
    }

    /// People change no more than half of the rows that the target takes: else what waits for it grows, and so does the
    /// catalogue while it waits.
    pub fn keep_writable(&mut self, calls_per_minute: u32, max_rows_per_batch: u32) {
        let rows = f64::from(calls_per_minute * max_rows_per_batch);
        self.edits_per_minute = self.edits_per_minute.min(rows / 2.0);
    }

    /// Calls in which a read of so many pages comes further by a window at least: two windows of nine pages side by side,
    /// with their doubts. One second may hold everything (an import), and no run can go on in the middle of one: it is
    /// found by halving, and read in rounds where its rows have no lasting order.
    pub fn calls_for_a_window(&self, pages: u32) -> u32 {
        let rounds = if self.order == ListOrder::NewestUpdateFirst { 16 } else { 2 };
        80 + rounds * pages
    }

    pub fn is_steady(&self) -> bool {
        self.edits_per_minute > 0.0
    }

    /// Whether the filter can be used at all. If not, a read needs a catalogue that stands still, and one run.
    pub fn is_filtered(&self) -> bool {
        self.untimed_rows == 0 && self.can_be_asked_for_new_products()
    }

    /// Whether it has products without a creation time.
    pub fn is_untimed(&self) -> bool {
        self.untimed_rows > 0
    }

    /// Whether new products show in a filter, also where a read needs a catalogue that stands still: then nothing is
    /// deleted that a creation hid.
    pub fn can_be_asked_for_new_products(&self) -> bool {
        !matches!(self.filter, TimeFilter::Ignored | TimeFilter::CreationIgnored | TimeFilter::Refused)
    }

    /// Whether changes become visible later than the overlap of reads allows for. Then no read can know what is true, and
    /// only the windows that are read again bring it.
    pub fn is_too_late(&self) -> bool {
        self.visible_late_s > 50
    }

    /// Time for about so many calls to the source.
    pub fn time_for(&self, calls: u32, pace: f64) -> Duration {
        Duration::from_secs(6) + Duration::from_secs_f64(f64::from(calls) * (1.0 / pace + 0.05))
    }
}
