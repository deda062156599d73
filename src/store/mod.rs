//! The store: pipelines, state, reports and quarantine on S3, in a directory, or in memory, with save-if-unchanged.
//!
//! What has to survive two runs at once is saved on top of the version that was read (compare-and-swap); S3 and memory
//! do it in one call, a directory under a lock file. Deliberately absent: deleting. What is old goes by the bucket's lifecycle
//! rules. Every key is known ([`paths`]) but for those of runs, which people's commands list ([`listing`]).

pub(crate) mod lease;
pub(crate) mod limits;
mod listing;
pub(crate) mod paths;
pub(crate) mod stretches;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attribute, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::testing::Mutant;
use crate::words::{Message, say};

/// A place for objects, by their keys.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Only for a directory: it has no conditional put, so a lock file takes its place.
    directory: Option<PathBuf>,
    name: String,
}

/// The version of an object that was read. A save on top of it fails if the object has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(Option<String>);

/// The operating system's lock on a connection, which it releases when the process ends, however it ends.
#[derive(Debug)]
pub enum RunLock {
    /// This process has it, as long as the file is open.
    Ours(std::fs::File),
    /// Another process has it.
    Theirs,
    /// There is none: the store is not a directory.
    Absent,
}

impl Store {
    /// A store in memory, which ends with the program.
    pub fn memory() -> Self {
        Self::of(Arc::new(object_store::memory::InMemory::new()), "memory:")
    }

    /// A store of any kind that has conditional puts.
    pub fn of(objects: Arc<dyn ObjectStore>, name: &str) -> Self {
        Self { objects, directory: None, name: name.to_owned() }
    }

