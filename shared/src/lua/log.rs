//! What scripts log, within bounds.

use std::sync::Arc;

use parking_lot::Mutex;

/// Of the scripts of one delivery.
const MAX_LINES: usize = 32;
const MAX_LINE_BYTES: usize = 2_048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: Level,
    pub text: String,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    kept: Vec<Line>,
    dropped: usize,
}

impl Log {
    pub(super) fn add(&self, level: Level, text: &[u8]) {
        let mut lines = self.0.lock();
        if lines.kept.len() == MAX_LINES {
            lines.dropped += 1;
            return;
        }
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_LINE_BYTES)]).into_owned();
        lines.kept.push(Line { level, text });
    }

    pub(super) fn take(&self) -> Vec<Line> {
        let Lines { mut kept, dropped } = std::mem::take(&mut *self.0.lock());
        if dropped > 0 {
            kept.push(Line {
                level: Level::Warn,
                text: format!("{dropped} more lines were dropped"),
            });
        }
        kept
    }
}
