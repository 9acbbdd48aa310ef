//! What templates can use: filters, tests and functions by name. Everything else is refused when a template is
//! compiled. Filters that write text, or that multiply what they get, are our own: they charge first.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use serde_json::ser::{CompactFormatter, PrettyFormatter};

use super::budget::{self, Spaced, Use};
use super::text_filters;

/// A filter that templates can use.
#[derive(Debug)]
pub(super) struct Filter {
    pub name: &'static str,
    /// What it does with its input.
    pub used: Use,
    /// What it takes numbers for.
    pub numbers: Numbers,
    /// Whether its result may be a list or map.
    pub returns_items: bool,
    pub arguments: Arguments,
    pub takes: Takes,
}

/// The arguments that a filter, test or function takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Takes {
    pub least: usize,
    pub most: usize,
    /// Those that may be given by name.
    pub named: &'static [&'static str],
}

pub(super) const fn takes(least: usize, most: usize) -> Takes {
    Takes {
        least,
        most,
        named: &[],
    }
}

impl Filter {
    const fn takes(self, least: usize, most: usize, named: &'static [&'static str]) -> Self {
        let takes = Takes { least, most, named };
        Self { takes, ..self }
    }
}

/// What a filter takes the numbers for that it gets, or that are in the list or map that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Their texts, as published.
    Texts,
    /// Plain numbers, to compute with.
    Computed,
}

/// What is special about a filter's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    Any,
    /// The one with this index is the name of a test.
    Test(usize),
    /// The first is the name of a filter without arguments.
    Filter,
}

const fn filter(name: &'static str, used: Use, returns_items: bool) -> Filter {
    Filter {
        name,
        used,
        numbers: Numbers::Texts,
        returns_items,
        arguments: Arguments::Any,
        takes: takes(0, 0),
    }
}

const fn computing(name: &'static str, used: Use, returns_items: bool) -> Filter {
    Filter {
        numbers: Numbers::Computed,
        ..filter(name, used, returns_items)
    }
}

const fn by_name(name: &'static str, arguments: Arguments) -> Filter {
    Filter {
        name,
        used: Use::Items,
        numbers: Numbers::Computed,
        returns_items: true,
        arguments,
        takes: takes(0, 0),
    }
}

pub(super) static FILTERS: &[Filter] = &[
    computing("abs", Use::Read, false),
    filter("attr", Use::Text, false).takes(1, 1, &[]),
    filter("batch", Use::Items, true).takes(1, 1, &[]),
    computing("bool", Use::Text, false),
    filter("capitalize", Use::Read, false),
    filter("center", Use::Read, false).takes(0, 1, &["width"]),
    filter("count", Use::Text, false),
    filter("d", Use::Text, false).takes(0, 2, &["boolean"]),
    filter("default", Use::Text, false).takes(0, 2, &["boolean"]),
    computing("dictsort", Use::Items, true).takes(0, 0, &["by", "case_sensitive", "reverse"]),
    filter("e", Use::Text, false),
    filter("escape", Use::Text, false),
    computing("filesizeformat", Use::Read, false).takes(0, 1, &[]),
    filter("first", Use::Text, false),
    computing("float", Use::Read, false).takes(0, 1, &["default"]),
    filter("forceescape", Use::Text, false),
    filter("format", Use::Read, false).takes(0, 50, &[]),
    computing("groupby", Use::Items, true).takes(1, 1, &["attribute", "case_sensitive", "default"]),
    filter("indent", Use::Read, false).takes(0, 3, &["blank", "first", "width"]),
    computing("int", Use::Read, false).takes(0, 2, &["base", "default"]),
    filter("items", Use::Items, true),
    filter("join", Use::Items, false).takes(0, 1, &["attribute", "d"]),
    filter("last", Use::Text, false),
    filter("length", Use::Text, false),
    filter("lines", Use::Items, true),
    filter("list", Use::Items, true),
    filter("lower", Use::Read, false),
    by_name("map", Arguments::Filter).takes(1, 1, &["attribute", "default"]),
    computing("max", Use::Items, false).takes(0, 0, &["attribute", "case_sensitive"]),
    computing("min", Use::Items, false).takes(0, 0, &["attribute", "case_sensitive"]),
    computing("pluralize", Use::Text, false).takes(0, 2, &[]),
    filter("pprint", Use::Text, false),
    by_name("reject", Arguments::Test(0)).takes(0, 2, &[]),
    by_name("rejectattr", Arguments::Test(1)).takes(1, 3, &[]),
    filter("replace", Use::Read, false).takes(2, 3, &["count"]),
    filter("reverse", Use::Items, true),
    computing("round", Use::Read, false).takes(0, 2, &["method", "precision"]),
    by_name("select", Arguments::Test(0)).takes(0, 2, &[]),
    by_name("selectattr", Arguments::Test(1)).takes(1, 3, &[]),
    filter("slice", Use::Items, true).takes(1, 1, &[]),
    computing("sort", Use::Items, true).takes(0, 0, &["attribute", "case_sensitive", "reverse"]),
    filter("split", Use::Items, true).takes(0, 2, &[]),
    filter("string", Use::Text, false),
    filter("striptags", Use::Read, false),
    computing("sum", Use::Items, false),
    filter("title", Use::Read, false),
    filter("tojson", Use::Text, false).takes(0, 1, &["indent"]),
    filter("trim", Use::Read, false).takes(0, 1, &[]),
    filter("truncate", Use::Read, false).takes(0, 4, &["end", "killwords", "leeway", "length"]),
    computing("unique", Use::Items, true).takes(0, 0, &["attribute", "case_sensitive"]),
    filter("upper", Use::Read, false),
    filter("urlencode", Use::Read, false),
    filter("wordcount", Use::Read, false),
    filter("wordwrap", Use::Items, false).takes(0, 3, &["break_long_words", "width", "wrapstring"]),
];

