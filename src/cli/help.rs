//! The command line's words in another language than English: help, usage, and what is said of bad usage.
//!
//! The doc comments in `args.rs` are the English sentences. What clap itself says is looked up as it was printed.

use std::io::IsTerminal as _;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};

use super::args::Args;
use super::term::{print, print_error};
use crate::config::Env;
use crate::words::{Lang, Language, recognise, say};

/// Columns of a help text beside its option: what 80 columns leave.
const HELP_COLUMNS: usize = 46;
/// Columns of `[default: …]` behind it.
const DEFAULT_COLUMNS: usize = 20;
/// Columns of a whole line.
const COLUMNS: usize = 78;

/// Headings and labels of clap's, and what stands in their place. They are replaced wherever they stand.
const LABELS: [(&str, &str); 12] = [
    ("error:", "错误："),
    ("tip:", "提示："),
    ("Usage: ", "用法："),
    ("Usage:", "用法："),
    ("Commands:", "命令："),
    ("Options:", "选项："),
    ("Arguments:", "参数："),
    ("Sandbox:", "沙箱："),
    ("[OPTIONS]", "[选项]"),
    ("<COMMAND>", "<命令>"),
    ("[default: ", "[默认值："),
    ("[possible values: ", "[可选值："),
];

/// What clap says of bad usage, and the sandbox of an option: here for the test that wants it in every language.
#[cfg(test)]
#[rustfmt::skip]
const SAID_BY_CLAP: [&str; 15] = [
    "unexpected argument '{argument}' found",
    "unrecognized subcommand '{command}'",
    "invalid value '{value}' for '{argument}'",
    "invalid value '{value}' for '{argument}': {why}",
    "a value is required for '{argument}' but none was supplied",
    "the argument '{argument}' cannot be used multiple times",
    "the argument '{argument}' cannot be used with '{other}'",
    "the following required arguments were not provided:",
    "'{command}' requires a subcommand but one was not provided",
    "a similar argument exists: '{argument}'",
    "a similar subcommand exists: '{command}'",
    "to pass '{value}' as a value, use '{usage}'",
    "For more information, try '{flag}'.",
    "expected three or four whole numbers, for example 70:20:10",
    "at least one number must be above 0",
];

/// The language that this program is to speak: that of `--lang`, wherever it stands, else of the environment. Says on
/// stderr if the one that was asked for is not known.
pub fn language() -> Lang {
    let env = Env::process();
    let flag = flag(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()));
    let Language { lang, unknown } = Language::choose(flag.as_deref(), |name| env.get(name));
    if let Some(asked) = unknown {
        let asked = super::term::sanitize(&asked, 40);
        print_error(
            &say!("language \"{asked}\" is not known (zh or en); English is used", asked).to_string(),
        );
    }
    lang
}

/// The value of `--lang`. The parser looks at it later; help and bad usage need it before.
fn flag(words: impl Iterator<Item = String>) -> Option<String> {
    let mut words = words.take_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == "--lang" {
            return words.next();
        }
        if let Some(value) = word.strip_prefix("--lang=") {
            return Some(value.to_owned());
        }
    }
    None
}

/// The arguments of this process. Ends it where it was called wrongly, or for help or its version.
pub fn parse(lang: Lang) -> Args {
    let mut command = translated(Args::command(), lang);
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|mut found| {
        Args::from_arg_matches_mut(&mut found).map_err(|error| error.format(&mut command))
    });
    match parsed {
        Ok(args) => args,
        Err(error) => leave(&error, lang),
    }
}

fn leave(error: &clap::Error, lang: Lang) -> ! {
    if lang == Lang::En {
        error.exit();
    }
    let text = said(&error.render(), lang, shows_colours(error.use_stderr()));
    if error.use_stderr() {
        print_error(text.trim_end());
    } else {
        print(&text);
    }
    std::process::exit(error.exit_code())
}

fn shows_colours(stderr: bool) -> bool {
    let env = Env::process();
    let terminal = if stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    terminal && env.get("NO_COLOR").is_none() && env.get("TERM").is_none_or(|term| term != "dumb")
}

/// The command with every help text in this language, broken into the lines of a terminal.
fn translated(command: Command, lang: Lang) -> Command {
    if lang == Lang::En {
        return command;
    }
    in_language(command, lang, Lines::Folded).term_width(0)
}

/// The command line in this language, each text as one line: for a shell's completions and for `man`.
pub(super) fn command(lang: Lang) -> Command {
    in_language(Args::command(), lang, Lines::Whole)
}

/// How a translated text is broken into lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// As the columns of a terminal allow. clap breaks at spaces only, and Chinese has none.
    Folded,
    /// Not at all: somebody else breaks it.
    Whole,
}

