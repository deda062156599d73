//! A store in memory that fails on demand, before or after the effect, and notices a save over a version unread.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::store::Store;
use tempfile::TempDir;

use crate::pace::SourceCalls;

/// The object of a source's account.
const PACE: &str = "okki-sync pace";
/// One world in so many has a directory as its store.
const SHARE_OF_DIRECTORIES: u8 = 16;

/// What goes wrong with a call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// A read fails.
    Read,
    /// A write fails and has had no effect.
    WriteBefore,
    /// A write fails after it has had its effect.
    WriteAfter,
    /// A write takes that many seconds.
    SlowWrite(u64),
}

impl StoreFault {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "store read fails",
            Self::WriteBefore => "store write fails before the effect",
            Self::WriteAfter => "store write fails after the effect",
            Self::SlowWrite(_) => "store write is slow",
        }
    }
}

#[derive(Debug)]
struct Inner {
    memory: InMemory,
    /// In some worlds the store is a real directory, without faults.
    directory: Option<TempDir>,
    trouble: Mutex<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    rng: fastrand::Rng,
    /// Each with the number of calls that it lets pass first.
    faults: Vec<(StoreFault, u32)>,
    struck: BTreeMap<&'static str, u64>,
    /// The version that a process last read or wrote.
    known: HashMap<(u32, String), Option<String>>,
    lost_updates: Vec<String>,
    /// Who hears of a silence of the source that is stored, and by which clock.
    listener: Option<(SourceCalls, Clock)>,
}

/// The store that all processes of a world share.
#[derive(Debug, Clone)]
pub struct Objects(Arc<Inner>);

impl Objects {
    pub fn new(seed: u64) -> Self {
        let trouble = Trouble {
            rng: fastrand::Rng::with_seed(seed ^ 0x0570_12e5),
            faults: Vec::new(),
            struck: BTreeMap::new(),
            known: HashMap::new(),
            lost_updates: Vec::new(),
            listener: None,
        };
        let is_directory = fastrand::Rng::with_seed(seed ^ 0xd1_4ec7).u8(0..SHARE_OF_DIRECTORIES) == 0;
        let directory = is_directory.then(directory);
        Self(Arc::new(Inner { memory: InMemory::new(), directory, trouble: Mutex::new(trouble) }))
    }

    /// Whether it is a directory. What a process that dies has begun there, the operating system may end later, and in no
    /// order: nobody is killed in such a world, and its story may be told in another order.
    pub fn is_directory(&self) -> bool {
        self.0.directory.is_some()
    }

    /// A text without the directory's name, which is another one each time.
    pub fn anonymous(&self, text: &str) -> String {
        let name = self.0.directory.as_ref().map(|directory| directory.path().display().to_string());
        name.map_or_else(|| text.to_owned(), |name| text.replace(&name, "/store"))
    }

    /// The store as one process opens it.
    pub fn store(&self, process: u32) -> Store {
        match &self.0.directory {
            Some(directory) => Store::directory(directory.path().to_owned()).unwrap(),
            None => Store::of(self.door(process), "memory:"),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.0.trouble.lock().unwrap()
    }

    /// One process's way to the store.
    fn door(&self, process: u32) -> Arc<dyn ObjectStore> {
        Arc::new(Door { objects: self.clone(), process })
    }

    pub fn fault(&self, fault: StoreFault, after: u32) {
        self.trouble().faults.push((fault, after));
    }

    pub fn clear_faults(&self) {
        self.trouble().faults.clear();
    }

    pub fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.trouble().struck.clone()
    }

    pub fn lost_updates(&self) -> Vec<String> {
        self.trouble().lost_updates.clone()
    }

    /// Somebody listens to the silences of the source that are stored.
    pub fn tell_silences(&self, to: &SourceCalls, clock: Clock) {
        self.trouble().listener = Some((to.clone(), clock));
    }

    fn hear(&self, path: &Path, bytes: &[u8]) {
        let Some((listener, clock)) = &self.trouble().listener else { return };
        if !path.as_ref().starts_with("limits/") {
            return;
        }
        let object: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if let Some(until_ms) = object["blocked_until_ms"].as_u64().filter(|_| object["format"] == PACE) {
            listener.stored_silence(clock.until_ms(until_ms));
        }
    }

