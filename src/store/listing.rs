//! Names below a prefix. Only what people ask about the last runs, and a fleet about its connections, needs it: a run
//! itself knows all its keys.

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};

use super::Store;
use crate::error::Result;

impl Store {
    /// The names in a folder that sort after `after`, in order: without the folder, and without those of inner folders.
    ///
    /// S3 answers a thousand at a time and from the smallest on, so a late `after` is a short list.
    pub async fn names_after(&self, folder: &str, after: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.found_after(folder, after).await?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The names of all files in a folder, and when each was saved, in wall-clock milliseconds.
    pub(crate) async fn files_in(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let saved_at_ms =
            |meta: &ObjectMeta| u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default();
        let found = self.found_after(folder, "").await?;
        Ok(found.into_iter().map(|(name, meta)| (name, saved_at_ms(&meta))).collect())
    }

    /// The objects of a folder whose names sort after `after`, without those of inner folders.
    async fn found_after(&self, folder: &str, after: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let prefix = Path::from(folder);
        let offset = Path::from(format!("{folder}/{after}"));
        let found = self.objects.list_with_offset(Some(&prefix), &offset);
        let found: Vec<ObjectMeta> = found.try_collect().await.map_err(|error| self.error(folder, error))?;
        let name = |location: &Path| {
            let mut parts = location.prefix_match(&prefix)?;
            let name = parts.next()?.as_ref().to_owned();
            parts.next().is_none().then_some(name)
        };
        Ok(found.into_iter().filter_map(|meta| Some((name(&meta.location)?, meta))).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn lists(store: Store) {
        assert!(store.names_after("reports/a", "").await.unwrap().is_empty());
        for key in ["reports/a/1.json", "reports/a/2.json", "reports/ab/3.json", "reports/a/deep/4.json"] {
            store.put(key, b"{}".as_slice()).await.unwrap();
        }
        assert_eq!(store.names_after("reports/a", "").await.unwrap(), ["1.json", "2.json"]);
        assert_eq!(store.names_after("reports/a", "1.json").await.unwrap(), ["2.json"]);
    }

    #[tokio::test]
    async fn a_folder_lists_its_own_names_in_order() {
        lists(Store::memory()).await;
        let directory = tempfile::tempdir().unwrap();
        lists(Store::directory(directory.path().to_owned()).unwrap()).await;
    }
}
