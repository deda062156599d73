//! The sentences of the other languages: one file for each, read when its language is first asked for.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Lang;

/// `"English" = "中文"`, in the order of the modules.
pub(super) const ZH: &str = include_str!("zh.toml");

/// The template in this language; the English one where that language lacks it.
pub(super) fn template_in(template: &'static str, lang: Lang) -> &'static str {
    match lang {
        Lang::En => template,
        Lang::Zh => chinese().get(template).map_or(template, String::as_str),
    }
}

/// All Chinese sentences by their English ones.
pub(super) fn chinese() -> &'static HashMap<String, String> {
    static CHINESE: OnceLock<HashMap<String, String>> = OnceLock::new();
    // A test reads the file; a program without it would speak English.
    CHINESE.get_or_init(|| toml::from_str(ZH).unwrap_or_default())
}
