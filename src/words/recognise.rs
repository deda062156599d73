//! Finds the sentence in finished English text, such as the reason of a quarantined row or the error of a stored report.
//!
//! Files hold English, whoever reads them later. A template fits if its words stand in the text in their order; the one
//! with the most words wins, and what fills its placeholders is looked at in the same way. Text that no template fits is
//! somebody else's, and stays.

use super::Lang;
use std::sync::OnceLock;

use super::catalogue::chinese;
use super::message::{Part, parts};

/// Letters that a template must have of its own: `{what}: {why}` would fit everything.
const FEWEST_LETTERS: usize = 4;
/// Sentences inside of sentences.
const DEEPEST: usize = 4;

/// The text in this language, as far as it is a sentence of ours.
pub(crate) fn recognise(text: &str, lang: Lang) -> String {
    match lang {
        Lang::En => text.to_owned(),
        Lang::Zh => known(text, DEEPEST).unwrap_or_else(|| text.to_owned()),
    }
}

/// The same for `Kind: message; help` and for `message; help`, each part by itself. The line itself if no part is ours.
pub(crate) fn recognise_line(line: &str, lang: Lang) -> String {
    if lang == Lang::En {
        return line.to_owned();
    }
    let (kind, said) = match line.split_once(": ") {
        Some((kind, said)) if kind.chars().all(|c| c.is_ascii_alphabetic()) => (kind, said),
        _ => ("", line),
    };
    let told = with_help(said);
    match (kind, told == said) {
        (_, true) => line.to_owned(),
        ("", false) => told,
        (kind, false) => format!("{kind}：{told}"),
    }
}

fn with_help(said: &str) -> String {
    if let Some(known) = known(said, DEEPEST) {
        return known;
    }
    // The help is the last part that is a sentence of its own.
    let help = said.match_indices("; ").find_map(|(at, semicolon)| {
        let (message, help) = (said.get(..at)?, said.get(at + semicolon.len()..)?);
        Some((message, known(help, DEEPEST)?))
    });
    match help {
        Some((message, help)) => format!("{}；{help}", behind_its_place(message)),
        None => behind_its_place(said),
    }
}

/// `place: message`, where only the message is a sentence.
fn behind_its_place(said: &str) -> String {
    if let Some(known) = known(said, DEEPEST) {
        return known;
    }
    let message = said.match_indices(": ").find_map(|(at, colon)| {
        let (place, message) = (said.get(..at)?, said.get(at + colon.len()..)?);
        Some((place, known(message, DEEPEST)?))
    });
    message.map_or_else(|| said.to_owned(), |(place, message)| format!("{place}：{message}"))
}

fn known(text: &str, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    if let Some(whole) = chinese().get(text) {
        return Some(whole.clone());
    }
    let fitting = templates().iter().filter_map(|template| Some((template, holes(&template.pieces, text)?)));
    let (template, holes) = fitting.max_by_key(|(template, _)| template.rank)?;
    let mut said = String::new();
    for part in parts(template.here) {
        match part {
            Part::Text(text) => said.push_str(text),
            Part::Hole(name) => {
                let (_, filled) = holes.iter().find(|(named, _)| *named == name)?;
                let inner = may_be_a_sentence(name, filled).then(|| known(filled, depth)).flatten();
                said.push_str(inner.as_deref().unwrap_or(filled));
            }
        }
    }
    Some(said)
}

/// A sentence with placeholders, taken apart.
struct Template {
    pieces: Vec<Part<'static>>,
    here: &'static str,
    /// Of two that fit, the one that says more itself; then the one with more placeholders. The English decides the rest, so
    /// that the same text is always told in the same words.
    rank: (usize, usize, &'static str),
}

fn templates() -> &'static [Template] {
    static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let taken_apart = chinese().iter().filter_map(|(english, here)| {
            let pieces: Vec<Part<'static>> = parts(english).collect();
            let holes = pieces.iter().filter(|piece| matches!(piece, Part::Hole(_))).count();
            let tells = holes > 0 && own(&pieces, |c| c.is_ascii_alphabetic()) >= FEWEST_LETTERS;
            let rank = (own(&pieces, |c| !c.is_whitespace()), holes, english.as_str());
            tells.then_some(Template { pieces, here, rank })
        });
        taken_apart.collect()
    })
}

/// How many characters of this kind a template has of its own.
fn own(pieces: &[Part<'_>], counts: impl Fn(char) -> bool) -> usize {
    let texts = pieces.iter().map(|piece| if let Part::Text(text) = piece { text } else { "" });
    texts.flat_map(str::chars).filter(|c| counts(*c)).count()
}

/// Whether the filling is looked up. A single word may be the name of a product; only some placeholders hold words of ours.
fn may_be_a_sentence(placeholder: &str, filled: &str) -> bool {
    filled.contains(' ') || ["side", "kind", "kinds", "condition"].contains(&placeholder)
}

/// Whether this can fill the placeholder. Counts and times are numbers: `{n} rows` is not every text about rows.
fn fits(placeholder: &str, filled: &str) -> bool {
    match placeholder {
        "n" | "rows" | "times" | "runs" => {
            filled.bytes().all(|byte| byte.is_ascii_digit() || byte == b',') && !filled.is_empty()
        }
        // Values come in quotes; a JSON pointer begins with its slash.
        "text" => filled.starts_with('"'),
        "pointer" => filled.starts_with('/'),
        "time" => filled.starts_with(|c: char| c.is_ascii_digit()),
        _ => !filled.is_empty(),
    }
}

/// What fills the template's placeholders in this text. `None` if the text is another sentence.
fn holes<'a>(pieces: &[Part<'static>], text: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let mut holes = Vec::new();
    let mut rest = text;
    let mut open = None;
    for (at, piece) in pieces.iter().enumerate() {
        match (*piece, open.take()) {
            (Part::Hole(name), None) => open = Some(name),
            // Two placeholders side by side: where one ends nobody can tell.
            (Part::Hole(_), Some(_)) => return None,
            (Part::Text(words), None) => rest = rest.strip_prefix(words)?,
            (Part::Text(words), Some(name)) => {
                // The last words end the text; those before it are the first that come.
                let last = at + 1 == pieces.len();
                let ends = if last { rest.len().checked_sub(words.len()) } else { rest.find(words) }?;
                let (filled, after) = rest.split_at_checked(ends)?;
                holes.push((name, filled));
                rest = after.strip_prefix(words)?;
            }
        }
    }
    match open {
        Some(name) => holes.push((name, rest)),
        None if rest.is_empty() => {}
        None => return None,
    }
    holes.iter().all(|(name, filled)| fits(name, filled)).then_some(holes)
}
