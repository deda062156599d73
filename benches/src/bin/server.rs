//! `server`: a static OKKI and a static sink on one port. Raw sockets and slices of a prepared text, so that it is
//! far faster than whoever is measured against it; what it must work out (equality of outputs), it works out afterwards.
//!
//! Besides the two APIs: `/_bench/…` for run.py, and Lambda's `invocation/next`, which it notes and leaves open.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, Bytes, BytesMut};
use okki_sync_bench::catalogue::{Catalogue, beijing};
use okki_sync_bench::{content_length, number};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

struct Server {
    catalogue: Mutex<Arc<Catalogue>>,
    made_at: i64,
    sizes: (usize, usize),
    latency_ms: AtomicU64,
    first_ns: AtomicU64,
    reads: AtomicU64,
    posts: Mutex<Vec<Bytes>>,
    logins: AtomicU64,
}

struct Request {
    method: String,
    path: String,
    query: String,
    body: Bytes,
}

/// An answer's body in up to three pieces, so that rows are never copied.
#[derive(Default)]
struct Answer {
    head: String,
    rows: Bytes,
    tail: &'static str,
}

fn main() -> io::Result<()> {
    // As many threads as CPUs that this process may use: one, if it is pinned to one.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = if threads == 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?
    };
    runtime.block_on(serve())
}

async fn serve() -> io::Result<()> {
    let sizes = (number("groups", 200), number("products", 2_000));
    let made_at = unix_ns() as i64 / 1_000_000_000;
    let catalogue = Catalogue::generate(sizes.0, sizes.1, made_at);
    let listener = TcpListener::bind(("127.0.0.1", number("port", 0) as u16)).await?;
    let port = listener.local_addr()?.port();
    println!("{}", json!({"port": port, "product_bytes": catalogue.products.len()}));
    let server: &'static Server = Box::leak(Box::new(Server {
        catalogue: Mutex::new(Arc::new(catalogue)),
        made_at,
        sizes,
        latency_ms: AtomicU64::new(number("latency-ms", 0) as u64),
        first_ns: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        posts: Mutex::new(Vec::new()),
        logins: AtomicU64::new(0),
    }));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that goes away ends its connection, nothing else.
            let _ = connection(server, stream).await;
        });
    }
}

async fn connection(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        if !request.path.starts_with("/_bench/") {
            let _ = server.first_ns.compare_exchange(0, unix_ns(), Ordering::Relaxed, Ordering::Relaxed);
            let latency = server.latency_ms.load(Ordering::Relaxed);
            if latency > 0 {
                tokio::time::sleep(Duration::from_millis(latency)).await;
            }
        }
        if request.path == "/2018-06-01/runtime/invocation/next" {
            // The real one answers when an event comes; here none ever does.
            return std::future::pending().await;
        }
        let answer = server.answer(request);
        let length = answer.head.len() + answer.rows.len() + answer.tail.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{}",
            answer.head
        );
        let mut out = Bytes::from(head).chain(answer.rows).chain(Bytes::from(answer.tail));
        stream.write_all_buf(&mut out).await?;
    }
    Ok(())
}

async fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = buffer.split_to(end);
    let length = content_length(&head);
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        body: buffer.split_to(length).freeze(),
    }))
}

