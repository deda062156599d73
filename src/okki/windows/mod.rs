//! Windows of creation time: the way to read a source that never stands still.
//!
//! `times` (the source's clock), `ledger` (what was read, pure), `question` (asking), `window` (one window and its
//! proof), `walk` (many of them). `okki/reading.rs` puts them together.

mod front;
pub(super) mod ledger;
pub(super) mod question;
pub(super) mod times;
mod walk;
mod window;

pub(super) use ledger::{Ledger, Window};
pub(super) use question::Asker;
pub(super) use times::{Seconds, TimeAxis, TimeRange};
pub(super) use walk::{Found, PAGES_OF_A_WINDOW, Sizing, SourceClock, Walk};
pub(super) use window::WindowRows;
