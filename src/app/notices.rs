//! Tells the chat group how a run ended. It never changes the outcome.

use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::connections::Connection;
use super::pipelines::{PipelineSource, file_name};
use crate::budget::Budget;
use crate::config::credentials::Notify;
use crate::notify::{self, Group, Seen};
use crate::report::{Mode, Status};
use crate::store::Store;
use crate::store::lease::LeaseFile;
use crate::sync::{Outcome, RunRequest};

/// Kept free before the deadline when a notice is sent, so that the report still goes out.
const NOTICE_RESERVE: Duration = Duration::from_secs(1);

impl App {
    /// Tells the group how a sync run ended, where somebody asked for it and there is time for it. It changes
    /// nothing of the outcome.
    pub(super) async fn notify(
        &self,
        from: &PipelineSource,
        connection: Option<&Connection>,
        request: &RunRequest,
        outcome: &Outcome,
    ) {
        let budget = Budget::new(request.deadline, self.stop.subscribe());
        let left = request
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        // Who names rows sees for himself how it ends.
        let is_by_hand = !request.only.is_empty();
        if request.mode != Mode::Sync || is_by_hand || left < notify::LEAST || *self.stop.borrow() {
            return;
        }
        let limit = notify::LIMIT.min(left.saturating_sub(NOTICE_RESERVE));
        let told = tokio::time::timeout(limit, self.tell(from, connection, outcome));
        if let Ok(Err(_)) = budget.unless_stopped(told).await {
            tracing::warn!("the notice took too long and was given up");
        }
    }

    async fn tell(&self, from: &PipelineSource, connection: Option<&Connection>, outcome: &Outcome) {
        let (name, notify) = match connection {
            Some(known) => (known.config.connection.clone(), known.notify()),
            None => {
                let in_env = Notify::from_env(&self.env);
                if self.env.secret().is_none() && in_env.is_none() {
                    return;
                }
                let name = self.name_of(from).await;
                let known = self.credentials(&name).await;
                (name, known.map_or(in_env, |known| known.notify))
            }
        };
        let webhook = match notify.webhook() {
            Ok(Some(webhook)) => webhook,
            Ok(None) => return,
            Err(mistake) => {
                tracing::warn!(%mistake, "no notices are sent");
                return;
            }
        };
        let Ok(store) = self.store().await else { return };
        // A pipeline that cannot be read says nothing about its notices.
        let settings = connection.map(|known| known.config.notify.clone()).unwrap_or_default();
        let group = Group { webhook: &webhook, store, clock: self.clock, settings: &settings };
        let mut seen = Seen {
            name: &name,
            report: &outcome.report,
            error: outcome.error.as_ref(),
            rejected: &outcome.rejected,
            completed_at_ms: self.completed_at_ms(store, &name, outcome).await,
        };
        group.tell(&seen).await;
        // Of a failure before its connection was known the group heard under the file's name.
        if let (Some(file), Status::Succeeded | Status::Partial) = (file_name(from), outcome.report.status) {
            seen.name = file;
            group.tell_recovery(&seen).await;
        }
    }

    /// When a run of the connection last completed: this one, or the one that its lease's file names.
    async fn completed_at_ms(&self, store: &Store, name: &str, outcome: &Outcome) -> Option<u64> {
        match outcome.report.status {
            Status::Succeeded | Status::Partial => Some(self.clock.now_ms()),
            Status::Paused | Status::Failed => LeaseFile::load(store, name).await.ok()?.completed_at_ms,
        }
    }
}
