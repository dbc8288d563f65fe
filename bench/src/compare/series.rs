//! Samples of a figure: what comparisons are made of.

use serde::{Deserialize, Serialize};

/// A figure of something, once for each repeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Whose: `defaults`, `echo-64 · tokio`; empty where there is but one.
    pub of: String,
    /// What: `p99`.
    pub figure: String,
    /// In which unit.
    pub unit: String,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// One for each repeat.
    pub samples: Vec<f64>,
}

impl Series {
    /// The name of a row.
    pub fn label(&self) -> String {
        match self.of.as_str() {
            "" => self.figure.clone(),
            of => format!("{of} · {}", self.figure),
        }
    }
}
