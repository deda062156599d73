//! Steps that try the reading: imports, deletions and restores during a run, runs that are too short for a read, kills in
//! the middle of one, and a pipeline that asks for other fields. They are drawn apart from the other steps.

use std::time::Duration;

use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::RunRequest;

use super::{Scenario, Step};
use crate::world::{Death, request};

impl Scenario {
    pub(super) async fn read_step(&mut self) -> Step {
        if self.world.reading.visible_late_s > 0 && self.world.reading_rng.u8(0..4) == 0 {
            return self.run_after_run().await;
        }
        match self.world.reading_rng.u8(0..24) {
            0 | 1 => self.import(),
            2 => self.remove_and_restore(),
            3 | 4 => self.short_run().await,
            5 => self.killed_reading().await,
            6 => self.another_cost(),
            7 => self.edited_while_reading().await,
            _ => Ok(()),
        }
    }

    /// Runs that follow each other closely, while people work: each begins where the last one ended, and what was late
    /// then must not be missed.
    async fn run_after_run(&mut self) -> Step {
        for _ in 0..8 {
            self.run("run after run", &request(Mode::Sync), Death::None).await?;
            let pause = Duration::from_secs(self.world.reading_rng.u64(1..20));
            self.world.wind(pause).await;
        }
        self.world.coverage.count("reads", "runs that follow each other closely", 1);
        Ok(())
    }

    /// A second of many pages.
    fn import(&mut self) -> Step {
        let rows = self.world.reading_rng.usize(5..60);
        let ids = self.world.sandbox.import(rows);
        self.world.note_source();
        self.world.coverage.count("reads", "imports", 1);
        self.world.tell(format!("{} products are imported", ids.len()));
        Ok(())
    }

    /// Products are deleted, and some that were deleted before come back.
    fn remove_and_restore(&mut self) -> Step {
        let products = self.world.catalogue().products;
        let (mut removed, mut restored) = (0, 0);
        for _ in 0..self.world.reading_rng.u8(1..6) {
            let Some(product) = self.world.reading_rng.choice(&products) else { break };
            if self.world.sandbox.remove(&product.product_id) {
                self.deleted.push(product.product_id.clone());
                removed += 1;
            }
        }
        for _ in 0..self.world.reading_rng.u8(0..4) {
            if self.deleted.is_empty() {
                break;
            }
            let which = self.world.reading_rng.usize(0..self.deleted.len());
            let id = self.deleted.swap_remove(which);
            restored += u64::from(self.world.sandbox.restore(&id));
        }
        self.world.note_source();
        self.world.coverage.count("reads", "restores", restored);
        self.world.tell(format!("{removed} products are removed, {restored} come back"));
        Ok(())
    }

    /// Too short for a whole read, long enough for a window.
    pub(super) fn short(&mut self) -> RunRequest {
        let calls = self.world.calls_for_a_window() + self.world.reading_rng.u32(0..40);
        let time = self.world.reading.time_for(calls, self.world.pipeline.pace);
        RunRequest { deadline: Some(tokio::time::Instant::now() + time), ..request(Mode::Sync) }
    }

    async fn short_run(&mut self) -> Step {
        for _ in 0..self.world.reading_rng.u8(1..4) {
            let request = self.short();
            self.run("short run", &request, Death::None).await?;
        }
        Ok(())
    }

    /// Killed at any time, between two checkpoints too.
    async fn killed_reading(&mut self) -> Step {
        let pace_ms = (1_000.0 / self.world.pipeline.pace) as u64;
        let death = Death::After(self.world.reading_rng.u64(0..pace_ms * 150));
        if self.run("run that is killed", &request(Mode::Sync), death).await?.is_none() {
            self.world.coverage.count("reads", "kills between checkpoints", 1);
        }
        Ok(())
    }

    /// What was read for other fields is of no use any more.
    fn another_cost(&mut self) -> Step {
        if self.world.pipeline.ask_for_another_cost() {
            self.world.coverage.count("reads", "pipelines with other fields", 1);
            self.world.tell("the pipeline asks for another cost");
        }
        Ok(())
    }

    /// Things happen to single products while a run reads.
    async fn edited_while_reading(&mut self) -> Step {
        let (process, sandbox) = (self.world.process.clone(), self.world.sandbox.clone());
        let changes = self.world.reading_rng.u8(1..8);
        let seed = self.world.reading_rng.u64(..);
        let pace_ms = (1_000.0 / self.world.pipeline.pace) as u64;
        let world = &self.world;
        let request = request(Mode::Sync);
        self.unread_since.get_or_insert(world.clock.now_ms());
        let (outcome, ()) = futures::join!(world.drive(&process, &request, Death::None), async {
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..changes {
                tokio::time::sleep(Duration::from_millis(rng.u64(0..pace_ms * 8))).await;
                let products = sandbox.catalogue().products;
                let Some(id) = rng.choice(&products).map(|product| product.product_id.clone()) else { break };
                match rng.u8(0..3) {
                    0 => drop(sandbox.remove(&id)),
                    1 => drop(sandbox.import(rng.usize(1..9))),
                    _ => drop(sandbox.update(&id, |product| product.name.push('*'))),
                }
                world.note_source();
            }
        });
        let outcome = outcome?;
        self.world.coverage.count("steps", "single products change during a run", 1);
        self.note("edited", &process, &request, Death::None, outcome.as_ref());
        crate::invariants::after_any_run(&self.world, &mut self.ledger).await
    }
}
