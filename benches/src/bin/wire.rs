//! `wire`: the floor. The same requests and the same bytes in both directions over eight kept-alive sockets, in the same
//! phases; nothing is parsed, and the bodies of the POSTs come from a file.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use okki_sync_bench::{CONCURRENCY, PAGE_SIZE, STORE, content_length, number, option};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LOGIN: &str = r#"{"grant_type":"client_credentials","client_id":"bench","client_secret":"bench-secret","scope":"product"}"#;
const TARGET_LOGIN: &str = r#"{"app_key":"benchbenchbe","app_secret":"benchbenchbenchbench"}"#;
const TOKEN: &str = "authorization: Bearer 0123456789abcdef0123456789abcdef01234567\r\n";

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    async fn get(&mut self, path: &str) -> io::Result<()> {
        self.exchange(
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n{TOKEN}\r\n")
                .as_bytes(),
        )
        .await
    }

    async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{TOKEN}content-length: {}\r\n\r\n",
            body.len()
        );
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let end = loop {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
            if let Some(at) = memchr::memmem::find(&self.buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let mut left = content_length(&self.buffer[..end]).saturating_sub(filled - end);
        while left > 0 {
            match self.stream.read(&mut self.buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let url = option("url").expect("--url");
    let address = url.trim_start_matches("http://");
    let pages = number("products", 0).div_ceil(PAGE_SIZE);
    let posts = File::open(option("posts").expect("--posts"))?;
    let places = places(&posts)?;

    let mut first = Wire::connect(address).await?;
    first.post("/v1/oauth2/access_token", LOGIN.as_bytes()).await?;
    first.get("/v1/product/groups").await?;
    let page = |number: usize| format!("/v1/product/list?start_index={number}&count={PAGE_SIZE}");
    first.get(&page(1)).await?;

    let mut wires = vec![first];
    while wires.len() < CONCURRENCY {
        wires.push(Wire::connect(address).await?);
    }
    let next = Cell::new(2);
    futures::future::try_join_all(wires.iter_mut().map(async |wire| {
        while next.get() <= pages {
            let number = next.replace(next.get() + 1);
            wire.get(&page(number)).await?;
        }
        io::Result::Ok(())
    }))
    .await?;

    wires[0].post("/v2/oauth", TARGET_LOGIN.as_bytes()).await?;
    let next = Cell::new(0);
    futures::future::try_join_all(wires.iter_mut().map(async |wire| {
        let mut body = Vec::new();
        while let Some((at, length)) = places.get(next.get()) {
            next.set(next.get() + 1);
            body.resize(*length, 0);
            posts.read_exact_at(&mut body, *at)?;
            wire.post(STORE, &body).await?;
        }
        io::Result::Ok(())
    }))
    .await?;
    Ok(())
}

/// Where each body stands in the file, which holds its length before it.
fn places(file: &File) -> io::Result<Vec<(u64, usize)>> {
    let (end, mut at) = (file.metadata()?.len(), 0);
    let mut places = Vec::new();
    while at < end {
        let mut length = [0; 4];
        file.read_exact_at(&mut length, at)?;
        let length = u32::from_le_bytes(length);
        places.push((at + 4, length as usize));
        at += 4 + u64::from(length);
    }
    Ok(places)
}
