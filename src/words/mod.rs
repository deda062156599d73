//! What people read, in their language. The English sentence stands at the place that says it; `say!` makes a [`Message`]
//! of it, which prints as English and is looked up in `zh.toml` where Chinese is asked for.
//!
//! JSON, logs, error kinds and exit codes have one language: they take a message's `Display`, which is English. What
//! another side said stays as it is, inside of either language. Deliberately absent: a global language. Who prints
//! knows for whom.

mod catalogue;
mod lang;
mod message;
mod numbers;
mod recognise;

#[cfg(feature = "cli")]
pub(crate) use lang::has_unicode;
pub use lang::{Lang, Language};
pub use message::{Message, Words};
pub(crate) use message::{Probe, ViaDisplay, ViaWords};
pub(crate) use numbers::count;
#[cfg(feature = "cli")]
pub(crate) use numbers::grouped;
pub(crate) use recognise::{recognise, recognise_line};

/// A [`Message`] from its English sentence and what fills its placeholders: `say!("store {name}: {why}", name, why = error)`.
///
/// A value that has [`Words`] of its own (a message, an error, a side) is translated with the sentence; everything else
/// stays as it prints. The compiler compares placeholders and names; a test wants the sentence in every language.
macro_rules! say {
    ($template:literal) => {{
        $crate::words::Message::plain($template)
    }};
    ($template:literal, $($name:ident $(= $value:expr)?),+ $(,)?) => {{
        const _: fn() = || drop(format!($template, $($name = ""),+));
        #[allow(unused_imports, reason = "a sentence may need only one of the two")]
        use $crate::words::{ViaDisplay as _, ViaWords as _};
        $crate::words::Message::filled(
            $template,
            [$((stringify!($name), (&$crate::words::Probe(&$crate::words::value!($name $(= $value)?))).argument())),+],
        )
    }};
}

/// The value of one of `say!`'s names.
macro_rules! value {
    ($name:ident) => {
        $name
    };
    ($name:ident = $value:expr) => {
        $value
    };
}

/// A sentence without placeholders where plain text is wanted. Whoever shows it recognises it.
macro_rules! phrase {
    ($template:literal) => {
        $template
    };
}

/// A sentence that goes into a file, such as the reason of a quarantined row: its English text, filled in. Whoever shows it
/// recognises it.
macro_rules! written {
    ($($said:tt)+) => {
        String::from($crate::words::say!($($said)+))
    };
}

pub(crate) use {phrase, say, value, written};

#[cfg(test)]
mod tests;
