//! What the answers of both kinds of target have in common: verdicts, codes and counts in a JSON body.

use serde_json::Value;

use super::body::AnswerBody;
use crate::error::{ErrorKind, Side};
use crate::net::retry::FailureKind;
use crate::net::{Answer, CallError, Field, UNQUOTED, excerpt, is_page, server_message};
use crate::testing::Mutant;
use crate::words::{Message, written};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every row is stored.
    Accepted,
    /// Some rows are not stored, and the answer does not say which.
    PartlyFailed { failed: FailedRows, reason: String },
    /// The batch was refused because of a row (or its size): a smaller one may pass.
    Refused(String),
    /// The same, because a pointer of `success` does not lead to its value.
    Unfulfilled { asked: String, said: String },
    /// No answer came; asking what is stored is cheaper than sending it again.
    Lost,
}

impl Verdict {
    /// This verdict with the reason of the one on the same answer without its secrets.
    pub(super) fn requoted(self, without_secrets: Option<Self>) -> Self {
        let reason = match without_secrets {
            Some(
                Self::Refused(reason)
                | Self::PartlyFailed { reason, .. }
                | Self::Unfulfilled { said: reason, .. },
            ) => reason,
            _ => UNQUOTED.to_owned(),
        };
        match self {
            Self::Refused(_) => Self::Refused(reason),
            Self::Unfulfilled { asked, .. } => Self::Unfulfilled { asked, said: reason },
            Self::PartlyFailed { failed, .. } => Self::PartlyFailed { failed, reason },
            Self::Accepted | Self::Lost => self,
        }
    }
}

/// How many rows of a batch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailedRows {
    Count(u64),
    /// The answer says so in a form that cannot be read: perhaps all of them.
    Unknown,
}

impl FailedRows {
    /// At most this many, in a batch of `rows`.
    pub(super) fn at_most(self, rows: usize) -> u64 {
        match self {
            Self::Count(failed) => failed.min(rows as u64),
            Self::Unknown => rows as u64,
        }
    }
}

/// A page of rows that was read back.
#[derive(Debug, Default)]
pub(super) struct ReadPage {
    pub rows: Vec<Value>,
    /// How many there are in all, if the answer says so.
    pub total: Option<u64>,
}

/// The `code` of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyCode {
    /// There is none, or `null`.
    Absent,
    /// A number, perhaps as a string.
    Number(i64),
    /// Anything else. No success is announced in this form.
    Unreadable,
}

impl BodyCode {
    pub(super) fn of(body: &AnswerBody) -> Self {
        match &body.code {
            Field::Absent | Field::Null => Self::Absent,
            code => code.integer().map_or(Self::Unreadable, Self::Number),
        }
    }

    pub(super) fn allows_success(self) -> bool {
        matches!(self, Self::Absent | Self::Number(0 | 200))
    }
}

/// Whether `success` says no, in one of the forms that were seen.
pub(super) fn denies_success(body: &AnswerBody) -> bool {
    match &body.success {
        Field::Bool(success) => !success,
        Field::Text(word) => word.eq_ignore_ascii_case("false") || word == "0",
        Field::Integer(number) => *number == 0,
        _ => false,
    }
}

/// Why a firewall in front of the target refuses a batch. It dislikes a row of it, such as a name with `<script>`: a
/// refused key is found out at the login, or answered without a page.
pub(super) fn refused_by_firewall(answer: &Answer) -> Option<String> {
    let status = answer.status.as_u16();
    let refuses = matches!(status, 403 | 405) && is_page(answer);
    refuses.then(|| {
        let page = server_message(&answer.body);
        written!("HTTP {status} with a page, as a firewall answers that dislikes a row: {page}", status, page)
    })
}

/// The verdict on a body that announces a success for a batch of `sent` rows: it may still count rows that failed, or
/// fewer rows than were sent.
pub(super) fn count_rows(body: &AnswerBody, sent: usize) -> Verdict {
    let failed = match Counted::of(body.count(|body| &body.failed)) {
        Counted::Nothing => FailedRows::Count(0),
        Counted::Rows(failed) => FailedRows::Count(failed),
        Counted::Unreadable => FailedRows::Unknown,
    };
    let reason = body.message.text().unwrap_or("no reason given");
    let reason = excerpt(reason, &[]);
    if let Some((missing, counts)) = rows_left_out(body, failed, sent as u64) {
        let failed = FailedRows::Count(missing);
        return Verdict::PartlyFailed {
            failed,
            reason: written!("{reason} (it counts {counts})", reason, counts),
        };
    }
    if failed == FailedRows::Count(0) || Mutant::IgnoreFailed.is_active() {
        return Verdict::Accepted;
    }
    Verdict::PartlyFailed { failed, reason }
}

