//! A walk over JSON text that builds nothing: it goes from value to value and hands out slices of the text.
//!
//! A page of products is a hundred rows of forty fields of which the pipeline names five; to step over the others is
//! what a read spends its time on. The walk accepts what `serde_json` accepts (a test holds one against the other), up
//! to [`DEEPEST`]. None always means: this is not JSON.

/// Lists and objects inside each other beyond this are refused.
const DEEPEST: usize = 128;

/// Where a walk stands.
#[derive(Debug, Clone)]
pub(super) struct JsonCursor<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> JsonCursor<'a> {
    /// At the beginning of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The first byte of what comes next.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if byte > b' ' {
                return Some(byte);
            }
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return None;
            }
            self.at += 1;
        }
    }

    /// Steps over this byte, if it comes next.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> Option<()> {
        let comes_next = self.peek() == Some(byte);
        self.at += usize::from(comes_next);
        comes_next.then_some(())
    }

    /// Steps over this text, if it comes next as it stands.
    #[inline]
    pub(super) fn eat_text(&mut self, text: &str) -> bool {
        let end = self.at + text.len();
        let comes_next = self.bytes.get(self.at..end).is_some_and(|next| is_same(next, text.as_bytes()));
        if comes_next {
            self.at = end;
        }
        comes_next
    }

    /// Bytes that are left of the text.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// How many of the bytes that come next stood there as well: never too many.
    pub(super) fn same_as_at(&self, there: usize) -> usize {
        match (self.bytes.get(self.at..), self.bytes.get(there..self.at)) {
            (Some(here), Some(there)) => same_bytes(here, there),
            _ => 0,
        }
    }

    /// Steps over so many bytes, which were walked over where they stood before.
    pub(super) fn step_bytes(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Where it stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text from there to where it stands.
    pub(super) fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    /// The text ends here.
    pub(super) fn end(&mut self) -> Option<()> {
        (self.peek().is_none() && self.at == self.bytes.len()).then_some(())
    }

    /// Steps over a value of any kind; gives it back as it stands.
    #[inline]
    pub(super) fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.step()?;
        self.since(start)
    }

    /// Steps over a string; gives it back as it stands, with its quotes.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.step_string()?;
        self.since(start)
    }

    /// Steps over a value of any kind.
    #[inline]
    pub(super) fn step(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' | b'[' => self.step_container(),
            _ => self.step_scalar(),
        }
    }

    #[inline]
    fn step_scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.step_rest_of_string()
            }
            b'-' | b'0'..=b'9' => self.step_number(),
            _ => ["true", "false", "null"].into_iter().any(|word| self.eat_text(word)).then_some(()),
        }
    }

    fn step_string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        self.step_rest_of_string()
    }

    #[inline]
    fn step_rest_of_string(&mut self) -> Option<()> {
        loop {
            while let Some(eight) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
                let special = special_bytes(u64::from_le_bytes(*eight));
                self.at += (special.trailing_zeros() / 8) as usize;
                if special != 0 {
                    break;
                }
            }
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.step_escape()?,
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn step_escape(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at + 1..)?;
        let length = match rest.first()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if rest.get(1..5)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        self.at += length;
        Some(())
    }

    #[inline]
    fn step_number(&mut self) -> Option<()> {
        self.at += usize::from(self.byte() == Some(b'-'));
        let start = self.at;
        self.step_digits()?;
        if self.at > start + 1 && self.bytes.get(start) == Some(&b'0') {
            return None;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.step_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.step_digits()?;
        }
        Some(())
    }

    /// One digit or more.
    #[inline]
    fn step_digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// A list or an object, without recursion: what a server sends must not decide how deep our stack is.
    fn step_container(&mut self) -> Option<()> {
        // The brackets that are open, and whether each is an object's.
        let (mut depth, mut objects) = (0_usize, 0_u128);
        loop {
            // Here a value stands.
            match self.peek()? {
                open @ (b'{' | b'[') if depth < DEEPEST => {
                    self.at += 1;
                    let is_object = open == b'{';
                    if self.eat(if is_object { b'}' } else { b']' }).is_none() {
                        depth += 1;
                        objects = objects << 1 | u128::from(is_object);
                        self.step_key_if(is_object)?;
                        continue;
                    }
                }
                b'{' | b'[' => return None,
                _ => self.step_scalar()?,
            }
            // Here one ended, and perhaps with it what it stands in.
            loop {
                if depth == 0 {
                    return Some(());
                }
                let is_object = objects & 1 == 1;
                if self.eat(b',').is_some() {
                    self.step_key_if(is_object)?;
                    break;
                }
                self.eat(if is_object { b'}' } else { b']' })?;
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn step_key_if(&mut self, is_object: bool) -> Option<()> {
        if is_object {
            self.step_string()?;
            self.eat(b':')?;
        }
        Some(())
    }

    /// Walks through an object: `member` is given each key as it stands, with its quotes, and steps over its value.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.eat(b':')?;
            member(self, key)?;
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    /// Walks through a list: `element` steps over each of its values.
    pub(super) fn list(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.eat(b'[')?;
        if self.eat(b']').is_some() {
            return Some(());
        }
        loop {
            element(self)?;
            if self.eat(b',').is_none() {
                return self.eat(b']');
            }
        }
    }
}

/// How many bytes two texts have in common at their beginning, within eight of it: never too many.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> usize {
    let mut same = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return same + (differing.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    same
}

/// Whether two texts are the same. For keys, a call to `memcmp` costs more than the comparison: eight bytes are compared
/// at a time, and the last eight overlap.
#[inline]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a_end), Some(b_end)) => {
            a.len() == b.len()
                && u64::from_le_bytes(*a_end) == u64::from_le_bytes(*b_end)
                && same_bytes(a, b) + 8 > a.len()
        }
        _ => a == b,
    }
}

