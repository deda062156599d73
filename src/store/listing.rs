//! The names in a folder of the store. Only commands that a person calls list: a function needs no right to.

use futures::TryStreamExt as _;
use object_store::path::Path;

use super::Store;
use crate::error::Result;

impl Store {
    /// The names of the files in a folder, without the folder's own; in order. Files in folders below are left out.
    pub async fn names_in(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = Path::from(folder);
        let found: Result<Vec<_>, _> = self.objects.list(Some(&prefix)).try_collect().await;
        let found = found.map_err(|error| self.error(folder, error))?;
        let names = found.iter().filter_map(|file| {
            let mut rest = file.location.prefix_match(&prefix)?;
            let name = rest.next()?.as_ref().to_owned();
            rest.next().is_none().then_some(name)
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_names_in_a_folder_come_in_order_and_those_of_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        for store in [Store::memory(), Store::directory(directory.path().to_owned()).unwrap()] {
            assert_eq!(store.names_in("reports/a").await.unwrap(), [""; 0]);
            for key in ["reports/a/2.json", "reports/a/1.json", "reports/ab/3.json", "reports/a/below/4.json"]
            {
                store.put(key, "{}").await.unwrap();
            }
            assert_eq!(store.names_in("reports/a").await.unwrap(), ["1.json", "2.json"]);
        }
    }
}
