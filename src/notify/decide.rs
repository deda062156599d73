//! What a run changes of what the group knows. Pure: no clock, no store, no robot.

use xxhash_rust::xxh3::xxh3_64;

use super::Ended;
use super::known::{Condition, Day, Known};
use super::notice::{Topic, Writer, time};
use crate::catalogue::Rejected;
use crate::error::ErrorKind;

/// Rows whose marks are kept, those with the smallest ones. Of a larger quarantine these stand for all.
pub(super) const MARKS_KEPT: usize = 1_000;

/// The group's file after this run: what it will know, with the notices that tell it.
pub(super) fn decide(known: &Known, writer: &Writer<'_>) -> Known {
    let mut next = known.clone();
    match writer.seen.ended() {
        Ended::Well => {
            recover(&mut next, writer);
            look_at_rows(&mut next, writer);
        }
        Ended::Failed(kind) => {
            let is_told = fail(&mut next, writer, kind);
            look_at_age(&mut next, writer, is_told);
        }
        Ended::Otherwise => look_at_age(&mut next, writer, false),
    }
    count(&mut next, writer);
    next
}

/// Returns whether the failure is news.
fn fail(next: &mut Known, writer: &Writer<'_>, kind: ErrorKind) -> bool {
    let name = kind.name();
    if next.condition == Condition::Failed && next.told.iter().any(|told| told == name) {
        return false;
    }
    let report = writer.seen.report;
    if next.condition == Condition::Well {
        begin_trouble(next);
        next.condition = Condition::Failed;
        next.told.clear();
        report.started_at.clone_into(&mut next.since);
    }
    next.told.push(name.to_owned());
    next.kind = Some(name.to_owned());
    report.run_id.clone_into(&mut next.run_id);
    let is_first = next.unheard || next.told.len() == 1;
    next.put(writer.failed(is_first, &next.since));
    true
}

/// A connection that fails or pauses: has it completed a run lately?
fn look_at_age(next: &mut Known, writer: &Writer<'_>, failure_is_told: bool) {
    let since_ms = match writer.seen.completed_at_ms {
        Some(at) => {
            next.watched_since_ms = None;
            at
        }
        None => *next.watched_since_ms.get_or_insert(writer.now_ms),
    };
    let age_ms = u128::from(writer.now_ms.saturating_sub(since_ms));
    if next.stale_since_ms.is_some() || age_ms < writer.settings.stale_after().as_millis() {
        return;
    }
    if next.condition == Condition::Well {
        begin_trouble(next);
    }
    next.stale_since_ms = Some(since_ms);
    // A failure says when the last run completed: one message is enough.
    if !failure_is_told {
        next.put(writer.stalled(since_ms));
    }
}

fn begin_trouble(next: &mut Known) {
    if !next.is_in_trouble() {
        // Who has not read that the last trouble is over still knows of one.
        next.unheard = next.take(Topic::Recovered).is_none();
    }
}

fn recover(next: &mut Known, writer: &Writer<'_>) {
    next.watched_since_ms = None;
    if !next.is_in_trouble() {
        return;
    }
    let (failed, stalled) = (next.take(Topic::Failed), next.take(Topic::Stalled));
    let has_failed = next.condition == Condition::Failed;
    let since = match next.stale_since_ms {
        Some(since_ms) if !has_failed => time(since_ms),
        _ => next.since.clone(),
    };
    // What nobody has heard of need not be told to be over.
    if !next.unheard {
        let was_urgent = has_failed && failed.is_none_or(|notice| notice.urgent);
        next.put(writer.recovered(was_urgent, &since));
    }
    drop(stalled);
    let report = writer.seen.report;
    (next.condition, next.kind, next.unheard, next.stale_since_ms) = (Condition::Well, None, false, None);
    next.told.clear();
    report.started_at.clone_into(&mut next.since);
    report.run_id.clone_into(&mut next.run_id);
}

