//! Progress on stderr while a run goes on: bars in a terminal, occasional lines elsewhere.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::term::{count, duration, print_error, sanitize};
use crate::error::Side;
use crate::sync::{Progress, Watch};
use crate::words::{Lang, Message, say};

/// How often plain lines say how far a phase has come.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often a bar is drawn while nothing happens, so that its times keep moving.
const TICK: Duration = Duration::from_millis(250);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgressMode {
    /// Bars, for a terminal.
    Bars(Drawn),
    /// A line every [`PLAIN_EVERY`].
    Lines,
    Silent,
}

/// How bars are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) colour: bool,
    /// With signs beyond ASCII.
    pub(super) unicode: bool,
}

/// A phase of a run: each has its own bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Read,
    Write,
    ReadBack,
}

impl Phase {
    fn label(self) -> Message {
        match self {
            Self::Read => say!("read"),
            Self::Write => say!("write"),
            Self::ReadBack => say!("read back"),
        }
    }

    fn unit(self) -> Message {
        match self {
            Self::Read => say!("products"),
            Self::Write | Self::ReadBack => say!("rows"),
        }
    }
}

/// Shows the progress of one run.
#[derive(Debug, Clone)]
pub(super) struct ProgressView(Arc<Mutex<BarState>>);

#[derive(Debug)]
struct BarState {
    mode: ProgressMode,
    lang: Lang,
    bars: MultiProgress,
    current: Option<(Phase, ProgressBar)>,
    last_line: Instant,
    waits_until: WaitsUntil,
}

/// When the present wait ends. The bar counts down to it, so that a long wait does not look like a hang.
type WaitsUntil = Arc<Mutex<Option<Instant>>>;

impl ProgressView {
    pub(super) fn new(mode: ProgressMode, lang: Lang) -> Self {
        let bars = MultiProgress::with_draw_target(match mode {
            ProgressMode::Bars(_) => ProgressDrawTarget::stderr(),
            ProgressMode::Lines | ProgressMode::Silent => ProgressDrawTarget::hidden(),
        });
        Self(Arc::new(Mutex::new(BarState {
            mode,
            lang,
            bars,
            current: None,
            last_line: Instant::now(),
            waits_until: WaitsUntil::default(),
        })))
    }

    /// What the run reports to.
    pub(super) fn watch(&self) -> Box<Watch> {
        let state = Arc::clone(&self.0);
        Box::new(move |progress| {
            state.lock().unwrap_or_else(PoisonError::into_inner).take(progress);
        })
    }

    /// Prints a line above the bars.
    pub(super) fn note(&self, line: &Message) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(line);
    }

    /// Prints a line after the view has ended, whatever it showed.
    pub(super) fn error(&self, line: &Message) {
        let lang = self.0.lock().unwrap_or_else(PoisonError::into_inner).lang;
        print_error(&line.in_language(lang));
    }

    /// Ends the view; bars stay where they are.
    pub(super) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end_phase();
    }
}

impl BarState {
    fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Reading { read, total } => self.step(Phase::Read, read, Some(total)),
            Progress::Writing { acknowledged, planned } => {
                self.step(Phase::Write, acknowledged, Some(planned))
            }
            Progress::ReadingBack(rows) => self.step(Phase::ReadBack, rows, None),
            Progress::ReadingAgain { attempt, why } => {
                let why = why.map_text(&|text| sanitize(text, 160));
                self.note(&say!("reading again (attempt {attempt}): {why}", attempt, why));
                if let Some((_, bar)) = &self.current {
                    bar.reset();
                }
            }
            Progress::Waiting { side, wait } => self.wait(side, wait),
            Progress::Planned(plan) => {
                self.end_phase();
                if self.mode == ProgressMode::Lines {
                    let changes = plan.create + plan.update + plan.delete;
                    self.note(&say!(
                        "planned: {changes} rows change, {unchanged} do not",
                        changes = count(changes),
                        unchanged = count(plan.unchanged),
                    ));
                }
            }
        }
    }

    fn step(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        match self.mode {
            ProgressMode::Bars(drawn) => self.move_bar(phase, done, total, drawn),
            ProgressMode::Lines => self.line(phase, done, total),
            ProgressMode::Silent => {}
        }
    }

    fn move_bar(&mut self, phase: Phase, done: u64, total: Option<u64>, drawn: Drawn) {
        // A phase with nothing to do gets no bar.
        if total == Some(0) {
            return;
        }
        if self.current.as_ref().is_none_or(|(current, _)| *current != phase) {
            self.end_phase();
            let bar = self.bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
            bar.set_style(style(total.is_some(), drawn, &self.waits_until, self.lang));
            bar.set_prefix(phase.label().in_language(self.lang));
            bar.enable_steady_tick(TICK);
            self.current = Some((phase, bar));
        }
        let Some((_, bar)) = &self.current else { return };
        if let Some(total) = total {
            bar.set_length(total);
        }
        self.set_wait(None);
        bar.set_position(done);
    }

    fn line(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        let complete = total.is_some_and(|total| done >= total && total > 0);
        if !complete && self.last_line.elapsed() < PLAIN_EVERY {
            return;
        }
        self.last_line = Instant::now();
        let (label, done, unit) = (phase.label(), count(done), phase.unit());
        self.note(&match total {
            Some(total) => say!("{label}: {done} of {total} {unit}", label, done, total = count(total), unit),
            None => say!("{label}: {done} {unit}", label, done, unit),
        });
    }

    fn wait(&self, side: Side, time: Duration) {
        match (&self.current, self.mode) {
            (Some(_), ProgressMode::Bars(_)) => self.set_wait(Instant::now().checked_add(time)),
            // Short pauses between two calls are the ordinary pace.
            _ if time < Duration::from_secs(2) => {}
            _ => self.note(&say!("waiting {time} for the {side}", time = duration(time), side)),
        }
    }

    fn set_wait(&self, until: Option<Instant>) {
        *self.waits_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn note(&self, line: &Message) {
        let line = line.in_language(self.lang);
        match self.mode {
            // A stderr that is gone does not end a run.
            ProgressMode::Bars(_) => self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{line}"))),
            ProgressMode::Lines => drop(writeln!(std::io::stderr(), "{line}")),
            ProgressMode::Silent => {}
        }
    }

    fn end_phase(&mut self) {
        self.set_wait(None);
        if let Some((_, bar)) = self.current.take() {
            // `abandon` leaves the bar where it is; `finish` would draw it full even after a failure.
            bar.abandon();
        }
    }
}