/// How many rows are not stored if the answer counts fewer rows than were sent, and its counts in words.
///
/// A scheme whose idCheck is on excludes a row that it has. Whether it counts the row as failed is not documented.
fn rows_left_out(body: &AnswerBody, failed: FailedRows, sent: u64) -> Option<(u64, String)> {
    let (Counted::Rows(inserted), FailedRows::Count(failed)) =
        (Counted::of(body.count(|body| &body.inserted)), failed)
    else {
        return None;
    };
    let updated = match Counted::of(body.count(|body| &body.updated)) {
        Counted::Rows(updated) => updated,
        Counted::Nothing | Counted::Unreadable => 0,
    };
    let stored = inserted.saturating_add(updated);
    if stored.saturating_add(failed) >= sent || Mutant::IgnoreInserted.is_active() {
        return None;
    }
    Some((sent - stored, written!("{stored} rows stored and {failed} failed", stored, failed)))
}

/// A count in a body.
enum Counted {
    /// There is none, or `null`.
    Nothing,
    Rows(u64),
    Unreadable,
}

impl Counted {
    /// A number, perhaps as text, or a list of the rows.
    fn of(field: &Field) -> Self {
        match field {
            Field::Absent | Field::Null => Self::Nothing,
            Field::List(rows) => Self::Rows(*rows),
            other => {
                other.integer().and_then(|rows| u64::try_from(rows).ok()).map_or(Self::Unreadable, Self::Rows)
            }
        }
    }
}

/// An answer that is not this protocol. A proxy's error page looks like this, so another attempt may end otherwise.
pub(super) fn bad_answer(message: impl Into<Message>) -> CallError {
    CallError::new(FailureKind::ServerError, ErrorKind::BadAnswer(Side::Target), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_number_perhaps_as_text_or_it_is_no_success() {
        let code = |json: &str| BodyCode::of(&AnswerBody::parse(json.as_bytes()).unwrap_or_default());
        for (json, expected, allows_success) in [
            (r#"{}"#, BodyCode::Absent, true),
            (r#"{"code":null}"#, BodyCode::Absent, true),
            (r#"{"code":0}"#, BodyCode::Number(0), true),
            (r#"{"code":" 200 "}"#, BodyCode::Number(200), true),
            (r#"{"code":40001}"#, BodyCode::Number(40001), false),
            (r#"{"code":"A0400"}"#, BodyCode::Unreadable, false),
            (r#"{"code":[]}"#, BodyCode::Unreadable, false),
        ] {
            assert_eq!((code(json), code(json).allows_success()), (expected, allows_success), "{json}");
        }
    }

    #[test]
    fn rows_that_are_counted_neither_as_stored_nor_as_failed_are_not_stored() {
        for (body, not_stored) in [
            (r#"{"content":{"inserted":3,"failed":0}}"#, None),
            (r#"{"content":{"inserted":0,"failed":0}}"#, Some(3)),
            (r#"{"content":{"inserted":1,"failed":1}}"#, Some(2)),
            (r#"{"content":{"inserted":1,"failed":2}}"#, Some(2)),
            (r#"{"inserted":"2"}"#, Some(1)),
            (r#"{"data":{"inserted":["a"],"updated":2}}"#, None),
            (r#"{"inserted":4}"#, None),
            (r#"{"inserted":true}"#, None),
            (r#"{"inserted":null,"failed":0}"#, None),
            ("{}", None),
        ] {
            let answer = AnswerBody::parse(body.as_bytes()).unwrap_or_default();
            let read = match count_rows(&answer, 3) {
                Verdict::PartlyFailed { failed: FailedRows::Count(failed), .. } => Some(failed),
                _ => None,
            };
            assert_eq!(read, not_stored, "{body}");
        }
    }

    #[test]
    fn of_an_unreadable_count_all_rows_may_have_failed() {
        assert_eq!(FailedRows::Unknown.at_most(7), 7);
        assert_eq!(FailedRows::Count(9).at_most(7), 7);
        assert_eq!(FailedRows::Count(2).at_most(7), 2);
    }
}
