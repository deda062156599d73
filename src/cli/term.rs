//! The terminal: what the two streams are, colours, text made safe to print, numbers for people, signals.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use owo_colors::OwoColorize as _;

use super::progress::{Drawn, ProgressMode, ProgressView};
use crate::config::Env;
use crate::report::Status;
use crate::sync::DiffKind;
pub(super) use crate::words::count;
use crate::words::{Lang, Message, Words as _, has_unicode, say};

/// What the two output streams are, found out once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// stdout is a terminal.
    pub(super) out: bool,
    /// stderr is a terminal that bars can be drawn on.
    pub(super) err: bool,
    /// Neither `NO_COLOR` nor `TERM=dumb` is set.
    colour: bool,
    /// The locale's character set has the signs of a tree and a bar.
    unicode: bool,
    /// Logs share stderr.
    verbose: bool,
    /// What its reader speaks.
    pub(super) lang: Lang,
}

impl Screen {
    pub(super) fn new(env: &Env, verbose: bool, lang: Lang) -> Self {
        let dumb = env.get("TERM").is_some_and(|term| term == "dumb");
        Self {
            out: std::io::stdout().is_terminal(),
            err: std::io::stderr().is_terminal() && !dumb,
            colour: !dumb && env.get("NO_COLOR").is_none(),
            unicode: has_unicode(|name| env.get(name)),
            verbose,
            lang,
        }
    }

    /// The message for the one who reads this screen.
    pub(super) fn say(self, message: &Message) -> String {
        self.drawable(&message.in_language(self.lang)).into_owned()
    }

    /// Prints text for people on stdout.
    pub(super) fn print(self, text: &str) {
        print(&self.drawable(text));
    }

    /// The text with signs that this screen can draw. Names stay as they are, whatever it can draw.
    fn drawable(self, text: &str) -> Cow<'_, str> {
        if self.unicode || !text.contains(|c| ascii(c).is_some()) {
            return Cow::Borrowed(text);
        }
        let mut drawable = String::with_capacity(text.len());
        for c in text.chars() {
            match ascii(c) {
                Some(sign) => drawable.push_str(sign),
                None => drawable.push(c),
            }
        }
        Cow::Owned(drawable)
    }

    /// The style of text on stdout.
    pub(super) fn style(self) -> Style {
        Style { colour: self.out && self.colour, lang: self.lang }
    }

    /// The view of a run where stdout gets text for people.
    pub(super) fn view(self) -> ProgressView {
        ProgressView::new(self.progress(), self.lang)
    }

    /// The view of a run where stdout gets nothing but JSON.
    pub(super) fn view_with_json(self) -> ProgressView {
        ProgressView::new(self.progress_with_json(), self.lang)
    }

    fn progress(self) -> ProgressMode {
        self.progress_if(self.out, ProgressMode::Lines)
    }

    fn progress_with_json(self) -> ProgressMode {
        self.progress_if(true, ProgressMode::Silent)
    }

    /// Bars, if stderr can show them and `alone` says that nothing else is printed there. Logs would tear them apart.
    fn progress_if(self, alone: bool, otherwise: ProgressMode) -> ProgressMode {
        if self.err && !self.verbose && alone {
            ProgressMode::Bars(Drawn { colour: self.colour, unicode: self.unicode })
        } else {
            otherwise
        }
    }
}

/// What stands for a sign of ours where a character set has only ASCII.
fn ascii(sign: char) -> Option<&'static str> {
    Some(match sign {
        '├' | '│' => "|",
        '└' => "`",
        '─' | '·' => "-",
        '→' => "->",
        '…' => "...",
        _ => return None,
    })
}

// Writes that fail are ignored: a reader that went away (`| head`) must not cause a panic.

pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn print_error(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Colours text or leaves it plain, and translates it: decided once for the stream that is written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Whether ANSI codes are wanted.
    pub(super) colour: bool,
    /// What its reader speaks.
    pub(super) lang: Lang,
}

impl Style {
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { colour: false, lang: Lang::En };

    pub(super) fn say(self, message: &Message) -> String {
        message.in_language(self.lang)
    }

    fn apply(self, style: owo_colors::Style, text: &str) -> String {
        if self.colour { text.style(style).to_string() } else { text.to_owned() }
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.apply(owo_colors::Style::new().dimmed(), text)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.apply(owo_colors::Style::new().bold(), text)
    }

    /// The mark of a row in the tree of a plan or a verification.
    pub(super) fn mark(self, kind: DiffKind) -> String {
        let plain = owo_colors::Style::new();
        let style = match kind {
            DiffKind::Same => plain.dimmed(),
            // In a plan the row is deleted; in a verification it is extra. Both deserve a look.
            DiffKind::OnlyTarget => plain.red(),
            DiffKind::Differs => plain.yellow(),
            DiffKind::NotComparable => plain.red().bold(),
            DiffKind::OnlySource => plain.green(),
            DiffKind::Heading => plain,
        };
        self.apply(style, &kind.mark().to_string())
    }

