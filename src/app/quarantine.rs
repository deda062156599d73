//! The quarantine of a connection: needs its name and the store, and no credentials.

use super::App;
use super::pipelines::PipelineSource;
use crate::error::Result;
use crate::sync::quarantine::{Change, QuarantineOf, Quarantined};

impl App {
    /// The rows that cannot go through now: refused by the last run or the target, dismissed or not.
    pub async fn quarantine(&self, from: PipelineSource) -> Result<Vec<Quarantined>> {
        let connection = self.config_of(&self.pipeline_file(&from).await?)?.connection;
        QuarantineOf { connection: &connection, store: self.store().await?, clock: self.clock }.list().await
    }

    /// Puts refused rows into the next run, whatever their next try was, and lets dismissed ones count again.
    pub async fn retry_quarantined(&self, from: PipelineSource, ids: &[String]) -> Result<Vec<Quarantined>> {
        self.change_quarantine(from, Change::Retry, ids).await
    }

    /// Silences rows until their content changes.
    pub async fn dismiss_quarantined(
        &self,
        from: PipelineSource,
        ids: &[String],
    ) -> Result<Vec<Quarantined>> {
        self.change_quarantine(from, Change::Dismiss, ids).await
    }

    async fn change_quarantine(
        &self,
        from: PipelineSource,
        change: Change,
        ids: &[String],
    ) -> Result<Vec<Quarantined>> {
        let connection = self.config_of(&self.pipeline_file(&from).await?)?.connection;
        let of = QuarantineOf { connection: &connection, store: self.store().await?, clock: self.clock };
        Box::pin(of.change(change, ids)).await
    }
}
