//! A store in memory that counts its calls and takes its time, as S3 does.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use okki_sync::testing::store::Store;

/// A store whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: InMemory,
    latency: Duration,
    calls: Mutex<Vec<String>>,
}

impl Counted {
    pub fn new(latency: Duration) -> Self {
        Self(Arc::new(Inner { memory: InMemory::new(), latency, calls: Mutex::default() }))
    }

    /// One program's way to it.
    pub fn store(&self) -> Store {
        Store::of(Arc::new(self.clone()), "memory:")
    }

    /// The calls since the last time, as `GET key` and `PUT key`.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.calls.lock().unwrap())
    }

    async fn called(&self, what: &str, path: &Path) {
        self.0.calls.lock().unwrap().push(format!("{what} {path}"));
        tokio::time::sleep(self.0.latency).await;
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted store")
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.called("PUT", path).await;
        self.0.memory.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.called("GET", path).await;
        self.0.memory.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.called("COPY", from).await;
        self.0.memory.copy_opts(from, to, options).await
    }
}
