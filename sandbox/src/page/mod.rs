//! The sandbox's page: both sides side by side, buttons for what people do and what goes wrong, and the calls as they come.
//!
//! Rendered here; a little script asks again each second and swaps in what has changed. Without it the links and forms
//! work too. The page holds what is at the top and what was opened, so it stays small for a catalogue of any size.
//! Only this machine may look, and only the page itself may change anything ([`guard`]).

mod actions;
mod compare;
mod guard;
mod target_rows;
mod view;
mod words;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use maud::Markup;

use crate::Sandbox;
use actions::Form;
use compare::Comparison;
use view::View;
use words::Lang;

const MAX_BODY_BYTES: usize = 64 << 10;
/// Opened groups and products that a page remembers.
const MOST_OPEN: usize = 60;
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const COOKIE: &str = "okki-sandbox-lang";
/// Nothing from elsewhere; no foreign page may show this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Addresses that the page names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) okki: String,
    pub(crate) target: String,
}

/// The last comparison, with the versions of both sides that it is of: who only watches costs nothing.
type LastComparison = Mutex<Option<((u64, u64), Arc<Comparison>)>>;

struct Page {
    sandbox: Sandbox,
    addresses: Addresses,
    last: LastComparison,
}

impl Sandbox {
    /// The page to look at both sides and to play with them, as a router that is also a tower service. It answers this
    /// machine only.
    pub fn page(&self) -> Router {
        router(self, Addresses::default())
    }
}

/// The page as a router that is also a tower service.
pub(crate) fn router(sandbox: &Sandbox, addresses: Addresses) -> Router {
    let page = Arc::new(Page { sandbox: sandbox.clone(), addresses, last: LastComparison::default() });
    Router::new().fallback(move |request: Request| {
        let page = Arc::clone(&page);
        async move { page.answer(request).await }
    })
}

impl Page {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if let Some(why) = guard::refusal(&parts) {
            return send(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", format!("refused: {why}\n"));
        }
        let lang = language(&parts);
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/") => self.whole(&parts, lang),
            (&Method::GET, "/tree") => html(StatusCode::OK, view::tree(&self.view(&parts, lang))),
            (&Method::GET, "/now") => self.now(&parts, lang),
            (&Method::GET, "/style.css") => send(StatusCode::OK, "text/css; charset=utf-8", STYLE.to_owned()),
            (&Method::GET, "/script.js") => {
                send(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT.to_owned())
            }
            (&Method::POST, "/do") => match to_bytes(body, MAX_BODY_BYTES).await {
                Ok(body) => self.act(&parts, lang, &Form::read(&body)),
                Err(_) => html(StatusCode::PAYLOAD_TOO_LARGE, view::problem(lang, lang.words().bad_form)),
            },
            _ => html(StatusCode::NOT_FOUND, view::problem(lang, "404")),
        }
    }

    fn whole(&self, parts: &Parts, lang: Lang) -> Response {
        let mut response = html(StatusCode::OK, view::page(&self.view(parts, lang), &self.addresses));
        if query(parts, "lang").is_some() {
            let cookie = format!("{COOKIE}={}; SameSite=Strict; Path=/", lang.word());
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
        }
        response
    }

    /// What the script asks for each second: the calls, the counts, and whether the tree has changed.
    fn now(&self, parts: &Parts, lang: Lang) -> Response {
        let view = self.view(parts, lang);
        let parts = serde_json::json!({
            "version": view.version,
            "glance": view::glance(&view).into_string(),
            "calls": view::calls(&view).into_string(),
            "faults": view::waiting_faults(&view).into_string(),
        });
        send(StatusCode::OK, "application/json; charset=utf-8", parts.to_string())
    }

    /// The script wants an answer; a browser without it wants the page again.
    fn act(&self, parts: &Parts, lang: Lang, form: &Form) -> Response {
        let words = lang.words();
        let done = actions::act(&self.sandbox, form, words);
        let wants_json = parts.headers.get(header::ACCEPT).is_some_and(|accept| accept == "application/json");
        match (done, wants_json) {
            (Ok(()), true) => {
                send(StatusCode::OK, "application/json", serde_json::json!({"said": words.done}).to_string())
            }
            (Err(why), true) => {
                let text = serde_json::json!({"said": why}).to_string();
                send(StatusCode::BAD_REQUEST, "application/json", text)
            }
            (Ok(()), false) => {
                let mut response = send(StatusCode::SEE_OTHER, "text/plain", String::new());
                response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/"));
                response
            }
            (Err(why), false) => html(StatusCode::BAD_REQUEST, view::problem(lang, why)),
        }
    }

    fn view(&self, parts: &Parts, lang: Lang) -> View {
        let (version, comparison) = self.comparison();
        let open: BTreeSet<String> = query(parts, "open")
            .map(|open| {
                open.split(',').filter(|id| !id.is_empty()).take(MOST_OPEN).map(str::to_owned).collect()
            })
            .unwrap_or_default();
        let calls = self.sandbox.calls_after(0);
        let (state, _) = self.sandbox.state_now();
        View {
            lang,
            version: format!("{}.{}", version.0, version.1),
            comparison,
            open,
            calls,
            waiting_faults: state.faults.len(),
            latency_ms: state.options.latency.as_millis() as u64,
            edits_per_minute: state.options.edits_per_minute,
        }
    }

    fn comparison(&self) -> ((u64, u64), Arc<Comparison>) {
        let (version, catalogue, rows) = {
            let (state, _) = self.sandbox.state_now();
            let version = (state.revision, state.stats.rows_written);
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((of, comparison)) = last.as_ref().filter(|(of, _)| *of == version) {
                return (*of, Arc::clone(comparison));
            }
            let rows = state.qeasy.rows.copy();
            let rows = if rows.is_empty() { state.http_rows.copy() } else { rows };
            (version, state.catalogue.clone(), rows)
        };
        let compared = compare::compare(&catalogue, rows.iter().map(|(id, row)| (id.as_str(), &**row)));
        let compared = Arc::new(compared);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((version, Arc::clone(&compared)));
        (version, compared)
    }
}

fn query(parts: &Parts, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The language of the address, else of the cookie that it has left, else of the browser.
fn language(parts: &Parts) -> Lang {
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let cookie = text(header::COOKIE)
        .split(';')
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let asked = query(parts, "lang");
    asked
        .as_deref()
        .and_then(Lang::named)
        .or_else(|| cookie.and_then(Lang::named))
        .unwrap_or_else(|| Lang::accepted(text(header::ACCEPT_LANGUAGE)))
}

fn html(status: StatusCode, page: Markup) -> Response {
    send(status, "text/html; charset=utf-8", page.into_string())
}

fn send(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    for (name, value) in [
        ("content-type", kind),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
        // A form's Origin would be "null" under no-referrer.
        ("referrer-policy", "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
