//! Templates of `webhook-custom`: compiled once per change of a hook, rendered once per attempt.
//!
//! Values are escaped for the format around them ([`Escape`]). A missing name renders as an empty string, even below
//! a missing parent. Neither templates nor events are trusted: `bounds` limits the syntax before it is parsed, and
//! `rewrite` has each value charged before it is used, so that fuel bounds the time and memory of rendering.

mod bounds;
mod budget;
mod data;
mod escape;
mod filters;
mod json_place;
mod number;
mod operands;
mod rewrite;
#[cfg(test)]
mod tests;
mod text_filters;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior};

pub use self::bounds::MAX_SOURCE_BYTES;
pub use self::escape::Escape;
use crate::event::Event;
use crate::known_stack::on_known_stack;

/// Fuel for all templates of one request. A unit takes at most 0.6 microseconds and 64 bytes of output.
const FUEL: u64 = 300_000;
/// The name of the only template in an environment, which appears in error messages.
const NAME: &str = "template";

/// The names that a template can use, see [`context`].
pub type Context = Value;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the template is longer than {MAX_SOURCE_BYTES} bytes")]
    TooLong,
    /// The engine's message has the position of the error, but no values.
    #[error("the template does not compile: {0}")]
    Compile(#[source] minijinja::Error),
    #[error("line {line}: {reason}")]
    Refused { line: u16, reason: String },
    #[error("the template needs too much work or memory")]
    OutOfFuel,
    /// Without the engine's message, which may contain values of the event.
    #[error("the template cannot be rendered: {kind}")]
    Render { kind: ErrorKind },
}

impl Error {
    fn refused(line: u16, reason: &str) -> Self {
        Self::Refused {
            line,
            reason: reason.to_owned(),
        }
    }
}

pub struct Template {
    environment: Environment<'static>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Template")
    }
}

impl Template {
    pub fn compile(source: &str, escape: Escape) -> Result<Self, Error> {
        on_known_stack(|| Self::compile_here(source, escape))
    }

    fn compile_here(source: &str, escape: Escape) -> Result<Self, Error> {
        bounds::check(source)?;
        let rewritten = rewrite::rewrite(source, escape)?;
        let mut environment = Environment::new();
        environment.set_syntax(rewrite::rewritten_syntax()?);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(false);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(write);
        filters::register(&mut environment);
        escape::register(&mut environment);
        operands::register(&mut environment);
        environment
            .add_template_owned(NAME, rewritten)
            .map_err(Error::Compile)?;
        Ok(Self { environment })
    }

    /// Divides the fuel of a request among its templates, of which there are `parts`.
    pub fn share(&mut self, parts: usize) {
        self.environment.set_fuel(Some(FUEL / parts.max(1) as u64));
    }

    pub fn render(&self, context: &Context) -> Result<String, Error> {
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context.clone()))
            .map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => Error::OutOfFuel,
                kind => Error::Render { kind },
            })
    }
}

/// The event's data, with `source` and `event` as delivered.
#[must_use]
pub fn context(event: &Event, event_name: &str) -> Context {
    let mut names = data::fields(event.text());
    names.insert("source".into(), event.source.as_str().into());
    names.insert("event".into(), event_name.into());
    Value::from_object(names)
}

/// The syntax in which templates are written.
fn syntax() -> Result<SyntaxConfig, Error> {
    let mut syntax = SyntaxConfig::builder();
    syntax
        .keep_trailing_newline(true)
        .build()
        .map_err(Error::Compile)
}

/// Each expression of a rewritten template is text, and escaped.
fn write(out: &mut Output, _: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    out.write_str(value.as_str().unwrap_or_default())
        .map_err(minijinja::Error::from)
}
