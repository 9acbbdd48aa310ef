//! Reading the services' JSON logs.

use serde_json::Value;

/// One log record.
#[derive(Debug, Clone)]
pub struct Line(Value);

impl Line {
    /// Its level, in upper case.
    #[must_use]
    pub fn level(&self) -> String {
        self.text("level").to_uppercase()
    }

    /// Its message.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text("message")
    }

    /// A field, wherever the format puts it.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        let inner = &self.0["fields"][name];
        if inner.is_null() {
            &self.0[name]
        } else {
            inner
        }
    }

    /// The whole record.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }
}

/// The records of a log; what is not JSON is left out.
#[must_use]
pub fn parse(log: &str) -> Vec<Line> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .map(Line)
        .collect()
}
