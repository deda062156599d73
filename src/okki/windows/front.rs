//! Where an open range can be closed.

use super::question::Asker;
use super::times::{SECOND_IS_OVER, Seconds, TimeAxis, TimeRange, YEAR_SECONDS};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::words::say;

/// The first guess of where an open range can be closed lies this much around `now`.
const FRONT_SECONDS: i64 = 60;
/// No time zone is farther away. (A filter that shows rows beyond it filters nothing.)
const FARTHEST_AHEAD_SECONDS: i64 = YEAR_SECONDS;

/// Up to where an open range is closed: the filter has shown a row of this second or a later one, so its clock has
/// passed what lies before, and nothing enters that any more. `now` plays no part in it: the filter may go by another
/// clock. From the front on there is at most a page of rows.
pub(super) async fn front(
    asker: Asker<'_>,
    axis: TimeAxis,
    now: Seconds,
    from: Seconds,
    page_size: u64,
) -> Result<Seconds> {
    let now = now.max(from);
    let (mut shows_more, mut ahead) = (from, FRONT_SECONDS);
    let mut shows_none = loop {
        let at = now.saturating_add(ahead);
        match asker.total(axis, TimeRange::since(at)).await? {
            0 => break at,
            rows if rows <= page_size => return Ok(at),
            _ if ahead > FARTHEST_AHEAD_SECONDS => {
                let message = say!("the source's time filter shows rows of a time that has not come");
                return Err(Error::new(ErrorKind::NotSupported(Side::Source), message));
            }
            _ => (shows_more, ahead) = (at, ahead * 8),
        }
    };
    let mut at = now - FRONT_SECONDS / 2;
    while shows_none - shows_more > 1 {
        if at <= shows_more || at >= shows_none {
            at = shows_more + (shows_none - shows_more) / 2;
        }
        match asker.total(axis, TimeRange::since(at)).await? {
            0 => shows_none = at,
            rows if rows <= page_size => return Ok(at),
            _ => shows_more = at,
        }
    }
    // One second holds them all, and more of it may still come.
    asker.budget.sleep(Side::Source, SECOND_IS_OVER).await?;
    Ok(shows_none)
}
