//! Windows of creation time: the way to read a source that never stands still.
//!
//! `times` (the source's clock), `ledger` and `waiting` (what was read, pure), `question` (asking), `window` (one window
//! and its proof), `second` (one that no shorter range splits), `walk` (many of them), `sizing` (how large they are, pure).
//! `okki/reading.rs` puts them together.

mod front;
pub(super) mod ledger;
pub(super) mod question;
mod second;
mod sizing;
pub(super) mod times;
mod waiting;
mod walk;
mod window;

pub(super) use ledger::{Ledger, Window};
pub(super) use question::Asker;
pub(super) use sizing::Sizing;
pub(super) use times::{Seconds, TimeAxis, TimeRange};
pub(super) use walk::{Found, SourceClock, Walk};
pub(super) use window::WindowRows;
