//! Other connections with the same key: they write the same rows to the same scheme, and must share its limit.

use std::time::Duration;

use futures::future::join_all;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::RunRequest;

use super::{Scenario, Step};
use crate::invariants;
use crate::world::{CONNECTION, Death, neighbour, request};

/// Later than this nobody begins.
const LAST_START_MS: u64 = 20_000;

impl Scenario {
    pub(super) async fn neighbours_step(&mut self) -> Step {
        if self.world.neighbours == 0 || self.world.neighbours_rng.u8(0..3) > 0 {
            return Ok(());
        }
        self.side_by_side().await
    }

    /// All connections run at once, in one process or in several, while the catalogue stands still: else one of them would
    /// write what another one has read before.
    async fn side_by_side(&mut self) -> Step {
        let was_at_work = self.world.is_at_work();
        self.world.people(false);
        let sync = RunRequest { allow_mass_delete: true, ..request(Mode::Sync) };
        let mut runs = Vec::new();
        for number in 0..=self.world.neighbours {
            let name = if number == 0 { CONNECTION.to_owned() } else { neighbour(number) };
            let is_apart = number > 0 && self.world.neighbours_rng.bool();
            let process = if is_apart { self.world.start_process() } else { self.world.process.clone() };
            let rng = &mut self.world.neighbours_rng;
            let death = if rng.u8(0..6) == 0 { Death::After(rng.u64(0..30_000)) } else { Death::None };
            let after = Duration::from_millis(rng.u64(0..LAST_START_MS));
            runs.push((name, process, sync.clone(), death, after));
        }
        // Somebody at a desk looks meanwhile, with the same app.
        if self.world.neighbours_rng.bool() {
            let (desk, after) = (self.world.start_process(), self.world.neighbours_rng.u64(0..LAST_START_MS));
            let after = Duration::from_millis(after);
            runs.push((CONNECTION.to_owned(), desk, request(Mode::Plan), Death::None, after));
        }
        self.unread_since.get_or_insert(self.world.clock.now_ms());
        let world = &self.world;
        let ended = join_all(runs.iter().map(async |(name, process, request, death, after)| {
            tokio::time::sleep(*after).await;
            world.drive_connection(name, process, request, *death).await
        }))
        .await;
        self.world.coverage.count("steps", "connections side by side", 1);
        for ((name, process, request, death, _), ended) in runs.iter().zip(ended) {
            self.note(&format!("connection {name}"), process, request, *death, ended?.as_ref());
        }
        if runs.iter().any(|(_, _, _, death, _)| *death != Death::None) {
            self.world.restart();
        }
        self.world.people(was_at_work);
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// What only others have written, only they know to be gone.
    pub(super) async fn neighbours_at_the_end(&mut self) -> Step {
        let sync = RunRequest { allow_mass_delete: true, ..request(Mode::Sync) };
        for number in 1..=self.world.neighbours {
            let (name, process) = (neighbour(number), self.world.process.clone());
            let ended = self.world.drive_connection(&name, &process, &sync, Death::None).await?;
            self.note(&format!("connection {name}"), &process, &sync, Death::None, ended.as_ref());
            self.world.wind(Duration::from_secs(61)).await;
        }
        Ok(())
    }
}