/// Marks the bytes of a word that end the plain part of a string: a quote, a backslash, a control character. The lowest
/// mark is exact, and only that one is used.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (EACH * b'"' as u64);
    let backslash = word ^ (EACH * b'\\' as u64);
    let is_zero = |word: u64| word.wrapping_sub(EACH) & !word;
    let is_control = word.wrapping_sub(EACH * 0x20) & !word;
    (is_zero(quote) | is_zero(backslash) | is_control) & HIGH
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn walks(text: &str) -> bool {
        let mut walk = JsonCursor::new(text);
        walk.value().and_then(|_| walk.end()).is_some()
    }

    fn agrees(text: &str) {
        assert_eq!(walks(text), serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
    }

    #[test]
    fn what_is_json_and_what_is_not() {
        for text in [
            "",
            " ",
            "1",
            "-1",
            "01",
            "-",
            "-0",
            "0.0",
            "1.",
            "1.5e3",
            "1e",
            "1E+9",
            "1e+",
            ".5",
            "+1",
            "truex",
            "true",
            "nul",
            "\"a\"",
            "\"",
            "\"\\",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12aF\"",
            "\"a\nb\"",
            "\"12345678\"",
            "\"1234567\"",
            "\"123456789中文\\n\"",
            "[]",
            "[1,]",
            "[,]",
            "[1 2]",
            "[1,2",
            "{}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{\"a\":[{},[],{\"b\":[1,{}]}]}",
            "[}",
            "{]",
            "[[]",
            "{\"a\":1]",
            "[1}",
            " [ 1 , { \"a\" : null } ] ",
            "[1] 2",
            "\u{b}1",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn nesting_beyond_any_api_s_is_refused_and_no_stack_overflows() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(walks(&nested(DEEPEST)));
        assert!(!walks(&nested(DEEPEST + 1)));
        assert!(!walks(&nested(1_000_000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn it_agrees_with_serde_json(text in r#"[\[\]{}",:\\u0-9a-f.\-+eE truefalsn中\n]{0,24}"#) {
            agrees(&text);
        }

        #[test]
        fn it_agrees_on_json_that_was_damaged(at in 0_usize..200, byte in 0_u8..128) {
            let mut text = br#"{"code":200,"data":{"list":[{"id":1,"name":"a\u4e2d\"x","n":-1.50e-3,"l":[true,null,{}]},{"id":"2"}]}}"#.to_vec();
            let length = text.len();
            text[at % length] = byte;
            agrees(std::str::from_utf8(&text).unwrap_or_default());
        }
    }
}
