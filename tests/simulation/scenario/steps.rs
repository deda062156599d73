//! The steps: runs in all their company, and what happens to the world between them.

use std::time::Duration;

use fastrand::Rng;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::RunRequest;
use okki_sync_sandbox::catalogue::Catalogue;
use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};
use okki_sync_sandbox::{ListOrder, Service};

use super::edits::{add_dirty_rows, grow, remove_some, rename_everything, undelete};
use super::{Scenario, Step};
use crate::invariants;
use crate::world::{Death, request};

impl Scenario {
    fn some_request(&mut self) -> RunRequest {
        let mode = match self.rng().u8(0..10) {
            0 => Mode::Plan,
            1 => Mode::Verify,
            _ => Mode::Sync,
        };
        let deadline = (self.rng().u8(0..4) == 0)
            .then(|| tokio::time::Instant::now() + Duration::from_secs(self.world.rng.u64(6..120)));
        RunRequest { allow_mass_delete: self.rng().u8(0..3) == 0, deadline, ..request(mode) }
    }

    pub(super) async fn some_run(&mut self) -> Step {
        // Now and then somebody knocks early; mostly the time that the last run named is kept.
        if let Some(seconds) = self.resume.take()
            && self.rng().u8(0..3) > 0
        {
            self.world.tell(format!("wait {seconds} s, as the last run asked"));
            self.world.wind(Duration::from_secs(seconds)).await;
        }
        let request = self.some_request();
        self.run("run", &request, Death::None).await.map(drop)
    }

