//! How a sandbox behaves, and the credentials that it accepts.

use std::str::FromStr;
use std::time::Duration;

/// Which of the contradictory documented readings Qeasy's failures follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodeReading {
    /// The first code of each case under HTTP 200; throttled is HTTP 429 with rate-limit headers.
    #[default]
    A,
    /// The second code of each case, always under HTTP 200 and without headers.
    B,
    /// HTTP statuses with the second error body, `{"code","message","detail","requestId","timestamp"}`.
    C,
}

/// What a Qeasy scheme does with a row whose id it has. Its documentation leaves open how `/store` counts the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdCheck {
    /// The row replaces the old one.
    #[default]
    Off,
    /// The row is excluded and counted as failed.
    CountedAsFailed,
    /// The row is excluded and counted neither as inserted nor as failed.
    Excluded,
}

/// The order of the product list, which OKKI does not document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// By id, ascending.
    ById,
    /// By update time, newest first. Rows of one second come in another order for each request, so that a row can
    /// come twice, or not at all, at the border of two pages. The seed and the number of the request name that order.
    #[default]
    NewestUpdateFirst,
    /// By update time, newest first; rows of one second by id.
    NewestUpdateFirstStable,
    /// In any order, which each change of the catalogue changes.
    Shuffled,
}

/// What `time_type`, `start_time` and `end_time` do to the product list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeFilter {
    /// What is documented: both ends are inclusive.
    #[default]
    Honoured,
    /// `start_time` itself does not match.
    StartExclusive,
    /// `end_time` itself does not match.
    EndExclusive,
    /// Neither end matches.
    BothExclusive,
    /// They have no effect.
    Ignored,
    /// With `time_type` 2 (creation) they have no effect.
    CreationIgnored,
    /// `time_type` has no effect: they always mean the update time.
    CreationMeansUpdate,
    /// Body code 400.
    Refused,
}

/// The total that the product list gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Total {
    /// The number of products that match.
    #[default]
    Honest,
    /// That number below zero.
    Negative,
    /// The word `many`.
    Word,
    /// One less in each answer.
    Falling,
    /// One more than match.
    OneTooMany,
}

/// How often people do what, as weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeMix {
    /// A product gets another price.
    pub edits: u32,
    /// A product is created.
    pub creations: u32,
    /// A product is deleted.
    pub deletions: u32,
    /// A deleted product is brought back.
    pub restores: u32,
}

impl Default for ChangeMix {
    fn default() -> Self {
        Self { edits: 70, creations: 20, deletions: 10, restores: 0 }
    }
}

impl FromStr for ChangeMix {
    type Err = &'static str;

    /// `70:20:10`, and a fourth weight for restores if there are any.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let weights: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        let (edits, creations, deletions, restores) = match weights.as_deref() {
            Ok(&[edits, creations, deletions]) => (edits, creations, deletions, 0),
            Ok(&[edits, creations, deletions, restores]) => (edits, creations, deletions, restores),
            _ => return Err("expected three or four whole numbers, for example 70:20:10"),
        };
        if [edits, creations, deletions, restores].iter().all(|weight| *weight == 0) {
            return Err("at least one number must be above 0");
        }
        Ok(Self { edits, creations, deletions, restores })
    }
}

