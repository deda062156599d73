//! What a run tells while it goes on: bars in a terminal, a line now and then elsewhere. All of it on stderr.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::show::{clean, count, duration};
use crate::error::Side;
use crate::sync::{Progress, Watch};

/// How often a phase without an end in sight says in plain lines that it is alive.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often a bar is drawn while nothing happens, so that its time goes on.
const TICK: Duration = Duration::from_millis(250);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Bars, for a terminal; with colours or without.
    Bars {
        /// Whether they have colours.
        colour: bool,
    },
    /// A line now and then.
    Lines,
    /// Not at all.
    Silent,
}

/// A phase of a run: each has its own bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Read,
    Write,
    ReadBack,
}

impl Phase {
    fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadBack => "read back",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Read => "products",
            Self::Write | Self::ReadBack => "rows",
        }
    }
}

/// Shows the progress of one run.
#[derive(Debug, Clone)]
pub(crate) struct Shown(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    how: How,
    bars: MultiProgress,
    current: Option<(Phase, ProgressBar)>,
    last_line: Instant,
}

impl Shown {
    /// For one run.
    pub(crate) fn new(how: How) -> Self {
        let bars = MultiProgress::with_draw_target(match how {
            How::Bars { .. } => ProgressDrawTarget::stderr(),
            How::Lines | How::Silent => ProgressDrawTarget::hidden(),
        });
        Self(Arc::new(Mutex::new(State { how, bars, current: None, last_line: Instant::now() })))
    }

    /// What the run reports to.
    pub(crate) fn watch(&self) -> Box<Watch> {
        let state = Arc::clone(&self.0);
        Box::new(move |progress| {
            state.lock().unwrap_or_else(PoisonError::into_inner).take(progress);
        })
    }

    /// One line of our own, above the bars.
    pub(crate) fn note(&self, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(line);
    }

    /// The run is over: the bars stay as they are.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end_phase();
    }
}

impl State {
    fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Reading { read, total } => self.step(Phase::Read, read, Some(total)),
            Progress::Writing { acknowledged, planned } => {
                self.step(Phase::Write, acknowledged, Some(planned))
            }
            Progress::ReadingBack(rows) => self.step(Phase::ReadBack, rows, None),
            Progress::ReadingAgain { attempt, why } => {
                self.note(&format!("reading again (attempt {attempt}): {}", clean(&why, 160)));
                if let Some((_, bar)) = &self.current {
                    bar.reset();
                }
            }
            Progress::Waiting { side, wait } => self.wait(side, wait),
            Progress::Planned(plan) => {
                self.end_phase();
                if self.how == How::Lines {
                    let changes = plan.create + plan.update + plan.delete;
                    self.note(&format!(
                        "planned: {} rows change, {} do not",
                        count(changes),
                        count(plan.unchanged)
                    ));
                }
            }
        }
    }

    fn step(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        match self.how {
            How::Bars { colour } => self.move_bar(phase, done, total, colour),
            How::Lines => self.line(phase, done, total),
            How::Silent => {}
        }
    }

    fn move_bar(&mut self, phase: Phase, done: u64, total: Option<u64>, colour: bool) {
        // A phase with nothing to do needs no bar.
        if total == Some(0) {
            return;
        }
        if self.current.as_ref().is_none_or(|(current, _)| *current != phase) {
            self.end_phase();
            let bar = self.bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
            bar.set_style(style(total.is_some(), colour));
            bar.set_prefix(phase.label());
            bar.enable_steady_tick(TICK);
            self.current = Some((phase, bar));
        }
        let Some((_, bar)) = &self.current else { return };
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_message("");
        bar.set_position(done);
    }

    fn line(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        let complete = total.is_some_and(|total| done >= total && total > 0);
        if !complete && self.last_line.elapsed() < PLAIN_EVERY {
            return;
        }
        self.last_line = Instant::now();
        let of = total.map(|total| format!(" of {}", count(total))).unwrap_or_default();
        self.note(&format!("{}: {}{of} {}", phase.label(), count(done), phase.unit()));
    }

    fn wait(&mut self, side: Side, time: Duration) {
        let message = format!("waiting {} for the {side}", duration(time));
        match (&self.current, self.how) {
            (Some((_, bar)), How::Bars { .. }) => bar.set_message(message),
            // The pauses between two calls are part of an ordinary pace.
            _ if time < Duration::from_secs(2) => {}
            _ => self.note(&message),
        }
    }

    fn note(&self, line: &str) {
        match self.how {
            // Writing to a stderr that is gone is no reason to end a run.
            How::Bars { .. } => self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{line}"))),
            How::Lines => drop(writeln!(std::io::stderr(), "{line}")),
            How::Silent => {}
        }
    }

    fn end_phase(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.set_message("");
            // "Abandon" leaves the bar where it got to; "finish" would draw it full even after a failure.
            bar.abandon();
        }
    }
}

fn style(with_total: bool, colour: bool) -> ProgressStyle {
    let bar = if colour { "{bar:28.cyan/black.bright}" } else { "{bar:28}" };
    let template = if with_total {
        ["{prefix:9} ", bar, " {human_pos}/{human_len} {rate} {left} {wide_msg}"].concat()
    } else {
        "{prefix:9} {spinner} {human_pos} {rate} {wide_msg}".to_owned()
    };
    // The templates are constants of ours; should one be wrong after all, the default still shows a bar.
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
        .with_key("rate", rate)
        .with_key("left", left)
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // Nothing can be done about a display buffer that refuses text.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let eta = state.eta().as_secs();
    let _ = match (state.is_finished(), eta) {
        (true, _) => write!(out, "in {}", duration(state.elapsed())),
        // Not known yet, or about to be over.
        (false, 0) => Ok(()),
        (false, eta) => write!(out, "{} left", duration(Duration::from_secs(eta))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PlanCounts;

    #[test]
    fn every_kind_of_progress_is_taken_however_it_is_shown() {
        for how in [How::Bars { colour: true }, How::Lines, How::Silent] {
            let shown = Shown::new(how);
            let watch = shown.watch();
            watch(Progress::Waiting { side: Side::Target, wait: Duration::from_secs(1) });
            watch(Progress::Reading { read: 0, total: 0 });
            watch(Progress::Reading { read: 1, total: 2 });
            watch(Progress::ReadingAgain { attempt: 2, why: "pages\u{1b}[2J moved".to_owned() });
            watch(Progress::Reading { read: 3, total: 2 });
            watch(Progress::Planned(PlanCounts::default()));
            watch(Progress::Writing { acknowledged: 1, planned: 2 });
            watch(Progress::Waiting { side: Side::Target, wait: Duration::from_secs(1) });
            watch(Progress::ReadingBack(5));
            shown.end();
        }
    }

    #[test]
    fn the_templates_are_sound() {
        for (with_total, colour) in [(true, true), (true, false), (false, true)] {
            let bar = ProgressBar::with_draw_target(Some(2), ProgressDrawTarget::hidden());
            bar.set_style(style(with_total, colour));
            bar.inc(1);
            bar.abandon();
        }
    }
}