/// Filters that `map` can apply to each item.
pub(super) static MAPPED: &[&str] = &[
    "abs",
    "bool",
    "capitalize",
    "first",
    "float",
    "int",
    "last",
    "length",
    "lower",
    "round",
    "string",
    "title",
    "tojson",
    "striptags",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
];

/// Tests, and whether they only look at the kind of a value.
pub(super) static TESTS: &[(&str, bool)] = &[
    ("!=", false),
    ("<", false),
    ("<=", false),
    ("==", false),
    (">", false),
    (">=", false),
    ("boolean", true),
    ("defined", true),
    ("divisibleby", false),
    ("endingwith", false),
    ("eq", false),
    ("equalto", false),
    ("even", true),
    ("false", true),
    ("float", true),
    ("ge", false),
    ("greaterthan", false),
    ("gt", false),
    ("in", false),
    ("int", true),
    ("integer", true),
    ("iterable", true),
    ("le", false),
    ("lessthan", false),
    ("lower", false),
    ("lt", false),
    ("mapping", true),
    ("ne", false),
    ("none", true),
    ("number", true),
    ("odd", true),
    ("sameas", false),
    ("sequence", true),
    ("startingwith", false),
    ("string", true),
    ("true", true),
    ("undefined", true),
    ("upper", false),
];

/// How many arguments a test takes, beside what it tests.
pub(super) fn test_takes(name: &str) -> usize {
    let alone = TESTS
        .iter()
        .any(|(test, by_kind)| *test == name && *by_kind);
    usize::from(!alone && name != "lower" && name != "upper")
}

/// The only function.
pub(super) const RANGE: &str = "range";
/// Methods of `loop`.
pub(super) const LOOP_METHODS: [&str; 2] = ["changed", "cycle"];

/// Spaces of one level of JSON.
const MAX_INDENT: usize = 8;
/// Lists that `slice` makes, and items per list of `batch`.
const MAX_PARTS: usize = 10_000;
/// Characters that `trim` removes.
const MAX_TRIMMED: usize = 32;

/// Replaces the engine's filters that work or multiply before they charge.
pub(super) fn register(environment: &mut Environment<'static>) {
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, |value: Value| value);
    }
    environment.add_filter("string", text);
    environment.add_filter("tojson", to_json);
    environment.add_filter("join", join);
    environment.add_filter("trim", trim);
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slice);
    environment.add_filter("sum", sum);
    environment.add_filter("pprint", |state: &State, value: Value| {
        let format = PrettyFormatter::with_indent(b"  ");
        budget::json(state, &value, format).map(Value::from)
    });
    environment.add_filter("center", text_filters::center);
    environment.add_filter("truncate", text_filters::truncate);
    environment.add_filter("wordcount", text_filters::wordcount);
    environment.add_filter("wordwrap", text_filters::wordwrap);
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_filter("pluralize", minijinja_contrib::filters::pluralize);
}

/// A value as text; lists and maps are JSON.
pub(super) fn text(state: &State, value: Value) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::String => value,
        ValueKind::Undefined => Value::from(""),
        ValueKind::None => Value::from("none"),
        _ => Value::from(budget::json(state, &value, CompactFormatter)?),
    })
}

