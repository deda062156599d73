//! `GET /v1/product/list`: pages, filters, orders and totals, as documented or as the options say.

use std::collections::HashMap;

use axum::response::Response;

use super::index::{Filter, Order, TimeRange};
use super::permutation::mix;
use super::{rows, success};
use crate::beijing;
use crate::options::{ListOrder, Options, TimeFilter, Total};
use crate::response::okki_envelope;
use crate::state::SandboxState;

pub(super) fn answer(state: &mut SandboxState, now: u64, query: &HashMap<String, String>) -> Response {
    let asked = match ListQuery::of(query, &state.options) {
        Ok(asked) => asked,
        Err(message) => return okki_envelope(&state.options, now, Some(400), message, None),
    };
    state.okki.list_answers += 1;
    state.okki.listing.show_what_is_due(now);
    let order = order(state);
    let places = ((asked.page - 1).saturating_mul(asked.size), asked.size);
    let (found, positions) = state.okki.listing.page(&state.catalogue, asked.filter, order, places);
    let name = if state.options.total_item { "totalItem" } else { "count" };
    let mut data = format!("{{\"{name}\":{},\"list\":[", total(state, found));
    let listing = &state.okki.listing;
    let shown = &listing.shown(&state.catalogue).products;
    let page = positions.iter().filter_map(|at| shown.get(*at as usize));
    rows::products(&mut data, page, |id| listing.group_name(id), &state.options);
    data.push_str("]}");
    success(state, now, &data)
}

fn order(state: &SandboxState) -> Order {
    let seed = state.options.seed;
    match state.options.list_order {
        ListOrder::ById => Order::ById,
        ListOrder::NewestUpdateFirst => Order::NewestFirst { ties: Some(mix(seed, state.okki.list_answers)) },
        ListOrder::NewestUpdateFirstStable => Order::NewestFirst { ties: None },
        ListOrder::Shuffled => Order::Shuffled(mix(seed, state.okki.listing.revision())),
    }
}

/// The total as JSON.
fn total(state: &mut SandboxState, found: usize) -> String {
    let found = found as i64;
    match state.options.total {
        Total::Honest => found.to_string(),
        Total::Negative => (-found).to_string(),
        Total::Word => "\"many\"".to_owned(),
        Total::OneTooMany => (found + 1).to_string(),
        Total::Falling => {
            let total = found - state.okki.fallen;
            state.okki.fallen += 1;
            total.to_string()
        }
    }
}

/// What a list call asks for.
struct ListQuery {
    /// From 1.
    page: usize,
    size: usize,
    filter: Filter,
}

impl ListQuery {
    fn of(query: &HashMap<String, String>, options: &Options) -> Result<Self, &'static str> {
        let number = |name: &str, default: usize| match query.get(name) {
            Some(text) => text.parse::<usize>().ok().filter(|number| *number > 0),
            None => Some(default),
        };
        let (Some(page), Some(size)) = (number("start_index", 1), number("count", 20)) else {
            return Err("参数错误: start_index, count");
        };
        let product_type = query.get("product_type").and_then(|text| text.parse().ok());
        let filter = Filter {
            time: time_range(query, options)?,
            product_type: product_type.filter(|_| options.product_type_filter),
        };
        Ok(Self { page, size: size.min(options.max_page_size), filter })
    }
}

