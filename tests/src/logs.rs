//! Reads the services' JSON logs.

use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Line(Value);

impl Line {
    /// In upper case.
    #[must_use]
    pub fn level(&self) -> String {
        self.text("level").to_uppercase()
    }

    #[must_use]
    pub fn message(&self) -> &str {
        self.text("message")
    }

    /// A field, nested under `fields` or not.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        let inner = &self.0["fields"][name];
        if inner.is_null() {
            &self.0[name]
        } else {
            inner
        }
    }

    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }
}

/// The JSON records of a log. Other lines are skipped.
#[must_use]
pub fn parse(log: &str) -> Vec<Line> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .map(Line)
        .collect()
}
