//! The languages of a page.

/// A language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Lang {
    /// All of them.
    #[cfg(any(test, feature = "testing"))]
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// The tag for `<html lang>`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    /// The language that a word (`zh`) or a locale (`zh_CN.UTF-8`) names; `None` for any other.
    pub fn named(name: &str) -> Option<Self> {
        let language = name.trim().split(['_', '-', '.', '@']).next().unwrap_or_default();
        match language.to_ascii_lowercase().as_str() {
            "zh" => Some(Self::Zh),
            "en" | "c" | "posix" => Some(Self::En),
            _ => None,
        }
    }
}