/// A completed run knows the whole quarantine: which of its rows has the group not heard of?
fn look_at_rows(next: &mut Known, writer: &Writer<'_>) {
    let mut now: Vec<(String, &Rejected)> =
        writer.seen.rejected.iter().filter(|row| !row.dismissed).map(|row| (mark(row), row)).collect();
    now.sort_by(|(one, _), (other, _)| one.cmp(other));
    now.dedup_by(|(one, _), (other, _)| one == other);
    let pending = next.take(Topic::SetAside);
    if now.is_empty() {
        if !next.rows.is_empty() {
            next.put(writer.none_set_aside());
        }
        next.rows.clear();
        return;
    }
    next.take(Topic::NoneSetAside);
    // Beyond the last mark of a full list nobody knows what was told: it counts as told.
    let known_up_to = (next.rows.len() >= MARKS_KEPT).then(|| next.rows.last().cloned()).flatten();
    let is_new = |mark: &String| {
        next.rows.binary_search(mark).is_err() && known_up_to.as_ref().is_none_or(|last| mark < last)
    };
    let is_pending =
        |mark: &String| pending.as_ref().is_some_and(|notice| notice.rows.binary_search(mark).is_ok());
    let has_new = now.iter().any(|(mark, _)| is_new(mark) && !is_pending(mark));
    let to_tell = |mark: &String| is_new(mark) || is_pending(mark);
    let marks: Vec<String> =
        now.iter().map(|(mark, _)| mark).filter(|mark| to_tell(mark)).take(MARKS_KEPT).cloned().collect();
    // In the quarantine's order, as people find them there.
    let counted = writer.seen.rejected.iter().filter(|row| !row.dismissed);
    let rows: Vec<&Rejected> = counted.filter(|row| to_tell(&mark(row))).collect();
    next.rows.retain(|told| now.binary_search_by(|(mark, _)| mark.cmp(told)).is_ok());
    if let Some(last) = known_up_to {
        let room = MARKS_KEPT - next.rows.len();
        let beyond = now.iter().map(|(mark, _)| mark).filter(|mark| **mark > last).take(room).cloned();
        next.rows.extend(beyond);
    }
    match pending {
        // Nothing has changed for the one that waits.
        Some(notice) if !has_new && notice.rows == marks => next.put(notice),
        _ if !marks.is_empty() => next.put(writer.set_aside(&rows, marks)),
        _ => {}
    }
}

