//! How long ago each connection of the store last completed a run: what a fleet asks for its summary.
//!
//! Nothing but the store is looked at: the folder of pipelines is the list of connections, and the file of each one's
//! lease says when it last completed. So a connection whose runs never begin is seen too.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::Serialize;

use super::App;
use crate::config;
use crate::error::Result;
use crate::notify;
use crate::store::Store;
use crate::store::lease::LeaseFile;
use crate::store::paths;

/// Small files, read at the same time.
const READS: usize = 32;
/// Names in the answer, which a state machine keeps within 256 KiB.
const NAMES: usize = 300;

/// The age of the last completed run of every connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Freshness {
    /// Connections that have a pipeline in the store.
    pub connections: u64,
    /// Seconds since the last completed run of the connection that has gone longest without one. One that never completed
    /// counts from when its pipeline was last saved. `None` without connections.
    pub oldest_age_seconds: Option<u64>,
    /// That connection.
    pub oldest_connection: Option<String>,
    /// A connection is stale once it is older.
    pub stale_after_seconds: u64,
    /// How many are stale.
    pub stale: u64,
    /// Their names, the oldest first: 300 at most.
    pub stale_connections: Vec<String>,
}

impl Freshness {
    /// `ages`: seconds, by connection.
    fn of(ages: Vec<(String, u64)>, stale_after_seconds: u64) -> Self {
        let mut ages = ages;
        ages.sort_by(|(name, age), (other, other_age)| other_age.cmp(age).then(name.cmp(other)));
        let connections = ages.len() as u64;
        let oldest = ages.first().cloned().unzip();
        ages.retain(|(_, age)| *age > stale_after_seconds);
        Self {
            connections,
            oldest_connection: oldest.0,
            oldest_age_seconds: oldest.1,
            stale_after_seconds,
            stale: ages.len() as u64,
            stale_connections: ages.into_iter().take(NAMES).map(|(name, _)| name).collect(),
        }
    }
}

impl App {
    /// Looks at every connection of the store.
    pub async fn freshness(&self) -> Result<Freshness> {
        let store = self.store().await?;
        let stale_after = self.env().stale_after().and_then(|text| humantime::parse_duration(&text).ok());
        let connections = connections_of(store).await?;
        let now_ms = self.clock.now_ms();
        let ages = futures::stream::iter(connections).map(async |(name, saved_at_ms)| {
            let at_ms = completed_at_ms(store, &name).await.unwrap_or(saved_at_ms);
            (name, now_ms.saturating_sub(at_ms) / 1_000)
        });
        let ages: Vec<(String, u64)> = ages.buffer_unordered(READS).collect().await;
        Ok(Freshness::of(ages, stale_after.unwrap_or(notify::STALE_AFTER).as_secs()))
    }
}

/// A file that cannot be read names no completed run: its connection's runs fail over it, too.
async fn completed_at_ms(store: &Store, connection: &str) -> Option<u64> {
    match LeaseFile::load(store, connection).await {
        Ok(file) => file.completed_at_ms,
        Err(error) => {
            tracing::warn!(connection, error = %error.line(), "nobody knows when this connection last completed a run");
            None
        }
    }
}

/// The connections that have a pipeline, and when it was saved. What is no connection's name is none: its run says so.
async fn connections_of(store: &Store) -> Result<BTreeMap<String, u64>> {
    let mut connections = BTreeMap::new();
    for (file, saved_at_ms) in store.files_in(paths::PIPELINES).await? {
        let Some((name, _)) = file.rsplit_once('.') else { continue };
        let is_pipeline = paths::pipelines(name)
            .iter()
            .any(|path| path.strip_prefix(paths::PIPELINES) == Some(&format!("/{file}")));
        if is_pipeline && config::is_connection_name(name) {
            connections.insert(name.to_owned(), saved_at_ms);
        }
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_only_the_stale_are_named() {
        let ages = [("fresh", 7_200), ("dead", 90_000), ("late", 7_201), ("new", 0)];
        let found = Freshness::of(ages.map(|(name, age)| (name.to_owned(), age)).into(), 7_200);
        assert_eq!((found.connections, found.stale), (4, 2));
        assert_eq!(found.stale_connections, ["dead", "late"]);
        assert_eq!(
            (found.oldest_connection.as_deref(), found.oldest_age_seconds),
            (Some("dead"), Some(90_000))
        );
        let none = Freshness::of(Vec::new(), 1);
        assert_eq!((none.oldest_age_seconds, none.connections), (None, 0));
    }
}
