//! The faults that a seed queues, in the store and at both services.

use std::time::Duration;

use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};

use super::{Scenario, Step};
use crate::store::StoreFault;

/// Calls to the list of products before its pages are read one by one, about.
const QUESTIONS_BEFORE_PAGES: u32 = 12;

impl Scenario {
    pub(super) fn some_faults(&mut self) -> Step {
        for _ in 0..self.rng().u32(1..=3) {
            if self.rng().u8(0..4) == 0 {
                let fault = match self.rng().u8(0..4) {
                    0 => StoreFault::Read,
                    1 => StoreFault::WriteBefore,
                    2 => StoreFault::WriteAfter,
                    _ => StoreFault::SlowWrite(self.world.rng.u64(1..50)),
                };
                let after = self.rng().u32(0..6);
                self.world.objects.fault(fault, after);
                self.world.coverage.count("faults queued", fault.name(), 1);
                self.world.tell(format!("fault {fault:?} after {after}"));
                continue;
            }
            let fault = self.some_fault();
            self.world.coverage.count("faults queued", fault.kind.name(), 1);
            self.world.tell(format!("fault {fault:?}"));
            self.world.sandbox.fault(fault);
        }
        Ok(())
    }

    fn some_fault(&mut self) -> Fault {
        let ids: Vec<String> = self.world.pipeline.rows(&self.world.catalogue()).into_keys().collect();
        let (qeasy, rng) = (self.world.pipeline.qeasy, &mut self.world.rng);
        let writes = if qeasy { Endpoint::QeasyStore } else { Endpoint::HttpTarget };
        let token = if qeasy { Endpoint::QeasyToken } else { Endpoint::HttpTarget };
        let mut at = match rng.u8(0..20) {
            0 => Endpoint::OkkiToken,
            1..=3 => Endpoint::OkkiGroups,
            4..=8 => Endpoint::OkkiProducts,
            9 => token,
            10 if qeasy => Endpoint::QeasyQuery,
            _ => writes,
        };
        let seconds = *rng.choice(&[0, 1, 7, 30, 74, 76, 300, 5000]).unwrap();
        let mut kind = match rng.u8(0..26) {
            0 => FaultKind::Throttle { retry_after_seconds: None },
            1 | 2 => FaultKind::Throttle { retry_after_seconds: Some(seconds) },
            3 => FaultKind::Overloaded { retry_after_seconds: seconds },
            4 | 5 => FaultKind::Lockout,
            6 | 7 => FaultKind::Status(*rng.choice(&[400, 401, 403, 404, 413, 500, 502, 503, 504]).unwrap()),
            8 | 9 => {
                let codes =
                    [-1, 400, 404, 500, 40001, 40003, 40029, 40101, 40102, 42901, 49999, 50000, 50201];
                FaultKind::BodyCode(*rng.choice(&codes).unwrap(), "系统错误".to_owned())
            }
            10 => FaultKind::NotJson,
            11 | 12 => FaultKind::Truncated,
            // Past every limit a body costs too much to come often; under it, it is valid JSON of no use.
            13 => FaultKind::Giant(if rng.u8(0..60) == 0 { 65 << 20 } else { 300_000 }),
            14 => FaultKind::LostBefore,
            15..=17 => FaultKind::LostAfter,
            18 => FaultKind::Slow(Duration::from_millis(rng.u64(1..100_000))),
            19 => FaultKind::Redirect("https://elsewhere.example/".to_owned()),
            20 => FaultKind::AccessDenied,
            21 => FaultKind::ShiftPages,
            22 => FaultKind::SwapRows,
            _ => {
                let some = (0..rng.usize(1..5)).filter_map(|_| rng.choice(&ids).cloned()).collect();
                FaultKind::PartlyFailed(some)
            }
        };
        // Drawn apart from the other faults.
        match self.world.rows_rng.u8(0..8) {
            0 => kind = FaultKind::Echo,
            1..=4 if !self.world.reading.is_filtered() => kind = FaultKind::SwapRows,
            _ => {}
        }
        match kind {
            FaultKind::ShiftPages | FaultKind::SwapRows => at = Endpoint::OkkiProducts,
            FaultKind::PartlyFailed(_) if qeasy => at = Endpoint::QeasyStore,
            FaultKind::PartlyFailed(_) => kind = FaultKind::LostAfter,
            _ => {}
        }
        // A plain HTTP target without `success` is believed when its JSON says nothing to the contrary: documented.
        let gullible = at == Endpoint::HttpTarget && !self.world.pipeline.success_is_named;
        if gullible && matches!(kind, FaultKind::AccessDenied | FaultKind::Giant(_)) {
            kind = FaultKind::LostBefore;
        }
        let rng = &mut self.world.rng;
        let times =
            if matches!(kind, FaultKind::Giant(_)) { 1 } else { *rng.choice(&[1, 1, 1, 2, 3, 8]).unwrap() };
        let mut after = *rng.choice(&[0, 0, 1, 2, 3, 5, 9]).unwrap();
        if kind == FaultKind::SwapRows && self.world.reading.is_untimed() {
            // Past the questions that come before the pages.
            after += QUESTIONS_BEFORE_PAGES;
        }
        Fault { at, kind, times, after }
    }
}