    /// What an object holds, past all faults.
    pub async fn look(&self, path: &str) -> Option<Bytes> {
        if let Some(directory) = &self.0.directory {
            return std::fs::read(directory.path().join(path)).ok().map(Bytes::from);
        }
        let found = self.0.memory.get(&Path::from(path)).await.ok()?;
        found.bytes().await.ok()
    }

    /// All objects, past all faults.
    pub async fn all(&self) -> Vec<(String, Bytes)> {
        if let Some(directory) = &self.0.directory {
            return files_below(directory.path());
        }
        let mut all = Vec::new();
        let mut paths = self.0.memory.list(None);
        while let Some(Ok(meta)) = paths.next().await {
            let bytes = self.look(meta.location.as_ref()).await.unwrap_or_default();
            all.push((meta.location.to_string(), bytes));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn strikes(&self, wanted: impl Fn(StoreFault) -> bool) -> Option<StoreFault> {
        let mut trouble = self.trouble();
        let at = trouble.faults.iter().position(|(fault, _)| wanted(*fault))?;
        let (fault, after) = trouble.faults[at];
        if after > 0 {
            trouble.faults[at].1 -= 1;
            return None;
        }
        trouble.faults.remove(at);
        *trouble.struck.entry(fault.name()).or_default() += 1;
        Some(fault)
    }

    async fn pass_time(&self) {
        let millis = self.trouble().rng.u64(1..8);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// In memory, where there is such a place: a disk would be waited for.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn files_below(root: &std::path::Path) -> Vec<(String, Bytes)> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.push((name, std::fs::read(&path).unwrap_or_default().into()));
            }
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

#[derive(Debug)]
struct Door {
    objects: Objects,
    process: u32,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

fn broken(path: &Path) -> Error {
    Error::Generic { store: "simulated", source: format!("{path}: 503 Slow Down").into() }
}

impl Door {
    fn memory(&self) -> &InMemory {
        &self.objects.0.memory
    }

    fn knows(&self, path: &Path, version: Option<String>) {
        self.objects.trouble().known.insert((self.process, path.to_string()), version);
    }

    /// A save of a state or a lease must be on top of the version that this process has read or written last.
    fn check_save(&self, path: &Path, now: &Option<String>) {
        if !path.as_ref().ends_with(".state") && !path.as_ref().ends_with(".run") {
            return;
        }
        let mut trouble = self.objects.trouble();
        let known = trouble.known.get(&(self.process, path.to_string())).cloned().flatten();
        if now.is_some() && known != *now {
            let process = self.process;
            trouble
                .lost_updates
                .push(format!("process {process} saved {path} over version {now:?}, it knew {known:?}"));
        }
    }
}

#[async_trait]
impl ObjectStore for Door {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.pass_time().await;
        let fault = self.objects.strikes(|fault| fault != StoreFault::Read);
        match fault {
            Some(StoreFault::WriteBefore) => return Err(broken(path)),
            Some(StoreFault::SlowWrite(seconds)) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            _ => {}
        }
        let before = self.memory().head(path).await.ok().and_then(|meta| meta.e_tag);
        let bytes: Bytes = payload.clone().into();
        let put = self.memory().put_opts(path, payload, options).await?;
        self.objects.hear(path, &bytes);
        self.check_save(path, &before);
        // The answer takes time too: a process that dies now has saved without knowing it.
        self.objects.pass_time().await;
        if fault == Some(StoreFault::WriteAfter) {
            return Err(broken(path));
        }
        self.knows(path, put.e_tag.clone());
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory().put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.pass_time().await;
        if self.objects.strikes(|fault| fault == StoreFault::Read).is_some() {
            return Err(broken(path));
        }
        let got = self.memory().get_opts(path, options).await;
        match &got {
            Ok(found) => self.knows(path, found.meta.e_tag.clone()),
            Err(_) => self.knows(path, None),
        }
        got
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory().delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory().list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.pass_time().await;
        let fault = self.objects.strikes(|fault| fault != StoreFault::Read);
        if fault == Some(StoreFault::WriteBefore) {
            return Err(broken(to));
        }
        self.memory().copy_opts(from, to, options).await?;
        if fault == Some(StoreFault::WriteAfter) { Err(broken(to)) } else { Ok(()) }
    }
}
