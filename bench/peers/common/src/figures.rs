//! The figures of one round: names with their units, in the order in which they were given.

use serde_json::{Map, Value};

/// What a workload returns.
#[derive(Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number.
    pub fn number(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), Value::from(value));
        self
    }

    /// Adds words, such as which channel was used.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), Value::from(value));
        self
    }
}

impl From<Figures> for Value {
    fn from(figures: Figures) -> Self {
        Self::Object(figures.0)
    }
}
