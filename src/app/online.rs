//! `check --online`: what the two sides say to this setup.

use super::pipelines::PipelineSource;
use super::{App, Checked, Part, wiring};
use crate::budget::Budget;
use crate::error::{Diagnostic, Error};

pub use crate::okki::SourceTotals;
use crate::sync::ask::{self, Asked};
use crate::words::{Message, phrase, say};

/// What the two sides said that they hold; `None` of a side that has a mistake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Online {
    /// The source.
    pub source: Option<SourceTotals>,
    /// The target.
    pub target: Option<TargetTotals>,
}

/// What the target says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TargetTotals {
    /// Rows; `None` where its answer does not say.
    pub rows: Option<u64>,
}

impl App {
    /// Logs in on both sides, reads one row, and asks for the scheme. What does not work is a mistake like any other.
    /// A setup with mistakes is not asked with.
    pub async fn check_online(&self, from: &PipelineSource, checked: &mut Checked) {
        if !checked.mistakes.is_empty() {
            return;
        }
        let Asked { source, target } = match self.ask(from).await {
            Ok(asked) => asked,
            Err(error) => return checked.add(Part::Pipeline, [mistake(phrase!("pipeline"), &error)]),
        };
        let mut online = Online::default();
        match source {
            Ok(totals) => online.source = Some(totals),
            Err(error) => checked.add(Part::Source, [mistake(phrase!("source"), &error)]),
        }
        match target {
            Ok(rows) => online.target = Some(TargetTotals { rows }),
            Err(error) => checked.add(Part::Target, [mistake(phrase!("target"), &error)]),
        }
        checked.online = Some(online);
    }

    async fn ask(&self, from: &PipelineSource) -> Result<Asked, Error> {
        let connection = self.connection(from).await?;
        let context = wiring::context(&connection, self.store().await?, self.clock);
        let budget = Budget::new(None, self.stop.subscribe());
        let asked = Box::pin(ask::ask(&context, &budget)).await;
        connection.source_pace.give_back_stretch(true).await;
        Ok(asked)
    }
}

fn mistake(place: &str, error: &Error) -> Diagnostic {
    let help: Message =
        error.help.clone().unwrap_or_else(|| say!("this is {kind}", kind = error.kind.name()));
    Diagnostic::new(place, error.message.clone(), help)
}