fn style(with_total: bool, drawn: Drawn, waits_until: &WaitsUntil, lang: Lang) -> ProgressStyle {
    let bar = if drawn.colour { "{bar:28.cyan/black.bright}" } else { "{bar:28}" };
    let template = if with_total {
        ["{prefix:9} ", bar, " {human_pos}/{human_len} {rate} {left} {wait}"].concat()
    } else {
        "{prefix:9} {spinner} {human_pos} {rate} {wait}".to_owned()
    };
    // The templates are constants and a test checks them; if one fails all the same, the default shows a bar.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = match drawn.unicode {
        true => style.progress_chars("━╸─"),
        false => style.progress_chars("=>-").tick_chars("|/-\\ "),
    };
    style
        .with_key("rate", rate)
        .with_key("left", move |state: &ProgressState, out: &mut dyn std::fmt::Write| left(state, out, lang))
        .with_key("wait", wait_left(waits_until, lang))
}

fn wait_left(
    waits_until: &WaitsUntil,
    lang: Lang,
) -> impl Fn(&ProgressState, &mut dyn std::fmt::Write) + Clone + Send + Sync + 'static {
    let waits_until = Arc::clone(waits_until);
    move |_, out| {
        if let Some(until) = *waits_until.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = out.write_str(&wait_text(until, Instant::now(), lang));
        }
    }
}

/// `waiting 1m 15s`; empty once the wait has ended.
fn wait_text(until: Instant, now: Instant, lang: Lang) -> String {
    match until.saturating_duration_since(now) {
        Duration::ZERO => String::new(),
        left => say!("waiting {time}", time = duration(left)).in_language(lang),
    }
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A display buffer does not fail.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

fn left(state: &ProgressState, out: &mut dyn std::fmt::Write, lang: Lang) {
    let text = match (state.is_finished(), state.eta().as_secs()) {
        (true, _) => say!("in {time}", time = duration(state.elapsed())),
        // Not known yet, or nearly done.
        (false, 0) => return,
        (false, eta) => say!("{time} left", time = duration(Duration::from_secs(eta))),
    };
    let _ = out.write_str(&text.in_language(lang));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PlanCounts;

    #[test]
    fn every_kind_of_progress_is_accepted_in_every_mode() {
        for mode in [
            ProgressMode::Bars(Drawn { colour: true, unicode: true }),
            ProgressMode::Lines,
            ProgressMode::Silent,
        ] {
            let shown = ProgressView::new(mode, Lang::Zh);
            let watch = shown.watch();
            watch(Progress::Waiting { side: Side::Target, wait: Duration::from_secs(1) });
            watch(Progress::Reading { read: 0, total: 0 });
            watch(Progress::Reading { read: 1, total: 2 });
            watch(Progress::ReadingAgain { attempt: 2, why: "pages\u{1b}[2J moved".into() });
            watch(Progress::Reading { read: 3, total: 2 });
            watch(Progress::Planned(PlanCounts::default()));
            watch(Progress::Writing { acknowledged: 1, planned: 2 });
            watch(Progress::Waiting { side: Side::Target, wait: Duration::from_secs(1) });
            watch(Progress::ReadingBack(5));
            shown.end();
        }
    }

    #[test]
    fn a_wait_counts_down_and_ends() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(wait_text(now + 75 * second, now, Lang::En), "waiting 1m 15s");
        assert_eq!(wait_text(now + 75 * second, now + 72 * second, Lang::En), "waiting 3.0s");
        assert_eq!(wait_text(now, now + second, Lang::En), "");
    }

    #[test]
    fn the_templates_are_sound() {
        for (with_total, colour, unicode) in
            [(true, true, true), (true, false, false), (false, true, true), (false, false, false)]
        {
            let bar = ProgressBar::with_draw_target(Some(2), ProgressDrawTarget::hidden());
            bar.set_style(style(with_total, Drawn { colour, unicode }, &WaitsUntil::default(), Lang::Zh));
            bar.inc(1);
            bar.abandon();
        }
    }
}