/// How the sandbox behaves. Seed, sizes, `dirty`, `untimed_rows` and `synthetic_group` count at the start only.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of catalogue, tokens and changes.
    pub seed: u64,
    /// Number of groups.
    pub groups: usize,
    /// Number of products.
    pub products: usize,
    /// Adds a handful of bad rows: blank id, blank name, repeated id, unknown group, missing parent, cycle.
    pub dirty: bool,
    /// The order of the product list.
    pub list_order: ListOrder,
    /// What the product list's time filter does.
    pub filter: TimeFilter,
    /// Whether the product list's `product_type` filters.
    pub product_type_filter: bool,
    /// How far the times of products, as the filter and the rows have them, are ahead of `now`. With -28,800 they are
    /// UTC while `now` is Beijing's time.
    pub filter_clock_offset_s: i64,
    /// How long after a change the product list shows it, as if it were committed late: until then a new product is
    /// missing, an edited one has its old form and a deleted one is still there.
    pub visible_late_s: u64,
    /// Changes are so late in every other minute only, as those of a large transaction are.
    pub late_now_and_then: bool,
    /// Whether products carry `create_time` and `update_time`; the documented ones do not.
    pub row_times: bool,
    /// So many products, the first by id, have no creation time: a range of creation times never matches them.
    pub untimed_rows: usize,
    /// The total of the product list.
    pub total: Total,
    /// The last of the groups, if there are at least two, is the synthetic group 0, 未分组, as OKKI's tree of customer
    /// groups has it. Every 25th product belongs to it.
    pub synthetic_group: bool,
    /// How many changes people make in a minute, on average and without end. Each comes at its own moment, which the
    /// seed decides, as the sandbox's clock goes on.
    pub edits_per_minute: f64,
    /// What these changes are.
    pub edit_mix: ChangeMix,
    /// Keeps every change of a single product, for [`crate::Sandbox::changes`]; it grows without bound.
    pub change_log: bool,
    /// The Qeasy scheme's idCheck.
    pub id_check: IdCheck,
    /// Whether the plain target merges the fields of a row into the row that it has.
    pub target_merges: bool,
    /// Life of an OKKI token.
    pub token_lifetime: Duration,
    /// Life of a Qeasy token.
    pub target_token_lifetime: Duration,
    /// Whether OKKI's token answer carries `expires_in`.
    pub expires_in: bool,
    /// Whether the app has the product module in OKKI's admin console. Without it no token's scopes hold `product`.
    pub product_module: bool,
    /// OKKI's ids (and layers) as strings instead of integers.
    pub ids_as_strings: bool,
    /// The product total is called `totalItem` instead of `count`.
    pub total_item: bool,
    /// OKKI's `code` of success; `None` leaves it out.
    pub success_code: Option<i64>,
    /// OKKI spells `msg` instead of `message`.
    pub msg_key: bool,
    /// OKKI's silent upper bound on the page size.
    pub max_page_size: usize,
    /// Qeasy's limit.
    pub calls_per_minute: u32,
    /// How long Qeasy refuses every call once the limit was passed.
    pub lockout: Duration,
    /// Shape of `/query` replies: 1 `content.list`, 2 `content.rows`, 3 `content` is the array,
    /// 4 as 2 with `total` next to `content`.
    pub query_shape: u8,
    /// Which failure codes Qeasy uses.
    pub codes: CodeReading,
    /// Time each call takes at least.
    pub latency: Duration,
    /// Keeps every row that the targets take, for [`crate::Sandbox::journal`]; it grows without bound.
    pub journal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            groups: 120,
            products: 3000,
            dirty: false,
            list_order: ListOrder::default(),
            filter: TimeFilter::default(),
            product_type_filter: true,
            filter_clock_offset_s: 0,
            visible_late_s: 0,
            late_now_and_then: false,
            row_times: false,
            untimed_rows: 0,
            total: Total::default(),
            synthetic_group: true,
            edits_per_minute: 0.0,
            edit_mix: ChangeMix::default(),
            change_log: false,
            id_check: IdCheck::Off,
            target_merges: false,
            token_lifetime: Duration::from_secs(28_800),
            target_token_lifetime: Duration::from_secs(7200),
            expires_in: true,
            product_module: true,
            ids_as_strings: false,
            total_item: false,
            success_code: Some(200),
            msg_key: false,
            max_page_size: 100,
            calls_per_minute: 60,
            lockout: Duration::from_secs(300),
            query_shape: 1,
            codes: CodeReading::A,
            latency: Duration::ZERO,
            journal: false,
        }
    }
}

/// The credentials that a sandbox accepts. They are not secrets: every sandbox starts with the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// OKKI client id.
    pub okki_client_id: String,
    /// OKKI client secret.
    pub okki_client_secret: String,
    /// Qeasy app key, 12 characters.
    pub qeasy_app_key: String,
    /// Qeasy app secret, 20 characters.
    pub qeasy_app_secret: String,
    /// Bearer token of the plain HTTP target.
    pub target_token: String,
    /// The Qeasy scheme that exists.
    pub scheme_id: String,
}

impl Credentials {
    pub(crate) fn standard() -> Self {
        Self {
            okki_client_id: "sandbox-client".into(),
            okki_client_secret: "sandbox-client-secret".into(),
            qeasy_app_key: "SANDBOXKEY01".into(),
            qeasy_app_secret: "sandboxsecret0123456".into(),
            target_token: "sandbox-target-token".into(),
            scheme_id: "0166a725-2b9a-30e4-91c5-3529176302c4".into(),
        }
    }

    /// The values that must never appear in a log.
    pub(crate) fn secrets(&self) -> Vec<String> {
        [&self.okki_client_secret, &self.qeasy_app_key, &self.qeasy_app_secret, &self.target_token]
            .map(Clone::clone)
            .to_vec()
    }
}
