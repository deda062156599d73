//! The end of every scenario: all faults cease, and the target must come to equal the source.

use std::time::Duration;

use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::state::LONGEST_DISTANCE_RUNS;
use okki_sync::testing::sync::RunRequest;
use okki_sync_sandbox::IdCheck;

use super::{Scenario, Step};
use crate::invariants;
use crate::oracle::Shape;
use crate::promises;
use crate::world::{Death, request};

/// So many runs, each long enough for some windows, end a read.
const SHORT_RUNS: u32 = 40;
/// Once faults have ceased, this many runs bring the target to the source.
const RUNS_TO_CONVERGE: u64 = 2;

impl Scenario {
    /// Runs that are too short for a read come to its end, however much people edit meanwhile. (A source whose filter
    /// cannot be used needs one long run.)
    async fn short_runs_arrive(&mut self) -> Step {
        if !self.world.reading.is_filtered()
            || self.world.jumped
            || self.world.pipeline.shape == Shape::Groups
        {
            return Ok(());
        }
        if self.world.reading_rng.u8(0..3) > 0 {
            return Ok(());
        }
        for _ in 0..SHORT_RUNS {
            let request = RunRequest { allow_mass_delete: true, ..self.short() };
            let outcome = self.run("short run", &request, Death::None).await?;
            let outcome = outcome.ok_or("a run ended without an outcome")?;
            if promises::has_read(&outcome) {
                return Ok(());
            }
            if outcome.report.status == Status::Failed {
                return Err(format!("a short run failed without any fault: {:?}", outcome.report.error));
            }
            self.world.wind(Duration::from_secs(self.resume.take().unwrap_or(1))).await;
        }
        Err(format!("{SHORT_RUNS} short runs did not come to the end of a read"))
    }

    /// All faults cease, and the scheme takes changes: two runs later the target equals the source, and a third one writes nothing.
    pub(super) async fn finish(&mut self) -> Step {
        self.world.sandbox.clear_faults();
        self.world.sandbox.set_options(|options| options.id_check = IdCheck::Off);
        self.world.objects.clear_faults();
        self.world.restart();
        self.world.wind(Duration::from_secs(2 * 3600)).await;
        self.world.tell("all faults cease, two hours go by");
        self.short_runs_arrive().await?;
        self.world.people(false);
        self.world.wind(Duration::from_secs(2 * 3600)).await;
        if self.world.reading.is_too_late() {
            // What became visible too late comes with the windows that are read again.
            self.world.wind(Duration::from_secs(25 * 3600)).await;
        }
        let sync = RunRequest { allow_mass_delete: true, ..request(Mode::Sync) };
        let (mut runs, mut refused) = (0_u64, 0_u64);
        loop {
            self.neighbours_at_the_end().await?;
            let outcome =
                self.run("at the end", &sync, Death::None).await?.ok_or("a run ended without an outcome")?;
            runs += 1;
            // A clock that was set back makes an old lockout look young; its end is named, and kept.
            if let (Some(seconds), true, 1) = (self.resume.take(), self.world.jumped, runs) {
                self.world.wind(Duration::from_secs(seconds)).await;
                runs = 0;
                self.world.jumped = false;
                continue;
            }
            // It makes a dead run's lease look young too, for as long as a lease may last.
            let busy = outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
            if busy && self.world.jumped && runs == 1 {
                self.world.wind(Duration::from_secs(120)).await;
                runs = 0;
                self.world.jumped = false;
                continue;
            }
            if outcome.report.status == Status::Paused {
                return Err(format!("a run paused without any fault: {:?}", outcome.report.error));
            }
            if outcome.report.status == Status::Failed {
                return Err(format!("a run failed without any fault: {:?}", outcome.report.error));
            }
            // Rows that were refused earlier are due when their distance has run out.
            if invariants::has_refused_rows(&outcome) && refused < LONGEST_DISTANCE_RUNS {
                refused += 1;
                continue;
            }
            let equal = invariants::target_equals_source(&self.world);
            match equal {
                Ok(()) => break,
                Err(why) if runs >= RUNS_TO_CONVERGE + refused => return Err(why),
                Err(_) => {}
            }
        }
        let sent = self.world.sandbox.journal(0).len();
        let outcome =
            self.run("once more", &sync, Death::None).await?.ok_or("a run ended without an outcome")?;
        let more = self.world.sandbox.journal(0).len() - sent;
        if more > 0 {
            return Err(format!("a run with nothing to do sent {more} rows: {:?}", outcome.report));
        }
        let verified = self.run("verify", &request(Mode::Verify), Death::None).await?;
        match verified.map(|outcome| outcome.report) {
            Some(report) if report.remaining == 0 && report.status != Status::Failed => Ok(()),
            other => Err(format!("the target equals the source, verify says otherwise: {other:?}")),
        }
    }
}