/// Marked as safe: where JSON is written, it is not quoted again.
fn to_json(
    state: &State,
    value: Value,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get("indent")?,
    };
    kwargs.assert_all_used()?;
    let indent = match indent {
        None => 0,
        Some(indent) if indent.kind() == ValueKind::Bool => usize::from(indent.is_true()) * 2,
        Some(indent) => indent.as_usize().unwrap_or(usize::MAX),
    };
    if indent > MAX_INDENT {
        return Err(invalid(format!(
            "tojson: indent should be at most {MAX_INDENT}"
        )));
    }
    let json = if indent == 0 {
        budget::json(state, &value, Spaced)?
    } else {
        let indent = " ".repeat(indent);
        budget::json(
            state,
            &value,
            PrettyFormatter::with_indent(indent.as_bytes()),
        )?
    };
    Ok(Value::from_safe_string(json))
}

fn join(
    state: &State,
    value: Value,
    separator: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let attribute: Option<String> = kwargs.get("attribute")?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("d")?,
    };
    kwargs.assert_all_used()?;
    let separator = separator.unwrap_or_default();
    let separator = separator.as_str().unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        let item = match &attribute {
            Some(path) => path
                .split('.')
                .try_fold(item, |item, name| item.get_attr(name))?,
            None => item,
        };
        let item = text(state, item)?;
        let item = item.as_str().unwrap_or_default();
        let separator = if index == 0 { "" } else { separator };
        budget::charge_written(state, separator.len() + item.len())?;
        joined.push_str(separator);
        joined.push_str(item);
    }
    Ok(Value::from(joined))
}

fn trim(text: &str, chars: Option<&str>) -> Result<String, Error> {
    let Some(chars) = chars else {
        return Ok(text.trim().to_owned());
    };
    if chars.chars().count() > MAX_TRIMMED {
        return Err(invalid(format!(
            "trim: at most {MAX_TRIMMED} characters can be given"
        )));
    }
    Ok(text.trim_matches(|char| chars.contains(char)).to_owned())
}

/// Lists of up to `count` items each.
fn batch(value: Value, count: usize) -> Result<Value, Error> {
    let items: Vec<_> = value.try_iter()?.collect();
    let lists = items
        .chunks(parts("batch", count)?)
        .map(|items| Value::from(items.to_vec()));
    Ok(Value::from(lists.collect::<Vec<_>>()))
}

/// This many lists, of which the first ones are longer if items are left over.
fn slice(state: &State, value: Value, count: usize) -> Result<Value, Error> {
    let count = parts("slice", count)?;
    state.consume_fuel(count as u64)?;
    let mut items = value.try_iter()?;
    let total = value.try_iter()?.count();
    let lists = (0..count).map(|list| {
        let length = total / count + usize::from(list < total % count);
        Value::from(items.by_ref().take(length).collect::<Vec<_>>())
    });
    Ok(Value::from(lists.collect::<Vec<_>>()))
}

fn parts(filter: &str, count: usize) -> Result<usize, Error> {
    if (1..=MAX_PARTS).contains(&count) {
        return Ok(count);
    }
    Err(invalid(format!(
        "{filter}: the count should be between 1 and {MAX_PARTS}"
    )))
}

/// Of numbers only: lists and texts would grow with each item.
fn sum(value: Value) -> Result<Value, Error> {
    let (mut whole, mut fraction) = (Some(0_i128), 0.0);
    for item in value.try_iter()? {
        let number = f64::try_from(item.clone())
            .map_err(|_| invalid("sum: an item is no number".to_owned()))?;
        fraction += number;
        whole = match i128::try_from(item.clone()) {
            Ok(number) if item.is_integer() => whole.and_then(|whole| whole.checked_add(number)),
            _ => None,
        };
    }
    Ok(whole.map_or_else(|| Value::from(fraction), Value::from))
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_filter_and_test() {
        let written = include_str!("../../../docs/templates.md");
        let (_, rest) = written.split_once("## Filters").expect("filters");
        let (filters, rest) = rest.split_once("## Tests").expect("tests");
        let (tests, _) = rest.split_once("## Functions").expect("functions");
        for filter in FILTERS {
            let name = format!("`{}`", filter.name);
            assert!(filters.contains(&name), "{name}");
        }
        for (name, _) in TESTS {
            assert!(tests.contains(&format!("`{name}`")), "{name}");
        }
        assert!(FILTERS.is_sorted_by_key(|filter| filter.name));
    }
}
