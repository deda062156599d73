//! Who may talk to the page: a browser on this machine that was led here by the page itself.
//!
//! A foreign site can make a browser call this machine. Its name in `Host` gives away one that was bound to 127.0.0.1
//! (DNS rebinding); `Origin` and `Sec-Fetch-Site` give away one that posts a form (CSRF). Programs send neither.

use http::request::Parts;
use http::{Method, header};

/// Why a request is refused; `None` if it is welcome.
pub(super) fn refusal(parts: &Parts) -> Option<&'static str> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_this_machine(host) {
        return Some("the Host header names another machine");
    }
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let value = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_own_origin = |origin: &str| origin == format!("http://{host}");
    if value("origin").is_some_and(|origin| !is_own_origin(origin)) {
        return Some("the Origin header names another site");
    }
    if value("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Some("another site sent this request");
    }
    None
}

fn is_this_machine(host: &str) -> bool {
    let is_port = |text: &str| {
        text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    let names = ["127.0.0.1", "localhost", "[::1]"];
    names.iter().any(|name| host.strip_prefix(name).is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(()).unwrap().into_parts().0).is_some()
    }

    #[test]
    fn a_foreign_host_is_refused_for_reading_too() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:80"] {
            assert!(!refused("GET", &[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "127.0.0.1:x", "", "127.0.0.2"]
        {
            assert!(refused("GET", &[("host", host)]), "{host}");
        }
        assert!(refused("GET", &[]));
    }

    #[test]
    fn a_change_is_refused_where_another_site_asks_for_it() {
        let post =
            |headers: &[(&str, &str)]| refused("POST", &[&[("host", "localhost:9")], headers].concat());
        assert!(!post(&[]), "a program");
        assert!(!post(&[("origin", "http://localhost:9"), ("sec-fetch-site", "same-origin")]));
        for origin in ["http://evil.example", "null", "https://localhost:9", "http://localhost:8"] {
            assert!(post(&[("origin", origin)]), "{origin}");
        }
        assert!(post(&[("sec-fetch-site", "cross-site")]) && post(&[("sec-fetch-site", "same-site")]));
    }
}
