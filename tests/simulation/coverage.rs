//! What a simulation has covered: counts by name, for `make simulate` to print.

use std::collections::BTreeMap;
use std::fmt;

/// Counts under a heading and a name.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), u64>,
}

impl Coverage {
    pub fn count(&mut self, heading: &'static str, name: impl Into<String>, by: u64) {
        *self.counts.entry((heading, name.into())).or_default() += by;
    }

    pub fn of(&self, heading: &'static str, name: &str) -> u64 {
        self.counts.get(&(heading, name.to_owned())).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for ((heading, name), by) in &other.counts {
            self.count(heading, name.clone(), *by);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((heading, name), count) in &self.counts {
            if *heading != last {
                writeln!(f, "{heading}:")?;
                last = heading;
            }
            writeln!(f, "  {count:>9}  {name}")?;
        }
        Ok(())
    }
}
