//! Steps with single rows: some are sent again by name, and rows of the quarantine are tried again or silenced. They are
//! drawn apart from the other steps.

use okki_sync::app::PipelineSource;
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::{Only, RunRequest};

use super::{Scenario, Step};
use crate::invariants;
use crate::oracle::Shape;
use crate::world::{Death, request};

impl Scenario {
    pub(super) async fn row_step(&mut self) -> Step {
        match self.world.rows_rng.u8(0..20) {
            0 | 1 => self.named_rows().await,
            2..=4 => self.change_quarantine().await,
            5 => self.most_products_vanish().await,
            _ => Ok(()),
        }
    }

    /// Somebody names rows, and at times an item of one.
    async fn named_rows(&mut self) -> Step {
        let catalogue = self.world.catalogue();
        let mut ids: Vec<String> = self.world.pipeline.rows(&catalogue).into_keys().collect();
        if !matches!(self.world.pipeline.shape, Shape::Groups | Shape::Products) {
            ids.extend(catalogue.products.into_iter().map(|product| product.product_id));
        }
        ids.retain(|id| !id.trim().is_empty());
        let rng = &mut self.world.rows_rng;
        let named: Vec<String> = (0..rng.u8(1..4)).filter_map(|_| rng.choice(&ids).cloned()).collect();
        if named.is_empty() {
            return Ok(());
        }
        let death = match rng.u8(0..4) {
            0 => Death::After(rng.u64(0..20_000)),
            _ => Death::None,
        };
        let only = Only { ids: named, groups: Vec::new() };
        self.world.coverage.count("steps", "named rows", 1);
        self.run("named rows", &RunRequest { only, ..request(Mode::Sync) }, death).await.map(drop)
    }

    /// A source that has lost most of its products, until somebody notices: the guard refuses what nobody has allowed.
    async fn most_products_vanish(&mut self) -> Step {
        let (sandbox, before) = (self.world.sandbox.clone(), self.world.catalogue());
        let kept = before.products.len() / self.world.rows_rng.usize(2..30);
        sandbox.edit(|catalogue| catalogue.products.truncate(kept));
        self.world.note_source();
        self.world.coverage.count("steps", "most products vanish for a while", 1);
        self.world.tell(format!(
            "{} of {} products are gone",
            before.products.len() - kept,
            before.products.len()
        ));
        self.run("without its products", &request(Mode::Sync), Death::None).await?;
        sandbox.edit(|catalogue| *catalogue = before);
        self.world.note_source();
        Ok(())
    }

    /// Somebody looks into the quarantine, and changes what becomes of a row.
    async fn change_quarantine(&mut self) -> Step {
        let app = self.world.process.app.clone();
        let from =
            || PipelineSource::Text { name: "sim.toml".to_owned(), text: self.world.pipeline.text.clone() };
        let list = match app.quarantine(from()).await {
            Ok(list) => list,
            Err(error) if error.kind == ErrorKind::Store => return Ok(()),
            Err(error) => return Err(format!("the quarantine cannot be listed: {error}")),
        };
        let handles: Vec<String> = list.iter().map(|row| row.handle()).collect();
        let before = invariants::before(&self.world).await?;
        let (from, rng) = (from(), &mut self.world.rows_rng);
        let Some(handle) = rng.choice(&handles).cloned() else { return Ok(()) };
        let (is_retry, ids) = (rng.u8(0..3) == 0, vec![handle.clone()]);
        let changed = if is_retry {
            app.retry_quarantined(from, &ids).await
        } else {
            app.dismiss_quarantined(from, &ids).await
        };
        let what = if is_retry { "retried" } else { "dismissed" };
        self.world.tell(format!("row {handle} is {what}: {}", changed.is_ok()));
        match changed {
            Ok(_) => self.world.coverage.count("steps", format!("rows of the quarantine {what}"), 1),
            // A dead run's lease, or a store that fails.
            Err(error)
                if matches!(error.kind, ErrorKind::Store | ErrorKind::Busy | ErrorKind::StateConflict) => {}
            // A run set rows aside, and ended before its first batch.
            Err(error) if error.message.contains("has no state yet") => {}
            Err(error) => return Err(format!("row {handle} cannot be {what}: {error}")),
        }
        invariants::nothing_was_sent(&self.world, &before)?;
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }
}
