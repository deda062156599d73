//! The state behind a sandbox: one lock, held for moments and never across an await.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::calls::Calls;
use crate::catalogue::{Catalogue, Product};
use crate::faults::{Endpoint, Fault};
use crate::okki::{Change, OkkiState};
use crate::options::{Credentials, Options};
use crate::people::{PastChange, People};
use crate::qeasy::QeasyState;
use crate::stored_rows::StoredRows;

/// The window of [`Stats::max_target_calls_per_minute`].
const MINUTE_MS: u64 = 60_000;

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The source.
    Okki,
    /// Qeasy and the plain HTTP target.
    Target,
}

/// What the sandbox has counted. `/_sandbox/stats` prints it, so its JSON keys stay as they are.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Calls per endpoint, refused ones included.
    pub calls: BTreeMap<Endpoint, u64>,
    /// Rows that the targets took.
    pub rows_written: u64,
    /// Lockouts that callers provoked by exceeding the limit.
    pub lockouts: u64,
    /// Most calls to the target, token calls aside, in any 60 seconds.
    pub max_target_calls_per_minute: usize,
    /// Most calls to the target that were in flight at a time.
    pub max_target_calls_at_once: usize,
    /// Calls to OKKI, token aside, that were not GET, and the GET that deletes.
    pub okki_writes: u64,
    /// Calls of Qeasy's `dispatch-source` and `dispatch-target`: a GET that moves data.
    pub qeasy_dispatches: u64,
    /// Calls that Qeasy refused because a lockout had begun before them.
    #[serde(rename = "knocks")]
    pub calls_during_lockout: u64,
    /// Faults that struck, by kind.
    pub struck: BTreeMap<&'static str, u64>,
}

pub(crate) struct SandboxState {
    pub(crate) options: Options,
    pub(crate) credentials: Credentials,
    pub(crate) catalogue: Catalogue,
    /// Counts changes of the catalogue.
    pub(crate) revision: u64,
    pub(crate) faults: Vec<Fault>,
    /// Page shifts so far: odd ones overlap, even ones skip a row.
    pub(crate) shifts: u32,
    pub(crate) stats: Stats,
    recent_target_calls: VecDeque<u64>,
    target_calls_in_flight: usize,
    /// The last calls.
    pub(crate) calls: Calls,
    /// Secrets and tokens that were valid once.
    pub(crate) issued: Vec<String>,
    pub(crate) journal: Vec<(String, Box<RawValue>)>,
    /// Apart from the catalogue's generator, so that a catalogue does not depend on what else is drawn.
    pub(crate) rng: Rng,
    pub(crate) people: People,
    pub(crate) change_log: Vec<PastChange>,
    pub(crate) okki: OkkiState,
    pub(crate) qeasy: QeasyState,
    /// Rows of the plain HTTP target.
    pub(crate) http_rows: StoredRows,
}

impl SandboxState {
    pub(crate) fn new(options: Options, now_ms: u64) -> Self {
        let now_s = (now_ms / 1000) as i64;
        // It is one of the groups, so that the number of rows is the same with and without it.
        let synthetic = options.synthetic_group && options.groups > 1;
        let groups = options.groups - usize::from(synthetic);
        let mut catalogue = Catalogue::generate(options.seed, groups, options.products, options.dirty, now_s);
        if synthetic {
            catalogue.add_synthetic_group();
        }
        catalogue.forget_creation_times(options.untimed_rows);
        let credentials = Credentials::standard();
        let mut state = Self {
            rng: Rng::with_seed(options.seed ^ 0x5eed_0ff5),
            people: People::new(options.seed, now_ms),
            change_log: Vec::new(),
            okki: OkkiState::new(options.seed),
            options,
            catalogue,
            revision: 1,
            faults: Vec::new(),
            shifts: 0,
            stats: Stats::default(),
            recent_target_calls: VecDeque::new(),
            target_calls_in_flight: 0,
            calls: Calls::default(),
            issued: credentials.secrets(),
            credentials,
            journal: Vec::new(),
            qeasy: QeasyState::default(),
            http_rows: StoredRows::default(),
        };
        state.options_changed();
        state
    }

    pub(crate) fn options_changed(&mut self) {
        self.okki.listing.lag(self.options.visible_late_s > 0, &self.catalogue);
    }

    /// Changes one product at a time that has come. Returns the product that was there.
    pub(crate) fn change(&mut self, change: Change, at_ms: u64) -> Option<Product> {
        self.revision += 1;
        let shown_at_ms = self.shown_at_ms(at_ms);
        if self.options.change_log {
            self.change_log.extend(change.record(&self.catalogue, at_ms));
        }
        self.okki.listing.change(&mut self.catalogue, change, shown_at_ms)
    }

    fn shown_at_ms(&self, changed_at_ms: u64) -> u64 {
        let is_at_once = self.options.late_now_and_then && changed_at_ms / MINUTE_MS % 2 == 1;
        changed_at_ms + if is_at_once { 0 } else { self.options.visible_late_s * 1000 }
    }

    /// Changes the catalogue anyhow.
    pub(crate) fn change_anyhow(&mut self, f: impl FnOnce(&mut Catalogue, &mut Rng), now_ms: u64) {
        let given = self.catalogue.given_ids;
        f(&mut self.catalogue, &mut self.rng);
        self.catalogue.remember_ids(given);
        self.revision += 1;
        let shown_at_ms = self.shown_at_ms(now_ms);
        self.okki.listing.change_anyhow(&self.catalogue, shown_at_ms);
    }

    /// Gives a service new secrets and revokes its tokens.
    pub(crate) fn rotate_credentials(&mut self, service: Service) {
        let fresh = random_hex(&mut self.rng, 20);
        match service {
            Service::Okki => {
                self.credentials.okki_client_secret = fresh;
                self.okki.session = None;
            }
            Service::Target => {
                self.credentials.target_token = format!("target-{fresh}");
                self.credentials.qeasy_app_secret = fresh;
                self.qeasy.tokens.clear();
            }
        }
        self.issued.extend(self.credentials.secrets());
    }

    pub(crate) fn count_call(&mut self, at: Endpoint, now_ms: u64) {
        *self.stats.calls.entry(at).or_default() += 1;
        if at.service() == Service::Okki || at == Endpoint::QeasyToken {
            return;
        }
        self.recent_target_calls.push_back(now_ms);
        while self.recent_target_calls.front().is_some_and(|call| now_ms - call >= MINUTE_MS) {
            self.recent_target_calls.pop_front();
        }
        let most = &mut self.stats.max_target_calls_per_minute;
        *most = (*most).max(self.recent_target_calls.len());
    }

    pub(crate) fn begin_target_call(&mut self) {
        self.target_calls_in_flight += 1;
        let most = &mut self.stats.max_target_calls_at_once;
        *most = (*most).max(self.target_calls_in_flight);
    }

    pub(crate) fn end_target_call(&mut self) {
        self.target_calls_in_flight -= 1;
    }

    /// Notes a row that a target took.
    pub(crate) fn note_written(&mut self, id: &str, row: &RawValue) {
        self.stats.rows_written += 1;
        if self.options.journal {
            self.journal.push((id.to_owned(), row.to_owned()));
        }
    }
}

pub(crate) fn random_hex(rng: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| rng.digit(16)).collect()
}
