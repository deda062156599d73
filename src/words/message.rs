//! A sentence with what fills it.

use std::fmt;
use std::ops::Deref;

use super::catalogue::template_in;
use super::{Lang, recognise};

/// A sentence for people: an English one with what fills it, or text as somebody else wrote it.
///
/// It reads as its English text, `Display` and `Serialize` included.
#[derive(Clone)]
pub struct Message(Said);

#[derive(Clone)]
enum Said {
    /// A sentence without placeholders; its braces are braces.
    Plain(&'static str),
    Filled(Box<Filled>),
    /// Not ours, or ours of long ago.
    AsItIs(Box<str>),
}

#[derive(Clone)]
struct Filled {
    english: String,
    template: &'static str,
    arguments: Box<[(&'static str, Argument)]>,
}

/// What fills a placeholder.
#[derive(Clone)]
pub(crate) enum Argument {
    /// The same in every language.
    Text(Box<str>),
    Message(Message),
}

/// What has words of its own in every language.
pub trait Words {
    /// What to say.
    fn words(&self) -> Message;
}

impl Words for Message {
    fn words(&self) -> Message {
        self.clone()
    }
}

impl<T: Words + ?Sized> Words for &T {
    fn words(&self) -> Message {
        (**self).words()
    }
}

/// Finds out for `say!` whether a value has [`Words`] or only prints. (A method of the value behind one reference is
/// found before one behind two.)
pub(crate) struct Probe<'a, T: ?Sized>(pub(crate) &'a T);

pub(crate) trait ViaWords {
    fn argument(&self) -> Argument;
}

impl<T: Words + ?Sized> ViaWords for Probe<'_, T> {
    fn argument(&self) -> Argument {
        Argument::Message(self.0.words())
    }
}

pub(crate) trait ViaDisplay {
    fn argument(&self) -> Argument;
}

impl<T: fmt::Display + ?Sized> ViaDisplay for &Probe<'_, T> {
    fn argument(&self) -> Argument {
        Argument::Text(self.0.to_string().into())
    }
}

impl Message {
    /// A sentence without placeholders. (`say!` calls it: the sentence must be in every language.)
    pub(crate) const fn plain(text: &'static str) -> Self {
        Self(Said::Plain(text))
    }

    /// A sentence with placeholders. (`say!` calls it.)
    pub(crate) fn filled<const N: usize>(
        template: &'static str,
        arguments: [(&'static str, Argument); N],
    ) -> Self {
        Self::of(template, Box::new(arguments))
    }

    fn of(template: &'static str, arguments: Box<[(&'static str, Argument)]>) -> Self {
        let english = fill(template, &arguments, Lang::En);
        Self(Said::Filled(Box::new(Filled { english, template, arguments })))
    }

    /// The whole sentence in this language; English where that language lacks it.
    pub fn in_language(&self, lang: Lang) -> String {
        match (&self.0, lang) {
            (_, Lang::En) => self.as_str().to_owned(),
            (Said::Plain(text), _) => template_in(text, lang).to_owned(),
            (Said::Filled(said), _) => fill(template_in(said.template, lang), &said.arguments, lang),
            // It may be a sentence of ours all the same, read from a file.
            (Said::AsItIs(text), _) => recognise(text, lang),
        }
    }

    fn as_str(&self) -> &str {
        match &self.0 {
            Said::Plain(text) => text,
            Said::Filled(said) => &said.english,
            Said::AsItIs(text) => text,
        }
    }

    /// The same message with all text that it did not write itself changed by `change`.
    #[must_use]
    pub(crate) fn map_text(self, change: &impl Fn(&str) -> String) -> Self {
        match self.0 {
            Said::Plain(_) => self,
            Said::AsItIs(text) => Self(Said::AsItIs(change(&text).into())),
            Said::Filled(said) => {
                let changed = said.arguments.into_iter().map(|(name, argument)| {
                    let argument = match argument {
                        Argument::Text(text) => Argument::Text(change(&text).into()),
                        Argument::Message(message) => Argument::Message(message.map_text(change)),
                    };
                    (name, argument)
                });
                Self::of(said.template, changed.collect())
            }
        }
    }
}

fn fill(template: &str, arguments: &[(&'static str, Argument)], lang: Lang) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    for part in parts(template) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Hole(name) => match arguments.iter().find(|(named, _)| *named == name) {
                Some((_, Argument::Text(text))) => out.push_str(text),
                Some((_, Argument::Message(message))) => out.push_str(&message.in_language(lang)),
                // The compiler and a test see to it that there is none.
                None => out.push_str(name),
            },
        }
    }
    out
}

/// Its English text, as tests, logs and JSON take it.
impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl serde::Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

/// Messages are equal if they say the same.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Message {}

impl PartialEq<str> for Message {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Message {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Message {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

/// Text as somebody else wrote it.
impl From<String> for Message {
    fn from(text: String) -> Self {
        Self(Said::AsItIs(text.into()))
    }
}

/// Text as somebody else wrote it.
impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self(Said::AsItIs(text.into()))
    }
}

/// Its English text, for files.
impl From<Message> for String {
    fn from(message: Message) -> Self {
        match message.0 {
            Said::Plain(text) => text.to_owned(),
            Said::Filled(said) => said.english,
            Said::AsItIs(text) => text.into(),
        }
    }
}

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Hole(&'a str),
}

/// The pieces of a template. A brace that opens no placeholder is a brace.
pub(super) fn parts(template: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        let (part, after) = match hole(rest) {
            Some((name, after)) => (Part::Hole(name), after),
            None => {
                let mut next = rest.char_indices().skip(1).map(|(at, _)| at);
                let end = next.find(|at| rest.get(*at..).and_then(hole).is_some());
                let (text, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
                (Part::Text(text), after)
            }
        };
        let is_over = rest.is_empty();
        rest = after;
        (!is_over).then_some(part)
    })
}

/// The placeholder that the text begins with, and what follows it.
fn hole(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then_some((name, after))
}