/// The range of the catalogue's own times that a call asks for; `None` if it asks for none or its filter is ignored.
fn time_range(query: &HashMap<String, String>, options: &Options) -> Result<Option<TimeRange>, &'static str> {
    let by_creation = match query.get("time_type").map(String::as_str) {
        None | Some("1") => false,
        Some("2") => true,
        Some(_) => return Err("参数错误: time_type"),
    };
    let time = |name: &str, ends_a_range: bool| {
        let time = query.get(name).map(|text| beijing::from_text(text, ends_a_range));
        if time == Some(None) { Err("参数错误: 时间格式") } else { Ok(time.flatten()) }
    };
    let (from, to) = (time("start_time", false)?, time("end_time", true)?);
    let (after_start, before_end, by_creation) = match options.filter {
        TimeFilter::Refused if by_creation || from.is_some() || to.is_some() => {
            return Err("参数错误: 不支持时间筛选");
        }
        TimeFilter::Ignored | TimeFilter::Refused => return Ok(None),
        TimeFilter::CreationIgnored if by_creation => return Ok(None),
        TimeFilter::CreationMeansUpdate => (0, 0, false),
        TimeFilter::Honoured | TimeFilter::CreationIgnored => (0, 0, by_creation),
        TimeFilter::StartExclusive => (1, 0, by_creation),
        TimeFilter::EndExclusive => (0, 1, by_creation),
        TimeFilter::BothExclusive => (1, 1, by_creation),
    };
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let offset = options.filter_clock_offset_s;
    Ok(Some(TimeRange {
        by_creation,
        from: from.map_or(i64::MIN, |from| from.saturating_sub(offset).saturating_add(after_start)),
        to: to.map_or(i64::MAX, |to| to.saturating_sub(offset).saturating_sub(before_end)),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::tests::log_in;
    use crate::tests::{call, small};
    use crate::{ListOrder, Sandbox, TimeFilter, Total};
    use serde_json::{Value, json};
    use std::collections::HashSet;

    const SECOND: i64 = 1_700_000_000;

    /// What the list answers, without the envelope.
    async fn list(sandbox: &Sandbox, token: &str, query: &str) -> Value {
        let uri = format!("/v1/product/list?{query}");
        let (_, reply) = call(sandbox.okki(), "GET", &uri, token, "").await;
        if reply["code"] == 200 { reply["data"].clone() } else { reply }
    }

    fn ids(reply: &Value) -> Vec<u64> {
        reply["list"].as_array().unwrap().iter().map(|row| row["product_id"].as_u64().unwrap()).collect()
    }

    /// The pages of a list, 100 rows each.
    async fn pages(sandbox: &Sandbox, token: &str, filter: &str) -> Vec<u64> {
        let mut found = Vec::new();
        for page in 1..=3 {
            let query = format!("start_index={page}&count=100&{filter}");
            found.extend(ids(&list(sandbox, token, &query).await));
        }
        found
    }

    /// 250 products, of which the first 150 were updated in one second and 150 to 179 one second later.
    fn with_ties(order: ListOrder) -> Sandbox {
        let sandbox = small(|options| options.list_order = order);
        sandbox.with_rng(|catalogue, _| {
            for (at, product) in catalogue.products.iter_mut().enumerate() {
                product.update_time = match at {
                    0..150 => SECOND,
                    150..180 => SECOND + 1,
                    _ => SECOND - at as i64,
                };
                product.create_time = SECOND - 86_400 - (at as i64 % 10);
            }
        });
        sandbox
    }

    fn product_id(at: usize) -> u64 {
        37_004_000_100 + at as u64 * 7
    }

    #[tokio::test]
    async fn the_newest_update_comes_first_and_ties_by_id_where_asked() {
        let sandbox = with_ties(ListOrder::NewestUpdateFirstStable);
        let (token, _) = log_in(&sandbox).await;
        let wanted: Vec<u64> = (150..180).chain(0..150).chain(180..250).map(product_id).collect();
        assert_eq!(pages(&sandbox, &token, "").await, wanted);
        let created = "time_type=2&start_time=2023-11-13&end_time=2023-11-14";
        assert_eq!(pages(&sandbox, &token, created).await, wanted, "within a range of creation times too");
        sandbox.edit(|catalogue| catalogue.products[200].name.push('!'));
        for filter in ["", created] {
            assert_eq!(pages(&sandbox, &token, filter).await[0], product_id(200), "an edited row jumps");
        }
    }

    #[tokio::test]
    async fn ties_have_another_order_in_each_request_and_a_seed_replays() {
        let mut reads = Vec::new();
        for _ in 0..2 {
            let sandbox = with_ties(ListOrder::NewestUpdateFirst);
            let (token, _) = log_in(&sandbox).await;
            reads.push(pages(&sandbox, &token, "").await);
        }
        assert_eq!(reads[0], reads[1]);
        let read = &reads[0];
        let first: HashSet<u64> = read[..30].iter().copied().collect();
        assert_eq!(first, (150..180).map(product_id).collect());
        assert_eq!(read[180..], (180..250).map(product_id).collect::<Vec<_>>());
        let tied: HashSet<u64> = read[30..180].iter().copied().collect();
        assert!(tied.len() < 150, "a page border within a second repeats rows and skips others");
    }

    #[tokio::test]
    async fn a_shuffled_list_is_whole_and_keeps_its_order_until_a_change() {
        let sandbox = with_ties(ListOrder::Shuffled);
        let (token, _) = log_in(&sandbox).await;
        let before = pages(&sandbox, &token, "").await;
        assert_eq!(pages(&sandbox, &token, "").await, before);
        assert_eq!(before.iter().collect::<HashSet<_>>().len(), 250);
        assert!(!before.is_sorted());
        assert!(sandbox.remove(&product_id(9).to_string()));
        let after = pages(&sandbox, &token, "").await;
        let kept: Vec<u64> = before.into_iter().filter(|id| *id != product_id(9)).collect();
        assert!(after.len() == 249 && after != kept);
    }

    #[tokio::test]
    async fn a_time_filter_does_what_its_option_says() {
        let sandbox = with_ties(ListOrder::ById);
        let (token, _) = log_in(&sandbox).await;
        // SECOND is 2023-11-15 06:13:20 in Beijing.
        let updated = "time_type=1&start_time=2023-11-15%2006:13:20&end_time=2023-11-15%2006:13:21";
        let created = "time_type=2&start_time=2023-11-14%2006:13:19&end_time=2023-11-14%2006:13:20";
        let unbounded = "time_type=2";
        for (filter, totals) in [
            (TimeFilter::Honoured, [180, 50, 250]),
            (TimeFilter::StartExclusive, [30, 25, 250]),
            (TimeFilter::EndExclusive, [150, 25, 250]),
            (TimeFilter::BothExclusive, [0, 0, 250]),
            (TimeFilter::Ignored, [250, 250, 250]),
            (TimeFilter::CreationIgnored, [180, 250, 250]),
            (TimeFilter::CreationMeansUpdate, [180, 0, 250]),
        ] {
            sandbox.set_options(|options| options.filter = filter);
            for (query, total) in [updated, created, unbounded].into_iter().zip(totals) {
                assert_eq!(list(&sandbox, &token, query).await["count"], total, "{filter:?} {query}");
            }
        }
        sandbox.set_options(|options| options.filter = TimeFilter::Refused);
        for query in [updated, created, unbounded] {
            assert_eq!(list(&sandbox, &token, query).await["code"], 400, "{query}");
        }
        assert_eq!(list(&sandbox, &token, "product_type=2").await["code"], Value::Null);
    }

    #[tokio::test]
    async fn a_type_filters_unless_it_is_ignored() {
        let sandbox = with_ties(ListOrder::NewestUpdateFirst);
        let (token, _) = log_in(&sandbox).await;
        let of_type = |wanted| {
            let products = sandbox.catalogue().products;
            products.iter().filter(|product| product.product_type == wanted).count() as u64
        };
        let created = "time_type=2&start_time=2023-11-13";
        for query in ["product_type=2".to_owned(), format!("product_type=2&{created}")] {
            assert_eq!(list(&sandbox, &token, &query).await["count"], of_type(2));
        }
        sandbox.set_options(|options| options.product_type_filter = false);
        assert_eq!(list(&sandbox, &token, "product_type=2").await["count"], 250);
    }

    #[tokio::test]
    async fn the_filter_can_speak_another_time_zone_than_now() {
        let sandbox = with_ties(ListOrder::ById);
        let (token, _) = log_in(&sandbox).await;
        sandbox.set_options(|options| {
            options.filter_clock_offset_s = -28_800;
            options.row_times = true;
        });
        let beijing = "time_type=1&start_time=2023-11-15%2006:13:20&end_time=2023-11-15%2006:13:20";
        let utc = "time_type=1&start_time=2023-11-14%2022:13:20&end_time=2023-11-14%2022:13:20";
        assert_eq!(list(&sandbox, &token, beijing).await["count"], 0);
        let reply = list(&sandbox, &token, utc).await;
        assert_eq!(
            (&reply["count"], &reply["list"][0]["update_time"]),
            (&json!(150), &json!("2023-11-14 22:13:20"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_commit_is_not_seen_before_its_time() {
        let sandbox = small(|options| options.visible_late_s = 30);
        let (token, _) = log_in(&sandbox).await;
        let (edited, removed) = (product_id(3), product_id(4));
        sandbox.edit(|catalogue| catalogue.products[3].name = "late".into());
        assert!(sandbox.remove(&removed.to_string()));
        sandbox.import(5);
        let seen = async || {
            let reply = list(&sandbox, &token, "count=100").await;
            let rows = reply["list"].as_array().unwrap();
            let named = rows.iter().any(|row| row["product_id"] == edited && row["name"] == "late");
            (reply["count"].as_u64(), named, rows.iter().any(|row| row["product_id"] == removed))
        };
        tokio::time::advance(std::time::Duration::from_secs(29)).await;
        assert_eq!(seen().await, (Some(250), false, true));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(seen().await, (Some(254), true, false));
        assert_eq!(sandbox.catalogue().products.len(), 254);
        sandbox.import(5);
        assert_eq!(seen().await.0, Some(254));
        sandbox.set_options(|options| options.visible_late_s = 0);
        assert_eq!(seen().await.0, Some(259));
    }

    #[tokio::test]
    async fn rows_come_without_times_and_some_have_no_creation_time() {
        let sandbox = small(|options| {
            options.untimed_rows = 7;
            options.list_order = ListOrder::ById;
            options.row_times = true;
        });
        let (token, _) = log_in(&sandbox).await;
        let reply = list(&sandbox, &token, "count=8").await;
        assert_eq!((&reply["count"], &reply["list"][6]["create_time"]), (&json!(250), &json!("")));
        assert_ne!(reply["list"][7]["create_time"], "");
        for query in ["time_type=2&start_time=1970-01-01", "time_type=2&end_time=2099-01-01"] {
            assert_eq!(list(&sandbox, &token, query).await["count"], 243);
        }
        assert_eq!(list(&sandbox, &token, "time_type=1&start_time=1970-01-01").await["count"], 250);
        sandbox.set_options(|options| options.row_times = false);
        let row = list(&sandbox, &token, "count=1").await["list"][0].clone();
        assert!(row.get("create_time").is_none() && row.get("update_time").is_none());
    }

    #[tokio::test]
    async fn a_total_can_be_nonsense() {
        let sandbox = small(|_| ());
        let (token, _) = log_in(&sandbox).await;
        for (total, wanted) in [
            (Total::Negative, json!([-250, -250])),
            (Total::Word, json!(["many", "many"])),
            (Total::Falling, json!([250, 249])),
            (Total::OneTooMany, json!([251, 251])),
            (Total::Honest, json!([250, 250])),
        ] {
            sandbox.set_options(|options| options.total = total);
            let first = list(&sandbox, &token, "").await["count"].clone();
            let second = list(&sandbox, &token, "").await["count"].clone();
            assert_eq!(json!([first, second]), wanted, "{total:?}");
        }
    }

    #[tokio::test]
    async fn the_synthetic_group_ends_the_groups() {
        let sandbox = small(|options| options.synthetic_group = true);
        let (token, _) = log_in(&sandbox).await;
        sandbox.simulate_edits();
        let (_, reply) = call(sandbox.okki(), "GET", "/v1/product/groups", &token, "").await;
        let last = reply["data"].as_array().unwrap().last().unwrap().clone();
        for (field, value) in [
            ("id", json!(0)),
            ("name", json!("未分组")),
            ("parent_id", json!(0)),
            ("layer", json!("1")),
            ("prefix", json!("0-")),
            ("create_time", json!("")),
            ("system_flag", json!(1)),
            ("is_sys", json!(1)),
        ] {
            assert_eq!(last[field], value, "{field}");
        }
        let reply = list(&sandbox, &token, "count=100").await;
        let rows = reply["list"].as_array().unwrap();
        let ungrouped = rows.iter().find(|row| row["group_id"] == 0).unwrap();
        assert_eq!(ungrouped["group_name"], "未分组");
    }
}