impl Server {
    fn answer(&self, request: Request) -> Answer {
        let catalogue = Arc::clone(&self.catalogue.lock().unwrap_or_else(PoisonError::into_inner));
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/oauth2/access_token") => {
                self.logins.fetch_add(1, Ordering::Relaxed);
                text(
                    r#"{"token_type":"Bearer","expires_in":28800,"access_token":"0123456789abcdef0123456789abcdef01234567"}"#,
                )
            }
            ("GET", "/v1/product/groups") => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                Answer { head: envelope(), rows: catalogue.groups.clone(), tail: "}" }
            }
            ("GET", "/v1/product/list") => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                list(&catalogue, &request.query)
            }
            ("POST", "/v2/oauth") => {
                self.logins.fetch_add(1, Ordering::Relaxed);
                text(
                    r#"{"success":true,"code":0,"message":"success","content":{"access_token":"fedcba9876543210","expires_in":7200}}"#,
                )
            }
            ("POST", path) if path.starts_with("/_bench/") => self.control(path, &request.query),
            ("GET", path) if path.starts_with("/_bench/") => self.control(path, &request.query),
            // Qeasy's store, and any path for a plain HTTP target.
            ("POST" | "PUT" | "PATCH", _) => {
                // Rows of the benchmark are flat, and no text in them holds a brace.
                let braces = memchr::memchr_iter(b'{', &request.body).count();
                let rows = braces - usize::from(request.body.starts_with(b"{"));
                self.posts.lock().unwrap_or_else(PoisonError::into_inner).push(request.body);
                let body = json!({"success": true, "code": 0, "message": "success", "content": {"inserted": rows, "failed": 0}});
                Answer { head: body.to_string(), ..Answer::default() }
            }
            _ => text(r#"{"code":404,"message":"接口不存在"}"#),
        }
    }

    fn control(&self, path: &str, query: &str) -> Answer {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            "/_bench/reset" => {
                posts.clear();
                for counter in [&self.first_ns, &self.reads, &self.logins] {
                    counter.store(0, Ordering::Relaxed);
                }
                self.latency_ms.store(
                    parameter(query, "latency_ms").and_then(|ms| ms.parse().ok()).unwrap_or(0),
                    Ordering::Relaxed,
                );
                text("{}")
            }
            "/_bench/stats" => {
                let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                let stats = json!({
                    "first_ns": count(&self.first_ns),
                    "reads": count(&self.reads),
                    "logins": count(&self.logins),
                    "posts": posts.len(),
                });
                Answer { head: stats.to_string(), ..Answer::default() }
            }
            "/_bench/digest" => Answer { head: digest(&posts).to_string(), ..Answer::default() },
            // Each body after its length: what `wire` sends.
            "/_bench/posts" => {
                let mut out = BytesMut::new();
                for post in posts.iter() {
                    out.extend_from_slice(&(post.len() as u32).to_le_bytes());
                    out.extend_from_slice(post);
                }
                Answer { rows: out.freeze(), ..Answer::default() }
            }
            "/_bench/change" => {
                let mut catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
                let mut changed = Catalogue::clone(&catalogue);
                changed.change_one(unix_ns() as i64 / 1_000_000_000);
                *catalogue = Arc::new(changed);
                text("{}")
            }
            "/_bench/restore" => {
                let mut catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
                *catalogue = Arc::new(Catalogue::generate(self.sizes.0, self.sizes.1, self.made_at));
                text("{}")
            }
            _ => text(r#"{"code":404}"#),
        }
    }
}

fn text(body: &'static str) -> Answer {
    Answer { tail: body, ..Answer::default() }
}

fn envelope() -> String {
    let now = beijing(unix_ns() as i64 / 1_000_000_000);
    format!(r#"{{"code":200,"message":"success","now":"{now}","data":"#)
}

fn list(catalogue: &Catalogue, query: &str) -> Answer {
    let whole = |name, default| {
        parameter(query, name).map_or(Some(default), |text| text.parse().ok().filter(|n| *n > 0))
    };
    let (Some(page), Some(size)) = (whole("start_index", 1), whole("count", 20)) else {
        return text(r#"{"code":400,"message":"参数错误: start_index, count"}"#);
    };
    let (from, to) = (parameter(query, "start_time"), parameter(query, "end_time"));
    if from.is_none() && to.is_none() {
        let head = format!(r#"{}{{"count":{},"list":["#, envelope(), catalogue.places.len());
        return Answer { head, rows: catalogue.page(page, size), tail: "]}}" };
    }
    // Times compare as text; a bare date as an end takes in its whole day.
    let by_creation = parameter(query, "time_type").as_deref() == Some("2");
    let wanted: Vec<&str> = catalogue
        .places
        .iter()
        .filter(|place| {
            let time = if by_creation { &place.created } else { &place.updated };
            from.as_ref().is_none_or(|from| time >= from)
                && to.as_ref().is_none_or(|to| time.get(..to.len()).unwrap_or(time) <= to.as_str())
        })
        .filter_map(|place| std::str::from_utf8(&catalogue.products[place.from..place.to]).ok())
        .collect();
    let rows: Vec<&str> = wanted.iter().skip((page - 1).saturating_mul(size)).take(size).copied().collect();
    let head = format!(r#"{}{{"count":{},"list":[{}"#, envelope(), wanted.len(), rows.join(","));
    Answer { head, rows: Bytes::new(), tail: "]}}" }
}

/// A parameter of a query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// What the sink holds: the last row of each id, whatever the order, the spelling of strings and the zeros of numbers
/// (Python's floats lose them). Equal rows give equal sums.
fn digest(posts: &[Bytes]) -> Value {
    let mut rows = std::collections::HashMap::new();
    let mut sent = 0_u64;
    for post in posts {
        let body: Value = serde_json::from_slice(post).unwrap_or_default();
        let list = body.get("content").or_else(|| body.get("groups")).unwrap_or(&body);
        for row in list.as_array().into_iter().flatten() {
            sent += 1;
            rows.insert(row["id"].as_str().unwrap_or_default().to_owned(), canonical(row));
        }
    }
    let sum =
        rows.values().fold(0_u64, |sum, row| sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(row.as_bytes())));
    json!({"rows": rows.len(), "sent": sent, "sum": format!("{sum:016x}")})
}

/// Sorted keys (serde_json's maps are sorted here), numbers as floats.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("{:?}", number.as_f64()),
        Value::Array(list) => list.iter().map(canonical).collect::<Vec<_>>().join(","),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}:{}", canonical(value)))
            .collect::<Vec<_>>()
            .join(";"),
        other => other.to_string(),
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