    /// A store in a directory, which is created. What is saved is on the disk: a power cut leaves no empty state behind.
    pub fn directory(path: PathBuf) -> Result<Self> {
        let name = format!("file://{}", path.display());
        let fail = |why: String| {
            Error::new(ErrorKind::Store, say!("store {name}: {why}", name, why))
                .help(say!("set OKKI_SYNC_STORE to a directory that can be written"))
        };
        create_for_owner(&path).map_err(|error| fail(error.to_string()))?;
        let path = path.canonicalize().map_err(|error| fail(error.to_string()))?;
        let objects = object_store::local::LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| fail(error.to_string()))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(objects), directory: Some(path), name })
    }

    /// A store on S3, under a prefix.
    pub fn s3(objects: object_store::aws::AmazonS3, bucket: &str, prefix: &str) -> Self {
        let objects = object_store::prefix::PrefixStore::new(objects, prefix);
        Self { objects: Arc::new(objects), directory: None, name: format!("s3://{bucket}/{prefix}") }
    }

    /// Whether a save costs no more than writing a file.
    pub fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// The address, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The outer causes repeat the address and the retries; the innermost one says what happened.
    fn error(&self, path: &str, error: object_store::Error) -> Error {
        let why = crate::net::root_cause(&error);
        Error::new(ErrorKind::Store, say!("store {name}: {path}: {why}", name = self.name, path, why))
            .help(say!("check that the store can be reached, and that it may be read and written there"))
            .caused_by(error)
    }

    /// Reads an object; `None` if there is none.
    pub async fn load(&self, path: &str) -> Result<Option<(Bytes, Version)>> {
        let found = match self.objects.get(&Path::from(path)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error(path, error)),
        };
        let version = Version(found.meta.e_tag.clone());
        let bytes = found.bytes().await.map_err(|error| self.error(path, error))?;
        Ok(Some((bytes, version)))
    }

    /// Reads a part of an object, or what there is of it; `None` if there is no object. The part must begin inside of it.
    pub async fn load_part(&self, path: &str, part: Range<u64>) -> Result<Option<Bytes>> {
        let options = GetOptions { range: Some(GetRange::Bounded(part)), ..GetOptions::default() };
        let found = match self.objects.get_opts(&Path::from(path), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error(path, error)),
        };
        found.bytes().await.map(Some).map_err(|error| self.error(path, error))
    }

    /// Writes an object over whatever is there.
    pub async fn put(&self, path: &str, bytes: impl Into<PutPayload>) -> Result<()> {
        self.objects
            .put(&Path::from(path), bytes.into())
            .await
            .map(drop)
            .map_err(|error| self.error(path, error))
    }

    /// Writes a page for browsers over whatever is there. S3 then sends it as what it is; a file has its ending.
    pub async fn put_html(&self, path: &str, html: String) -> Result<()> {
        let mut options = PutOptions::default();
        if self.directory.is_none() {
            options.attributes.insert(Attribute::ContentType, "text/html; charset=utf-8".into());
            options.attributes.insert(Attribute::CacheControl, "no-cache".into());
        }
        let put = self.objects.put_opts(&Path::from(path), html.into(), options).await;
        put.map(drop).map_err(|error| self.error(path, error))
    }

    /// Saves on top of the version that was read (`None`: there was no object) and returns the new version.
    /// [`ErrorKind::StateConflict`] means that another run saved since; nothing is overwritten then.
    pub async fn save_if_unchanged(
        &self,
        path: &str,
        bytes: Bytes,
        read: Option<&Version>,
    ) -> Result<Version> {
        let put = match &self.directory {
            _ if Mutant::SaveWithoutCompare.is_active() => self.blind_put(path, bytes.clone()).await,
            None => self.conditional_put(path, bytes.clone(), read).await,
            Some(directory) => {
                let lock = lock_for_save(&directory.join(paths::save_lock(path))).await;
                let _lock = lock.map_err(|error| {
                    Error::new(
                        ErrorKind::Store,
                        say!("store {name}: {path}: {error}", name = self.name, path, error),
                    )
                    .caused_by(error)
                })?;
                self.compare_and_put(path, bytes.clone(), read).await
            }
        };
        let error = match put {
            Ok(version) => return Ok(version),
            Err(error) => error,
        };
        // A put whose answer was lost may have taken effect. If the stored bytes are ours, it did.
        if let Ok(Some((there, version))) = self.load(path).await
            && there == bytes
        {
            return Ok(version);
        }
        Err(match error {
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => {
                Error::new(
                    ErrorKind::StateConflict,
                    say!("store {name}: {path} was saved by another run meanwhile", name = self.name, path),
                )
                .help(say!("that run is the truth, run again"))
            }
            error => self.error(path, error),
        })
    }

    async fn blind_put(&self, path: &str, bytes: Bytes) -> object_store::Result<Version> {
        self.objects.put(&Path::from(path), bytes.into()).await.map(|put| Version(put.e_tag))
    }

    async fn conditional_put(
        &self,
        path: &str,
        bytes: Bytes,
        read: Option<&Version>,
    ) -> object_store::Result<Version> {
        let mode = match read {
            None => PutMode::Create,
            Some(version) => PutMode::Update(UpdateVersion { e_tag: version.0.clone(), version: None }),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        self.objects.put_opts(&Path::from(path), bytes.into(), options).await.map(|put| Version(put.e_tag))
    }

    /// Compare, then put, under the save lock: what S3 does in one call.
    async fn compare_and_put(
        &self,
        path: &str,
        bytes: Bytes,
        read: Option<&Version>,
    ) -> object_store::Result<Version> {
        let location = Path::from(path);
        let now = match self.objects.head(&location).await {
            Ok(meta) => Some(Version(meta.e_tag)),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if now.as_ref() != read {
            return Err(object_store::Error::Precondition {
                path: path.to_owned(),
                source: "changed meanwhile".into(),
            });
        }
        self.objects.put(&location, bytes.into()).await?;
        self.objects.head(&location).await.map(|meta| Version(meta.e_tag))
    }

    /// Takes the connection's run lock in a directory. Elsewhere there is none to take: see `lease.rs`.
    pub fn lock_run(&self, connection: &str) -> Result<RunLock> {
        let Some(directory) = &self.directory else { return Ok(RunLock::Absent) };
        let path = directory.join(paths::run_lock(connection));
        let fail = |error: std::io::Error| {
            Error::new(
                ErrorKind::Store,
                say!("store {name}: {path}: {error}", name = self.name, path = path.display(), error),
            )
            .caused_by(error)
        };
        let file = open_lock(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock::Ours(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(RunLock::Theirs),
            Err(std::fs::TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// Copies an object, if there is one.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        match self.objects.copy(&Path::from(from), &Path::from(to)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(from, error)),
        }
    }
}

/// How long to wait before the lock of a save is tried again. It is held for two file operations.
const LOCKED: Duration = Duration::from_millis(2);
/// After the first of several saves that others came before, up to this; after each further one, as much longer.
const CLASH: Duration = Duration::from_millis(50);

/// Callers whose saves met do not meet again.
async fn others_first(times: u32) {
    if times > 0 {
        tokio::time::sleep(CLASH.mul_f64(f64::from(times) * fastrand::f64())).await;
    }
}

/// Cache and quarantine hold rows of the catalogue, so a new directory is its owner's alone. One that exists keeps the
/// rights that somebody gave it.
fn create_for_owner(path: &std::path::Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn open_lock(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::File::options().create(true).truncate(false).write(true).open(path)
}

/// Waits without keeping the thread: whoever has the lock may need it.
async fn lock_for_save(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let file = open_lock(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCKED).await,
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The parsed value of `OKKI_SYNC_STORE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `memory:`
    Memory,
    /// `file:///dir`
    Directory(PathBuf),
    /// `s3://bucket/prefix`
    S3 {
        bucket: String,
        /// Perhaps empty.
        prefix: String,
    },
}

impl Address {
    /// A relative `file://./dir` starts at the working directory.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: Message| {
            Error::new(ErrorKind::BadPipeline, say!("OKKI_SYNC_STORE={url}: {why}", url = text, why))
                .help(say!("write file:///dir, s3://bucket/prefix or memory:"))
        };
        if text == "memory:" || text == "memory://" {
            return Ok(Self::Memory);
        }
        if let Some(path) = text.strip_prefix("file://") {
            if path.is_empty() {
                return Err(wrong(say!("names no directory")));
            }
            let decoded = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
            return Ok(Self::Directory(if path.starts_with('/') {
                decoded.unwrap_or_else(|| path.into())
            } else {
                path.into()
            }));
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err(wrong(say!("is not the address of a store")));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong(say!("names no bucket")));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn a_stale_save_is_refused(store: Store) {
        let first = store.save_if_unchanged("state/x", Bytes::from_static(b"one"), None).await.unwrap();
        let conflict =
            store.save_if_unchanged("state/x", Bytes::from_static(b"two"), None).await.unwrap_err();
        assert_eq!(conflict.kind, ErrorKind::StateConflict);
        let second =
            store.save_if_unchanged("state/x", Bytes::from_static(b"three"), Some(&first)).await.unwrap();
        let conflict =
            store.save_if_unchanged("state/x", Bytes::from_static(b"four"), Some(&first)).await.unwrap_err();
        assert_eq!(conflict.kind, ErrorKind::StateConflict);
        let (bytes, version) = store.load("state/x").await.unwrap().unwrap();
        assert_eq!((bytes.as_ref(), version), (&b"three"[..], second));
    }

    #[tokio::test]
    async fn a_stale_save_is_refused_in_memory() {
        a_stale_save_is_refused(Store::memory()).await;
    }

    #[tokio::test]
    async fn a_stale_save_is_refused_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        a_stale_save_is_refused(Store::directory(directory.path().to_owned()).unwrap()).await;
    }

    #[test]
    fn what_is_saved_in_a_directory_is_flushed_to_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::directory(directory.path().to_owned()).unwrap();
        let told = format!("{:?}", store.objects);
        assert!(told.contains("fsync: true"), "{told}");
    }

    #[test]
    fn an_error_names_the_path_once_and_ends_with_its_innermost_cause() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused");
        let retried = object_store::Error::Generic { store: "S3", source: Box::new(refused) };
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(retried) };
        let error = Store::memory().error("state/acme.state", outer);
        assert_eq!(error.message.to_string(), "store memory:: state/acme.state: Connection refused");
        assert!(error.line().contains("check that the store can be reached"), "{}", error.line());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_directory_is_its_owners_alone_and_an_old_one_is_left_as_it_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = directory.path().join("parent/store");
        Store::directory(made.clone()).unwrap();
        assert_eq!(mode(&made), 0o700);
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o750)).unwrap();
        Store::directory(made.clone()).unwrap();
        assert_eq!(mode(&made), 0o750);
    }

    #[test]
    fn addresses_are_read_and_nonsense_is_refused() {
        assert_eq!(Address::parse("memory:").unwrap(), Address::Memory);
        assert_eq!(Address::parse("file:///a/b").unwrap(), Address::Directory("/a/b".into()));
        assert_eq!(Address::parse("file://./x").unwrap(), Address::Directory("./x".into()));
        let s3 = Address::S3 { bucket: "b".into(), prefix: "p/q".into() };
        assert_eq!(Address::parse("s3://b/p/q/").unwrap(), s3);
        for wrong in ["/tmp/x", "s3://", "file://", "http://x"] {
            assert_eq!(Address::parse(wrong).unwrap_err().kind, ErrorKind::BadPipeline, "{wrong}");
        }
    }
}
