//! Finds the sentence in finished English text, such as the reason of a quarantined row or the error of a stored report.
//!
//! Files hold English, whoever reads them later. A template fits if its words stand in the text in their order; the one
//! with the most words wins, and what fills its placeholders is looked at in the same way. Text that no template fits is
//! somebody else's, and stays.

use super::Lang;
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

/// The same for `Kind: message; help` and for `message; help`, each part by itself.
pub(crate) fn recognise_line(line: &str, lang: Lang) -> String {
    if lang == Lang::En {
        return line.to_owned();
    }
    let (kind, said) = match line.split_once(": ") {
        Some((kind, said)) if kind.chars().all(|c| c.is_ascii_alphabetic()) => (kind, said),
        _ => ("", line),
    };
    let said = with_help(said);
    if kind.is_empty() { said } else { format!("{kind}：{said}") }
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
    let fits = chinese().iter().filter_map(|(english, here)| {
        let holes = holes(english, text)?;
        Some((letters(english), english, here, holes))
    });
    let (_, _, here, holes) = fits.max_by_key(|(letters, english, ..)| (*letters, *english))?;
    let mut said = String::new();
    for part in parts(here) {
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

/// Whether the filling is looked up. A single word may be the name of a product; only some placeholders hold words of ours.
fn may_be_a_sentence(placeholder: &str, filled: &str) -> bool {
    filled.contains(' ') || ["side", "kind", "condition"].contains(&placeholder)
}

/// Whether this can fill the placeholder. Counts and times are numbers: `{n} rows` is not every text about rows.
fn fits(placeholder: &str, filled: &str) -> bool {
    match placeholder {
        "n" | "rows" | "times" | "runs" => {
            filled.bytes().all(|byte| byte.is_ascii_digit() || byte == b',') && !filled.is_empty()
        }
        "time" => filled.starts_with(|c: char| c.is_ascii_digit()),
        _ => !filled.is_empty(),
    }
}

fn letters(template: &str) -> usize {
    let texts = parts(template).map(|part| if let Part::Text(text) = part { text } else { "" });
    texts.map(|text| text.chars().filter(char::is_ascii_alphabetic).count()).sum()
}

/// What fills the template's placeholders in this text. `None` if the text is another sentence.
fn holes<'a>(template: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let pieces: Vec<Part<'a>> = parts(template).collect();
    if !pieces.iter().any(|piece| matches!(piece, Part::Hole(_))) || letters(template) < FEWEST_LETTERS {
        return None;
    }
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