impl Lines {
    fn of(self, text: String, columns: usize) -> String {
        if self == Self::Folded { fold(&text, columns) } else { text }
    }
}

fn in_language(mut command: Command, lang: Lang, lines: Lines) -> Command {
    // Adds the parts that clap writes itself: --help, --version, the command `help`.
    command.build();
    if lang == Lang::En { command } else { in_language_built(command, lang, lines) }
}

fn in_language_built(mut command: Command, lang: Lang, lines: Lines) -> Command {
    let here = |arg: &Arg| {
        // clap puts the default behind it.
        let shows_default = arg.get_action().takes_values() && !arg.get_default_values().is_empty();
        let columns = HELP_COLUMNS - if shows_default { DEFAULT_COLUMNS } else { 0 };
        arg.get_help().map(|text| lines.of(recognise(&text.to_string(), lang), columns))
    };
    if let Some(about) = command.get_about().map(|text| recognise(&text.to_string(), lang)) {
        command = command.about(about);
    }
    if let Some(after) = command.get_after_help().map(|text| recognise(&text.to_string(), lang)) {
        command = command.after_help(lines.of(after, COLUMNS));
    }
    command
        .mut_args(|arg: Arg| match here(&arg) {
            Some(help) => arg.help(help),
            None => arg,
        })
        .mut_subcommands(|command| in_language_built(command, lang, lines))
}

/// What clap printed, in this language.
fn said(printed: &StyledStr, lang: Lang, colours: bool) -> String {
    let text = if colours { printed.ansi().to_string() } else { printed.to_string() };
    let lines = text.lines().map(|line| {
        let mut line = sentence(line, lang);
        for (english, here) in LABELS {
            line = line.replace(english, here);
        }
        line + "\n"
    });
    lines.collect()
}

/// The line with its sentence, which stands behind a label or alone, in this language.
fn sentence(line: &str, lang: Lang) -> String {
    const RESET: &str = "\u{1b}[0m";
    let label = ["error:", "tip:"].iter().find_map(|label| Some(line.find(label)? + label.len()));
    let mut at = label.unwrap_or(0);
    let rest = line.get(at..).unwrap_or_default();
    at += if rest.starts_with(RESET) { RESET.len() } else { 0 };
    let (label, said) = line.split_at_checked(at).unwrap_or_default();
    let said = if label.is_empty() { said } else { said.trim_start() };
    format!("{label}{}", recognise(said, lang))
}

/// Breaks a text into lines of at most so many columns.
fn fold(text: &str, most: usize) -> String {
    let (mut out, mut columns) = (String::new(), 0);
    let mut rest = text;
    while let Some(piece) = next_piece(rest) {
        let width = unicode_width::UnicodeWidthStr::width(piece);
        if columns + width > most && columns > 0 {
            out.truncate(out.trim_end().len());
            out.push('\n');
            columns = 0;
        }
        let piece_here = if columns == 0 { piece.trim_start() } else { piece };
        out.push_str(piece_here);
        columns += unicode_width::UnicodeWidthStr::width(piece_here);
        rest = rest.get(piece.len()..).unwrap_or_default();
    }
    out
}

/// What stays on one line: a Han character with the punctuation around it, or a word with its space.
fn next_piece(text: &str) -> Option<&str> {
    let is_wide = |c: char| unicode_width::UnicodeWidthChar::width(c) == Some(2);
    let closes = |c: char| "，。；：、）」！？…".contains(c);
    let mut chars = text.char_indices().peekable();
    let (_, first) = chars.next()?;
    let mut end = first.len_utf8();
    let mut last = first;
    for (at, c) in chars {
        let breaks = !closes(c) && last != '（' && (is_wide(c) || is_wide(last) || last == ' ');
        if breaks {
            break;
        }
        end = at + c.len_utf8();
        last = c;
    }
    text.get(..end)
}

/// Every help text of the command line, in English.
#[cfg(test)]
pub(crate) fn sentences() -> Vec<String> {
    fn collect(command: &Command, sentences: &mut Vec<String>) {
        let texts = [command.get_about(), command.get_after_help()];
        sentences.extend(texts.iter().flatten().map(ToString::to_string));
        sentences.extend(command.get_arguments().filter_map(|arg| Some(arg.get_help()?.to_string())));
        command.get_subcommands().for_each(|command| collect(command, sentences));
    }
    let mut command = Args::command();
    command.build();
    let mut sentences = SAID_BY_CLAP.map(str::to_owned).to_vec();
    collect(&command, &mut sentences);
    sentences
}

#[cfg(test)]
mod tests;