/// Tells one row with one kind of reason from every other. Not by its reason's text, which may be new each time.
fn mark(row: &Rejected) -> String {
    let id = row.id.as_deref().unwrap_or_else(|| row.raw.get());
    let text = format!("{:?} {} {id}", row.kind, row.reason_kind.as_str());
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

fn count(next: &mut Known, writer: &Writer<'_>) {
    let Some(at) = writer.settings.daily_digest else {
        next.day = None;
        return;
    };
    let mut day = next.day.take().unwrap_or_else(|| Day::starting(writer.now_ms, at));
    day.count(writer.seen.report);
    if writer.now_ms >= day.due_ms {
        next.put(writer.digest(&day));
        day = Day::starting(writer.now_ms, at);
    }
    next.day = Some(day);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{Ran, Told, minutes};
    use super::*;
    use crate::error::Side;
    use crate::notify::times::{QuietHours, TimeOfDay};

    const STORE: Ran<'_> = Ran::Failed(ErrorKind::Store);
    const GUARD: Ran<'_> = Ran::Failed(ErrorKind::GuardRefused);
    const PAUSED: Ran<'_> = Ran::Paused;

    #[test]
    fn each_error_is_told_once_until_the_connection_works_again() {
        let mut told = Told::default();
        assert_eq!(told.after(Ran::Well(&[])), [""; 0]);
        assert_eq!(told.after(STORE), ["the sync fails"]);
        assert_eq!(told.after(STORE), [""; 0]);
        assert_eq!(told.after(GUARD), ["the sync still fails, now with another error"]);
        for again in [STORE, GUARD, PAUSED] {
            assert_eq!(told.after(again), [""; 0]);
        }
        for nobodys in [ErrorKind::Busy, ErrorKind::StateConflict, ErrorKind::Interrupted] {
            assert_eq!(told.after(Ran::Failed(nobodys)), [""; 0]);
        }
        assert_eq!(told.after(Ran::Well(&[])), ["the sync works again"]);
        assert_eq!(told.after(Ran::Well(&[])), [""; 0]);
        assert_eq!(told.after(STORE), ["the sync fails"]);
    }

    #[test]
    fn a_connection_that_only_pauses_is_told_once_it_is_old() {
        let mut told = Told::default();
        told.after(Ran::Well(&[]));
        assert_eq!(told.later(minutes(60)).after(PAUSED), [""; 0]);
        assert_eq!(told.later(minutes(60)).after(PAUSED), ["no sync has completed for 2h 0m"]);
        assert_eq!(told.later(minutes(600)).after(PAUSED), [""; 0]);
        assert_eq!(
            told.after(Ran::Well(&["1"])),
            ["the sync works again", "rows newly in the quarantine: 1"]
        );
        // A failure that comes with it says when the last run completed.
        assert_eq!(told.later(minutes(600)).after(STORE), ["the sync fails"]);
        assert_eq!(told.after(PAUSED), [""; 0]);
        assert_eq!(told.after(Ran::Well(&["1"])), ["the sync works again"]);
    }

    #[test]
    fn one_that_never_completed_is_watched_from_its_first_run() {
        let mut told = Told::default();
        assert_eq!(told.after(PAUSED), [""; 0]);
        assert_eq!(told.later(minutes(119)).after(PAUSED), [""; 0]);
        assert_eq!(told.later(minutes(1)).after(Ran::Failed(ErrorKind::Throttled(Side::Source))).len(), 1);
        assert_eq!(told.later(minutes(1)).after(PAUSED), [""; 0]);
    }

    #[test]
    fn new_rows_are_told_and_those_that_stay_or_leave_are_not() {
        let mut told = Told::default();
        assert_eq!(told.after(Ran::Well(&["1", "2"])), ["rows newly in the quarantine: 2"]);
        assert_eq!(told.after(Ran::Well(&["2", "1"])), [""; 0]);
        assert_eq!(told.after(Ran::Well(&["2"])), [""; 0]);
        assert_eq!(told.after(PAUSED), [""; 0]);
        assert_eq!(told.after(Ran::Well(&["1", "2", "3"])), ["rows newly in the quarantine: 2"]);
        assert_eq!(told.after(Ran::Well(&[])), ["no row is in the quarantine any more"]);
        assert_eq!(told.after(Ran::Well(&[])), [""; 0]);
    }

    #[test]
    fn of_a_huge_quarantine_a_thousand_marks_are_kept_and_new_rows_still_show() {
        let ids: Vec<String> = (0..3_000).map(|id| id.to_string()).collect();
        let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut told = Told::default();
        assert_eq!(told.after(Ran::Well(&ids)), ["rows newly in the quarantine: 3000"]);
        assert_eq!(told.known.rows.len(), MARKS_KEPT);
        assert_eq!(told.after(Ran::Well(&ids)), [""; 0]);
        ids.truncate(2_900);
        assert_eq!(told.after(Ran::Well(&ids)), [""; 0], "rows that leave make no others new");
        let more: Vec<String> = (0..100).map(|id| format!("x{id}")).collect();
        ids.extend(more.iter().map(String::as_str));
        let news = told.after(Ran::Well(&ids));
        assert!(news.len() == 1 && news.first().unwrap().contains("newly"), "{news:?}");
        assert_eq!(told.after(Ran::Well(&ids)), [""; 0]);
        assert_eq!(told.known.rows.len(), MARKS_KEPT);
    }

    #[test]
    fn quiet_hours_hold_back_what_is_not_urgent_and_forget_what_passes() {
        let mut told = Told::default();
        told.settings.quiet_hours = QuietHours::parse("22:00-07:00 UTC");
        told.at("2026-01-02T21:00:00Z").after(Ran::Well(&[]));
        assert_eq!(told.at("2026-01-02T23:30:00Z").after(PAUSED), [""; 0]);
        assert_eq!(told.known.waiting.len(), 1, "it stands still, and nobody is woken for it");
        assert_eq!(told.after(Ran::Well(&["1"])), [""; 0]);
        assert_eq!(told.known.waiting.len(), 1, "the standstill has passed; the row waits");
        assert_eq!(told.after(STORE), ["the sync fails"]);
        assert_eq!(told.after(Ran::Well(&["1", "2"])), ["the sync works again"]);
        let morning = told.at("2026-01-03T07:00:00Z").after(Ran::Well(&["1", "2"]));
        assert_eq!(morning, ["rows newly in the quarantine: 2"]);
        assert_eq!(told.after(Ran::Well(&["1", "2"])), [""; 0]);
    }

    #[test]
    fn a_daily_digest_counts_the_runs_of_its_day() {
        let mut told = Told::default();
        told.settings.daily_digest = TimeOfDay::parse("09:00 UTC");
        told.at("2026-01-02T08:00:00Z");
        assert_eq!(told.after(Ran::Well(&[])), [""; 0]);
        assert_eq!(told.later(minutes(30)).after(PAUSED), [""; 0]);
        assert_eq!(told.later(minutes(45)).after(Ran::Well(&[])), ["daily digest"]);
        let lines = told.lines.join("\n");
        assert!(lines.contains("runs: 2 completed, 1 paused, 0 failed"), "{lines}");
        assert_eq!(told.later(minutes(60)).after(Ran::Well(&[])), [""; 0]);
        assert_eq!(told.at("2026-01-03T09:00:00Z").after(Ran::Well(&[])), ["daily digest"]);
        assert!(told.lines.join("\n").contains("runs: 2 completed, 0 paused"), "{:?}", told.lines);
        told.settings.daily_digest = None;
        told.after(Ran::Well(&[]));
        assert_eq!(told.known.day, None);
    }

    #[test]
    fn trouble_that_nobody_heard_of_ends_in_silence() {
        let mut told = Told { robot_takes: false, ..Told::default() };
        assert_eq!(told.after(STORE), ["the sync fails"]);
        assert_eq!(told.after(GUARD), ["the sync fails"], "the first one did not arrive");
        assert_eq!(told.after(Ran::Well(&["1"])), ["rows newly in the quarantine: 1"]);
        told.robot_takes = true;
        assert_eq!(told.after(Ran::Well(&["1", "2"])), ["rows newly in the quarantine: 2"]);
        assert_eq!(told.after(STORE), ["the sync fails"]);
        told.robot_takes = false;
        assert_eq!(told.after(Ran::Well(&[])).len(), 2, "it works again, and no row is set aside");
        told.robot_takes = true;
        // The end of the first trouble was not heard of: this is still trouble, and the group reads what it is now.
        assert_eq!(told.after(STORE), ["the sync fails", "no row is in the quarantine any more"]);
        assert_eq!(told.after(Ran::Well(&[])), ["the sync works again"]);
    }
}
