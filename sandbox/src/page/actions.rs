//! What the page's buttons do. Each is one form; what it holds is checked here.

use std::collections::HashMap;
use std::time::Duration;

use super::words::Words;
use crate::faults::{Endpoint, Fault, FaultKind};
use crate::{Sandbox, Service};

/// Products that one import creates at most.
pub(super) const MOST_IMPORTED: usize = 10_000;
/// A thousand a second: more would only keep the sandbox busy with itself.
pub(super) const MOST_CHANGES_PER_MINUTE: f64 = 60_000.0;
pub(super) const MOST_LATENCY_MS: u64 = 60_000;
/// Calls that one fault strikes at most.
pub(super) const MOST_TIMES: u32 = 1_000;
const NAME_CHARS: usize = 500;

/// The calls that can be broken, by the words of the control endpoints.
pub(super) const ENDPOINTS: [(&str, Endpoint); 7] = [
    ("okki_token", Endpoint::OkkiToken),
    ("okki_groups", Endpoint::OkkiGroups),
    ("okki_products", Endpoint::OkkiProducts),
    ("qeasy_token", Endpoint::QeasyToken),
    ("qeasy_store", Endpoint::QeasyStore),
    ("qeasy_query", Endpoint::QeasyQuery),
    ("http_target", Endpoint::HttpTarget),
];

/// What can go wrong, by the same words.
pub(super) const FAULTS: [&str; 9] = [
    "status_500",
    "throttle",
    "not_json",
    "truncated",
    "lost_before",
    "lost_after",
    "slow_5s",
    "access_denied",
    "body_code",
];

fn fault_kind(word: &str) -> Option<FaultKind> {
    Some(match word {
        "status_500" => FaultKind::Status(500),
        "throttle" => FaultKind::Throttle { retry_after_seconds: Some(3) },
        "not_json" => FaultKind::NotJson,
        "truncated" => FaultKind::Truncated,
        "lost_before" => FaultKind::LostBefore,
        "lost_after" => FaultKind::LostAfter,
        "slow_5s" => FaultKind::Slow(Duration::from_secs(5)),
        "access_denied" => FaultKind::AccessDenied,
        "body_code" => FaultKind::BodyCode(500, "系统繁忙 system busy".to_owned()),
        _ => return None,
    })
}

/// The fields of a form.
pub(super) struct Form(HashMap<String, String>);

impl Form {
    pub(super) fn read(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map(|text| text.trim()).unwrap_or_default()
    }

    fn number<T: std::str::FromStr + PartialOrd>(&self, name: &str, least: T, most: T) -> Option<T> {
        self.text(name).parse().ok().filter(|number| (least..=most).contains(number))
    }
}

/// Does what a form asks for. `Err` says why not.
pub(super) fn act(sandbox: &Sandbox, form: &Form, words: &Words) -> Result<(), &'static str> {
    match form.text("do") {
        "day" => sandbox.simulate_edits(),
        "import" => {
            let rows = form.number("rows", 1, MOST_IMPORTED).ok_or(words.bad_number)?;
            sandbox.import(rows);
        }
        "edit" => edit(sandbox, form, words)?,
        "delete" if sandbox.remove(form.text("id")) => {}
        "delete" => return Err(words.gone),
        "restore" if sandbox.restore_last() => {}
        "restore" => return Err(words.none_deleted),
        "people" => {
            let rate = form.number("rate", 0.0, MOST_CHANGES_PER_MINUTE).ok_or(words.bad_number)?;
            sandbox.set_options(|options| options.edits_per_minute = rate);
        }
        "latency" => {
            let ms = form.number("ms", 0, MOST_LATENCY_MS).ok_or(words.bad_number)?;
            sandbox.set_options(|options| options.latency = Duration::from_millis(ms));
        }
        "lock_okki" => sandbox.lock_out(Service::Okki),
        "lock_target" => sandbox.lock_out(Service::Target),
        "revoke" => sandbox.revoke_tokens(),
        "break" => {
            let at = ENDPOINTS.iter().find(|(word, _)| *word == form.text("at")).map(|(_, at)| *at);
            let kind = fault_kind(form.text("kind"));
            let (Some(at), Some(kind)) = (at, kind) else { return Err(words.bad_form) };
            let times = form.number("times", 1, MOST_TIMES).ok_or(words.bad_number)?;
            sandbox.fault(Fault { at, kind, times, after: 0 });
        }
        "mend" => {
            sandbox.release();
            sandbox.clear_faults();
            sandbox.set_options(|options| options.latency = Duration::ZERO);
        }
        _ => return Err(words.bad_form),
    }
    Ok(())
}