    /// Somebody takes back what a run changed; the next run brings the source's values again.
    pub(super) async fn undo(&mut self) -> Step {
        let story = crate::values::undo_some_run(&mut self.world).await?;
        self.world.coverage.count("steps", "undo", 1);
        self.world.tell(story);
        invariants::only_former_rows_were_sent(&self.world, &mut self.ledger)?;
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    pub(super) async fn killed_run(&mut self) -> Step {
        let request = self.some_request();
        let death = match self.rng().u8(0..5) {
            0 | 1 => Death::After(self.world.rng.u64(0..2_000)),
            2 => Death::After(self.world.rng.u64(0..120_000)),
            3 => Death::AtPoll(self.world.rng.u32(0..120)),
            _ => Death::Stopped(self.world.rng.u64(0..20_000)),
        };
        self.run("run that dies", &request, death).await.map(drop)
    }

    pub(super) async fn duplicate_event(&mut self) -> Step {
        let request = RunRequest { deadline: None, ..self.some_request() };
        self.run("event", &request, Death::None).await?;
        self.run("the same event again", &request, Death::None).await.map(drop)
    }

    /// A second process starts while the first runs; at times the catalogue changes between them.
    pub(super) async fn overlap(&mut self) -> Step {
        let (first, second) = (self.world.process.clone(), self.world.start_process());
        let (one, two) = (self.some_request(), self.some_request());
        let after = Duration::from_millis(self.rng().u64(0..4_000));
        let death =
            if self.rng().u8(0..4) == 0 { Death::After(self.world.rng.u64(0..6_000)) } else { Death::None };
        let changes = self.rng().bool();
        let store_before = self.world.objects.struck();
        self.unread_since.get_or_insert(self.world.clock.now_ms());
        let sandbox = self.world.sandbox.clone();
        let world = &self.world;
        let (a, b) = futures::join!(world.drive(&first, &one, death), async {
            tokio::time::sleep(after).await;
            if changes {
                sandbox.simulate_edits();
                world.note_source();
            }
            world.drive(&second, &two, Death::None).await
        });
        let (a, b) = (a?, b?);
        if store_before == self.world.objects.struck() {
            self.world.traffic.the_last_two_have_met()?;
        }
        self.world.coverage.count(
            "steps",
            if changes { "overlap with a change between" } else { "overlap" },
            1,
        );
        self.world.tell(format!(
            "two runs overlap, the second {} ms later, change between: {changes}",
            after.as_millis()
        ));
        self.note("first", &first, &one, death, a.as_ref());
        self.note("second", &second, &two, Death::None, b.as_ref());
        if a.is_none() || self.rng().bool() {
            self.world.process = second;
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// A process that is not scheduled for a while, while another one does its work and the catalogue stands still.
    pub(super) async fn frozen_run(&mut self) -> Step {
        if !self.world.freezing {
            return self.restart();
        }
        let (first, second) = (self.world.process.clone(), self.world.start_process());
        let death = Death::Frozen(self.rng().u64(0..8_000), self.world.rng.u64(20_000..200_000));
        let Death::Frozen(after, asleep) = death else { return Ok(()) };
        let one = RunRequest { deadline: None, ..request(Mode::Sync) };
        let begins = after + self.rng().u64(0..asleep);
        self.unread_since.get_or_insert(self.world.clock.now_ms());
        let world = &self.world;
        let (a, b) = futures::join!(world.drive(&first, &one, death), async {
            tokio::time::sleep(Duration::from_millis(begins)).await;
            world.drive(&second, &one, Death::None).await
        });
        let (a, b) = (a?, b?);
        self.world.coverage.count("steps", "frozen process", 1);
        self.world.tell(format!("a process freezes; another one begins after {begins} ms"));
        self.note("frozen", &first, &one, death, a.as_ref());
        self.note("other", &second, &one, Death::None, b.as_ref());
        if self.rng().bool() {
            self.world.process = second;
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// A change goes out, its answer is lost, and people take the change back. The target may hold the dropped
    /// content although no answer ever said so.
    pub(super) async fn regret(&mut self) -> Step {
        self.run("before the regret", &request(Mode::Sync), Death::None).await?;
        let (before, sandbox) = (self.world.catalogue(), self.world.sandbox.clone());
        sandbox.edit(rename_everything);
        self.world.note_source();
        let death = if self.rng().bool() {
            Death::After(self.world.rng.u64(0..2_000))
        } else {
            let at = if self.world.pipeline.qeasy { Endpoint::QeasyStore } else { Endpoint::HttpTarget };
            sandbox.fault(Fault {
                at,
                kind: FaultKind::LostAfter,
                times: 6,
                after: self.world.rng.u32(0..4),
            });
            Death::None
        };
        self.run("regretted", &request(Mode::Sync), death).await?;
        self.past.push(self.world.catalogue());
        sandbox.edit(|catalogue| *catalogue = before);
        self.world.note_source();
        self.world.coverage.count("steps", "regret", 1);
        self.world.tell("catalogue: everything renamed, and back");
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// A run dies between two batches of a large change: what the target has acknowledged counts, the rest does not.
    pub(super) async fn death_step(&mut self) -> Step {
        if self.world.deaths_rng.u8(0..24) > 0 {
            return Ok(());
        }
        self.run("before the large change", &request(Mode::Sync), Death::None).await?;
        self.world.sandbox.edit(rename_everything);
        self.world.note_source();
        self.world.coverage.count("steps", "a run that dies while it writes", 1);
        self.world.tell("catalogue: everything renamed");
        let death = Death::OnceWritten(self.world.deaths_rng.u64(0..15_000));
        self.run("run that dies while it writes", &request(Mode::Sync), death).await.map(drop)
    }

    pub(super) fn change_catalogue(&mut self) -> Step {
        self.past.push(self.world.catalogue());
        let (what, sandbox) = (self.rng().u8(0..10), self.world.sandbox.clone());
        let now = i64::try_from(self.world.clock.now_ms() / 1000).unwrap();
        let seed = self.rng().u64(..);
        let name = match what {
            0..=2 => {
                sandbox.simulate_edits();
                "a working day"
            }
            3 | 4 => {
                let past = self.past.clone();
                let back = self.rng().choice(&past).unwrap().clone();
                sandbox.edit(|catalogue| *catalogue = back);
                "people change their mind"
            }
            5 => {
                sandbox.edit(|catalogue| remove_some(catalogue, &mut Rng::with_seed(seed)));
                "rows removed"
            }
            6 => {
                sandbox.edit(undelete);
                "undelete"
            }
            7 => {
                // Nobody announces that an id is now there twice: only a pipeline that reads everything can know.
                // (And which of two comes first depends on the order.)
                let twins = self.world.pipeline.reads_all() && self.world.reading.order == ListOrder::ById;
                sandbox.edit(|catalogue| add_dirty_rows(catalogue, twins, &mut Rng::with_seed(seed)));
                "dirty rows"
            }
            8 => {
                sandbox.edit(rename_everything);
                "everything renamed"
            }
            _ => {
                let fresh = Catalogue::generate(seed, 12, 60, false, now);
                sandbox.edit(|catalogue| grow(catalogue, fresh));
                "rows added"
            }
        };
        self.world.note_source();
        self.world.coverage.count("steps", "catalogue changed", 1);
        self.world.tell(format!("catalogue: {name}"));
        Ok(())
    }

    pub(super) fn revoke(&mut self) -> Step {
        self.world.sandbox.revoke_tokens();
        self.world.coverage.count("steps", "tokens revoked", 1);
        self.world.tell("all tokens are revoked");
        Ok(())
    }

    pub(super) fn rotate(&mut self) -> Step {
        let service = if self.rng().bool() { Service::Okki } else { Service::Target };
        self.world.sandbox.rotate_credentials(service);
        let known = self.rng().u8(0..4) > 0;
        if known {
            self.world.restart();
        }
        self.world.coverage.count("steps", "credentials rotated", 1);
        self.world.tell(format!("new credentials at {service:?}, the program is told: {known}"));
        Ok(())
    }

    pub(super) async fn wait(&mut self) -> Step {
        let seconds = *self.rng().choice(&[1, 20, 59, 61, 299, 301, 3600, 8000, 30_000]).unwrap();
        self.world.wind(Duration::from_secs(seconds)).await;
        self.world.tell(format!("{seconds} s go by"));
        Ok(())
    }

    /// The next process sees another time. A minute goes by before, since a jump inside the minute of a call
    /// cannot be told from time that went by.
    pub(super) async fn jump_clock(&mut self) -> Step {
        self.world.wind(Duration::from_secs(61)).await;
        let most = 3 * 3_600_000;
        self.world.ahead_ms = self.rng().i64(-most..most);
        self.world.jumped = true;
        self.world.restart();
        self.world.coverage.count("steps", "clock jumped", 1);
        let ahead = self.world.ahead_ms;
        self.world.tell(format!("the clock jumps: now {ahead} ms ahead"));
        Ok(())
    }

    pub(super) fn restart(&mut self) -> Step {
        self.world.restart();
        self.world.tell("the process starts again");
        Ok(())
    }
}