    pub(super) fn status(self, status: Status) -> String {
        let plain = owo_colors::Style::new();
        let style = match status {
            Status::Succeeded => plain.green(),
            Status::Partial | Status::Paused => plain.yellow(),
            Status::Failed => plain.red(),
        };
        self.apply(style.bold(), &self.say(&status.words()))
    }
}

/// Makes text from outside fit for a terminal: one line of at most `max_chars`, without escape sequences or
/// control characters.
pub(super) fn sanitize(text: &str, max_chars: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            c if c.is_whitespace() => clean.push(' '),
            c if c.is_control() || is_direction(c) => {}
            c => clean.push(c),
        }
    }
    let clean = clean.trim();
    match clean.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", clean.get(..end).unwrap_or_default()),
        None => clean.to_owned(),
    }
}

/// Characters that reorder a line or are invisible: they could make one name look like another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Skips the rest of an escape sequence: harmless without its escape character, but in the way.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    let mut ahead = chars.clone();
    let end: fn(char) -> bool = match ahead.next() {
        Some('[') => |c| ('\u{40}'..='\u{7e}').contains(&c),
        Some(']' | 'P' | 'X' | '^' | '_') => |c| c == '\u{7}' || c == '\\',
        _ => return,
    };
    // The text of a sequence that never ends is kept.
    if ahead.any(end) {
        *chars = ahead;
    }
}

/// A duration in the two units that matter: `4h 2m`, `12m 5s`, `3.2s`, `80ms`.
pub(super) fn duration(time: Duration) -> Message {
    let (seconds, ms) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 => say!("{ms}ms", ms),
        1..60 => say!("{seconds}s", seconds = format!("{seconds}.{}", ms / 100)),
        60..3600 => say!("{minutes}m {seconds}s", minutes = seconds / 60, seconds = seconds % 60),
        _ => say!("{hours}h {minutes}m", hours = seconds / 3600, minutes = seconds % 3600 / 60),
    }
}

/// A number of things, in the singular or the plural: `counted!(n, "{n} row", "{n} rows")`.
macro_rules! counted {
    ($count:expr, $one:literal, $many:literal) => {{
        let n = $crate::words::count($count);
        if $count == 1 { $crate::words::say!($one, n) } else { $crate::words::say!($many, n) }
    }};
}
pub(super) use counted;

/// The text with spaces after it up to this number of columns. A Han character takes two.
pub(super) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(unicode_width::UnicodeWidthStr::width(text));
    format!("{text}{:missing$}", "")
}

/// Ctrl-C and, on Unix, SIGTERM.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next signal.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for the next Ctrl-C; for ever where none can be received.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        assert_eq!(sanitize("a\u{1b}[2Jb\u{1b}]0;title\u{7}c\u{1b}]8;;x\u{1b}\\d", 80), "abcd");
        assert_eq!(sanitize(" a\r\n\tb\u{9b}31m\u{202e}\u{7f} ", 80), "a   b31m");
        assert_eq!(sanitize("a\u{1b}]never ends\u{1b}", 80), "a]never ends");
        assert_eq!(sanitize("手机手机", 3), "手机手…");
    }

    #[test]
    fn durations_are_short() {
        let shown = |ms| duration(Duration::from_millis(ms)).to_string();
        assert_eq!(
            [shown(80), shown(3_290), shown(725_000), shown(14_520_000)],
            ["80ms", "3.2s", "12m 5s", "4h 2m"]
        );
    }

    #[test]
    fn a_han_character_takes_two_columns() {
        assert_eq!(
            [pad("计划", 6), pad("plan", 6), pad("隔离区是满的", 6)],
            ["计划  ", "plan  ", "隔离区是满的"]
        );
    }

    const PLAIN: Screen =
        Screen { out: true, err: true, colour: true, unicode: false, verbose: false, lang: Lang::En };

    #[test]
    fn a_screen_without_unicode_gets_signs_of_ascii_and_names_as_they_are() {
        let tree = "= ├─ 灯 Lights 1\n= │  └─ Garden 2  cost 1 → 2 · name … more";
        assert_eq!(PLAIN.drawable(tree), "= |- 灯 Lights 1\n= |  `- Garden 2  cost 1 -> 2 - name ... more");
        assert_eq!(Screen { unicode: true, ..PLAIN }.drawable(tree), tree);
        assert_eq!(PLAIN.say(&say!("… and {more} more rows", more = 3)), "... and 3 more rows");
    }

    #[test]
    fn bars_are_drawn_only_where_nothing_tears_them() {
        let screen = |out, err, verbose| Screen { out, err, verbose, unicode: true, ..PLAIN };
        let bars = ProgressMode::Bars(Drawn { colour: true, unicode: true });
        assert_eq!(screen(true, true, false).progress(), bars);
        assert_eq!(screen(false, true, false).progress(), ProgressMode::Lines);
        assert_eq!(screen(true, true, true).progress(), ProgressMode::Lines);
        assert_eq!(screen(false, true, false).progress_with_json(), bars);
        assert_eq!(screen(false, false, false).progress_with_json(), ProgressMode::Silent);
    }
}
