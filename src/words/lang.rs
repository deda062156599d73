//! Which language: a flag, else a variable, else the locale, else English.

/// Where the language is read from, after a flag.
const VARIABLE: &str = "OKKI_SYNC_LANG";
/// The first that is set decides, as in every program that reads a locale.
const LOCALE: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];
/// The same for the character set.
const CHARACTERS: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// A language that people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lang {
    /// English; logs and JSON have it too.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// The language of a tag such as `zh`, `zh-CN`, `zh_CN.UTF-8` or `EN`. `None` if it is another one.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let name: String = tag.trim().chars().take_while(char::is_ascii_alphabetic).collect();
        match name.to_ascii_lowercase().as_str() {
            "zh" => Some(Self::Zh),
            "en" => Some(Self::En),
            _ => None,
        }
    }

    /// All of them.
    #[cfg(any(test, feature = "testing"))]
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// The tag of an HTML page.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }
}

/// The language that was found, and the one that was asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Language {
    /// The language to speak.
    pub lang: Lang,
    /// What was asked for, if there is no such language here.
    pub unknown: Option<String>,
}

impl Language {
    /// The language of `--lang`, else of the variables that `get` reads.
    ///
    /// A locale of another language is no wish for a language that this program could lack: it means English. So does a
    /// character set without Unicode, which would show Chinese as question marks.
    pub fn choose(flag: Option<&str>, get: impl Fn(&str) -> Option<String>) -> Self {
        let asked = flag.map(str::to_owned).or_else(|| get(VARIABLE));
        if let Some(asked) = asked {
            let lang = Lang::of_tag(&asked);
            return Self { lang: lang.unwrap_or_default(), unknown: lang.is_none().then_some(asked) };
        }
        let locale = LOCALE.iter().find_map(|name| get(name)).filter(|_| has_unicode(&get));
        Self { lang: locale.and_then(|tag| Lang::of_tag(&tag)).unwrap_or_default(), unknown: None }
    }
}

/// Whether the locale's character set is UTF-8, which is all that this program writes. A locale that names no character set
/// counts as UTF-8, and so does none at all: today's terminals are.
pub(crate) fn has_unicode(get: impl Fn(&str) -> Option<String>) -> bool {
    let Some(locale) = CHARACTERS.iter().find_map(|name| get(name)) else { return true };
    let locale = locale.trim().to_ascii_lowercase();
    match locale.split_once('.') {
        Some((_, set)) => set.starts_with("utf-8") || set.starts_with("utf8"),
        None => !matches!(locale.as_str(), "c" | "posix"),
    }
}
