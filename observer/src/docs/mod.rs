//! Documents that observer prints about itself, from what it is made of: `observer docs KIND`. They are kept under
//! `docs/`, and CI fails when they drift.

mod metrics;
mod rules;
mod schema;

/// A document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Document {
    /// JSON Schema of an alert
    AlertSchema,
    /// JSON Schema of an event
    EventSchema,
    /// JSON Schema of the configuration
    ConfigSchema,
    /// The metrics, as Markdown
    Metrics,
    /// The rules, as Markdown
    Rules,
}

impl Document {
    /// The whole document, with a line end at its end.
    pub fn text(self) -> String {
        match self {
            Document::AlertSchema => schema::alert(),
            Document::EventSchema => schema::event(),
            Document::ConfigSchema => schema::config(),
            Document::Metrics => metrics::document(),
            Document::Rules => rules::document(),
        }
    }
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
