//! The guard against value guards that hold back too much: then the guard is more often wrong than the rows.

use crate::catalogue::{Catalogue, ReasonKind, Rejected, RowKind};
use crate::error::{Error, ErrorKind, Result};
use crate::words::{Message, say};

/// So many rows may always be held back: small catalogues have large ratios.
const MIN_HELD: usize = 10;

/// How much value guards may hold back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HeldGuard {
    /// A run that would hold back a larger share is refused.
    pub max_held_ratio: f64,
}

impl HeldGuard {
    /// Refuses a plan whose value guards hold back too many of these rows: groups of groups, products of products.
    pub(crate) fn check(self, catalogue: &Catalogue, rejected: &[Rejected]) -> Result<()> {
        let all = [(RowKind::Group, catalogue.groups.len()), (RowKind::Product, catalogue.product_count())];
        let refusal = all.into_iter().find_map(|(kind, of)| self.refusal(kind, of, rejected));
        refusal.map_or(Ok(()), |what| {
            let error = Error::new(ErrorKind::HeldBackTooMany, say!("{what}; nothing was written", what));
            Err(error.help(say!(
                "look with okki-sync plan; correct [[guard.values]] or the source, or raise guard.max_held_ratio"
            )))
        })
    }

    fn refusal(self, kind: RowKind, of: usize, rejected: &[Rejected]) -> Option<Message> {
        let mut held = rejected.iter().filter(|row| row.kind == kind && row.reason_kind == ReasonKind::Held);
        let first = held.next()?;
        let held = 1 + held.count();
        let ratio = ratio(held, of);
        (held > MIN_HELD && ratio > self.max_held_ratio).then(|| {
            say!(
                "value guards hold back {held} of {of} {kinds} ({percent} %), guard.max_held_ratio allows \
                 {allowed} %; the first is {id}: {reason}",
                held,
                of,
                kinds = match kind {
                    RowKind::Group => say!("groups"),
                    RowKind::Product => say!("products"),
                    RowKind::Record => say!("records"),
                },
                percent = format!("{:.0}", ratio * 100.0),
                allowed = format!("{:.0}", self.max_held_ratio * 100.0),
                id = first.id.as_deref().unwrap_or_default(),
                reason = Message::from(first.reason.as_str()),
            )
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52, where f64 is exact")]
fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Group, Reason};

    fn check(held: usize, of: usize) -> bool {
        let group = |id: usize| Group {
            id: id.to_string().as_str().into(),
            name: String::new(),
            parent: None,
            layer: 1,
            path: String::new(),
        };
        let catalogue = Catalogue { groups: (0..of).map(group).collect(), ..Catalogue::default() };
        let reject = |id: usize, kind| {
            Rejected::new(RowKind::Group, Some(id.to_string()), Reason::new(kind, "why"), "{}")
        };
        let other = (0..of).map(|id| reject(id, ReasonKind::Misfit));
        let rejected: Vec<_> = (0..held).map(|id| reject(id, ReasonKind::Held)).chain(other).collect();
        HeldGuard { max_held_ratio: 0.2 }.check(&catalogue, &rejected).is_ok()
    }

    #[test]
    fn many_rows_and_a_large_share_are_refused_and_other_reasons_do_not_count() {
        for (held, of, passes) in [
            (0, 100, true),
            (20, 100, true),
            (21, 100, false),
            (10, 10, true),
            (11, 11, false),
            (11, 55, true),
        ] {
            assert_eq!(check(held, of), passes, "{held} of {of}");
        }
    }
}