fn edit(sandbox: &Sandbox, form: &Form, words: &Words) -> Result<(), &'static str> {
    let (name, cost) = (form.text("name").to_owned(), form.text("cost").to_owned());
    if name.chars().count() > NAME_CHARS {
        return Err(words.bad_name);
    }
    if !cost.is_empty() && !is_cost(&cost) {
        return Err(words.bad_cost);
    }
    let edited = sandbox.update(form.text("id"), |product| {
        product.name = name;
        product.cost = (!cost.is_empty()).then_some(cost);
    });
    if edited { Ok(()) } else { Err(words.gone) }
}

/// Digits as OKKI has them: its JSON is written with them as they are.
fn is_cost(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    digits(whole, 12) && digits(fraction, 6) && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::words::Lang;
    use super::*;
    use crate::tests::small;

    fn ask(sandbox: &Sandbox, form: &str) -> Result<(), &'static str> {
        act(sandbox, &Form::read(form.as_bytes()), Lang::En.words())
    }

    #[tokio::test(start_paused = true)]
    async fn every_button_does_what_it_says() {
        let sandbox = small(|_| ());
        let id = sandbox.catalogue().products[0].product_id.clone();
        ask(&sandbox, &format!("do=edit&id={id}&name=%3Cb%3E&cost=12.50")).unwrap();
        let product = sandbox.catalogue().products.iter().find(|product| product.product_id == id).cloned();
        assert_eq!(
            product.map(|product| (product.name, product.cost)),
            Some(("<b>".into(), Some("12.50".into())))
        );
        ask(&sandbox, "do=import&rows=7").unwrap();
        assert_eq!(sandbox.catalogue().products.len(), 257);
        ask(&sandbox, &format!("do=delete&id={id}")).unwrap();
        assert_eq!(sandbox.catalogue().products.len(), 256);
        ask(&sandbox, "do=restore").unwrap();
        assert!(sandbox.catalogue().products.iter().any(|product| product.product_id == id));
        let revision = sandbox.revision();
        ask(&sandbox, "do=day").unwrap();
        assert!(sandbox.revision() > revision);
        ask(&sandbox, "do=people&rate=60").unwrap();
        ask(&sandbox, "do=latency&ms=80").unwrap();
        ask(&sandbox, "do=lock_okki").unwrap();
        ask(&sandbox, "do=lock_target").unwrap();
        {
            let (state, now) = sandbox.state_now();
            assert_eq!((state.options.edits_per_minute, state.options.latency.as_millis()), (60.0, 80));
            assert_eq!(
                (state.okki.locked_until_ms, state.qeasy.limit.locked_until_ms),
                (now + 300_000, now + 300_000)
            );
        }
        for (endpoint, _) in ENDPOINTS {
            for fault in FAULTS {
                ask(&sandbox, &format!("do=break&at={endpoint}&kind={fault}&times=1")).unwrap();
            }
        }
        assert_eq!(sandbox.state().faults.len(), 63);
        ask(&sandbox, "do=mend").unwrap();
        let state = sandbox.state();
        assert_eq!(
            (state.faults.len(), state.okki.locked_until_ms, state.options.latency),
            (0, 0, Duration::ZERO)
        );
    }

    #[tokio::test]
    async fn what_a_form_should_not_hold_is_refused_and_changes_nothing() {
        let sandbox = small(|_| ());
        let revision = sandbox.revision();
        let id = sandbox.catalogue().products[0].product_id.clone();
        for form in
            ["", "do=nonsense", "do=import&rows=0", "do=import&rows=10001", "do=import", "do=people&rate=NaN"]
        {
            assert!(ask(&sandbox, form).is_err(), "{form}");
        }
        for form in
            ["do=latency&ms=-1", "do=break&at=x&kind=throttle&times=1", "do=delete&id=0", "do=restore"]
        {
            assert!(ask(&sandbox, form).is_err(), "{form}");
        }
        for cost in ["1e3", "-1", "1.", ".5", "007", "1.2345678", "1,5", "\"", "NaN"] {
            assert!(ask(&sandbox, &format!("do=edit&id={id}&name=x&cost={cost}")).is_err(), "{cost}");
        }
        assert!(ask(&sandbox, &format!("do=edit&id={id}&name={}&cost=1", "x".repeat(501))).is_err());
        assert_eq!(sandbox.revision(), revision);
    }
}
