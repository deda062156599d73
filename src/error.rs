//! The errors that end a run, named for what the person or the caller does next.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::words::{Lang, Message, Words, say};

/// The side of the wire that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// OKKI.
    Source,
    /// Qeasy or the HTTP target.
    Target,
}

impl Words for Side {
    fn words(&self) -> Message {
        match self {
            Self::Source => say!("source"),
            Self::Target => say!("target"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

/// What kind of error it is. The name is the Lambda function's `errorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The event (or the command line) is not one of the contract's: correct it.
    BadEvent,
    /// The pipeline file has mistakes: correct it. Nothing was called.
    BadPipeline,
    /// A credential is missing or has the wrong form: provide it. Nothing was called.
    MissingCredentials,
    /// The named side refused the credentials, also when read afresh: correct them.
    CredentialsRefused(Side),
    /// The named side could not be reached, or gave up after retries: look at it, then run again.
    Unavailable(Side),
    /// The named side answered something that is not its protocol, or refused the request as such.
    BadAnswer(Side),
    /// The named side cannot do what an optional call asked for. Callers see it as a bad answer; inside, it means that
    /// there is another way.
    NotSupported(Side),
    /// The named side wants no more calls for a while: come back later.
    Throttled(Side),
    /// The source contradicts itself: a page its own total, or, read the old way, one read the other.
    InconsistentSource,
    /// The delete guard or the empty-source guard struck: look, then allow it once.
    GuardRefused,
    /// The value guards would hold back too many rows: correct them or the source.
    HeldBackTooMany,
    /// The state is damaged, newer than this program, or belongs to somebody else.
    BadState,
    /// Somebody else saved the state meanwhile: the other run is the truth.
    StateConflict,
    /// Another run of this connection is going on.
    Busy,
    /// The store cannot be read or written.
    Store,
    /// The run was asked to stop, or its time has run out: what remains is for the next run.
    Interrupted,
}

impl ErrorKind {
    /// The name that callers see: Lambda's `errorType`, the start of the report's `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadEvent => "BadEvent",
            Self::BadPipeline => "BadPipeline",
            Self::MissingCredentials => "MissingCredentials",
            Self::CredentialsRefused(Side::Source) => "SourceCredentialsRefused",
            Self::CredentialsRefused(Side::Target) => "TargetCredentialsRefused",
            Self::Unavailable(Side::Source) => "SourceUnavailable",
            Self::Unavailable(Side::Target) => "TargetUnavailable",
            Self::BadAnswer(Side::Source) | Self::NotSupported(Side::Source) => "SourceBadAnswer",
            Self::BadAnswer(Side::Target) | Self::NotSupported(Side::Target) => "TargetBadAnswer",
            Self::Throttled(Side::Source) => "SourceThrottled",
            Self::Throttled(Side::Target) => "TargetThrottled",
            Self::InconsistentSource => "InconsistentSource",
            Self::GuardRefused => "GuardRefused",
            Self::HeldBackTooMany => "HeldBackTooMany",
            Self::BadState => "BadState",
            Self::StateConflict => "StateConflict",
            Self::Busy => "Busy",
            Self::Store => "StoreUnavailable",
            Self::Interrupted => "Interrupted",
        }
    }

    /// The exit code of the command line: 2 for what its user has to correct, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadEvent | Self::BadPipeline | Self::MissingCredentials | Self::CredentialsRefused(_) => 2,
            _ => 1,
        }
    }
}

/// An error that ends a run. It prints as one line: what happened and where, then what to do.
///
/// Neither part ever holds a credential, a token or a body of our own; text that a server sent is cut short and has
/// passed `net::excerpt`. The cause is for `source()`: it may hold what no line may show.
#[derive(Debug, Clone)]
pub struct Error {
    /// What kind it is.
    pub kind: ErrorKind,
    /// What happened, and where.
    pub message: Message,
    /// What to do about it, if the message does not say so itself.
    pub help: Option<Message>,
    /// When it makes sense to come back, if that is known.
    pub resume_after: Option<Duration>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<Message>) -> Self {
        Self { kind, message: message.into(), help: None, resume_after: None, cause: None }
    }

    /// The same error, with what to do about it.
    pub fn help(mut self, help: impl Into<Message>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error, with the error that caused it.
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same error, with the time after which it makes sense to come back.
    pub fn resume_after(mut self, wait: Duration) -> Self {
        self.resume_after = Some(wait);
        self
    }

    /// `Kind: message; help`, as reports and logs show it.
    pub fn line(&self) -> String {
        format!("{}: {self}", self.kind.name())
    }

    /// The line in the language of a person. The kind's name is the same in all.
    pub fn line_in(&self, lang: Lang) -> String {
        say!("{kind}: {error}", kind = self.kind.name(), error = self).in_language(lang)
    }
}

/// Errors are equal if they say the same; the cause does not count.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.resume_after) == (other.kind, other.resume_after)
            && (&self.message, &self.help) == (&other.message, &other.help)
    }
}

impl Words for Error {
    fn words(&self) -> Message {
        match &self.help {
            Some(help) => say!("{message}; {help}", message = self.message, help),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as &(dyn std::error::Error + 'static))
    }
}

/// A mistake in a pipeline file, its environment or the credentials: where, what, and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `pipeline.toml:12 source.page_size`, or `environment TARGET_BASE_URL`. Until the file's lines are known: the
    /// key alone.
    pub place: String,
    /// What is wrong.
    pub message: Message,
    /// What to do about it.
    pub help: Message,
}

impl Diagnostic {
    /// A mistake at this place.
    pub fn new(place: impl Into<String>, message: impl Into<Message>, help: impl Into<Message>) -> Self {
        Self { place: place.into(), message: message.into(), help: help.into() }
    }
}

impl Words for Diagnostic {
    fn words(&self) -> Message {
        let place = Message::from(self.place.as_str());
        say!("{place}: {message}; {help}", place, message = self.message, help = self.help)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

/// The result of whatever can end a run.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_help_and_keeps_its_cause() {
        let refused = std::io::Error::other("Connection refused");
        let error = Error::new(ErrorKind::Store, "store s3://b: state/a.state: no answer")
            .help("look at the bucket")
            .caused_by(refused);
        assert_eq!(
            error.line(),
            "StoreUnavailable: store s3://b: state/a.state: no answer; look at the bucket"
        );
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("Connection refused"));
    }
}
