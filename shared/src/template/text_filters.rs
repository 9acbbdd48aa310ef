//! Filters of texts that the engine does not have, with the arguments that they have in Jinja.

use minijinja::value::{ArgType, Kwargs, Rest, Value};
use minijinja::{Error, State};

use super::budget;

/// As in Jinja.
pub(super) fn wordcount(text: &str) -> usize {
    let parts = text.split(|char: char| !char.is_alphanumeric() && char != '_');
    parts.filter(|word| !word.is_empty()).count()
}

/// With spaces on both sides, up to a width.
pub(super) fn center(
    state: &State,
    text: &str,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = argument(&args, 0, &kwargs, "width")?.unwrap_or(80_usize);
    kwargs.assert_all_used()?;
    let spaces = width.saturating_sub(text.chars().count());
    budget::charge_written(state, spaces)?;
    let left = spaces / 2;
    Ok(format!(
        "{}{text}{}",
        " ".repeat(left),
        " ".repeat(spaces - left)
    ))
}

/// As in Jinja: `length` with the end, which is put where more than `leeway` characters would be cut off.
pub(super) fn truncate(text: &str, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let length = argument(&args, 0, &kwargs, "length")?.unwrap_or(255_usize);
    let killwords = argument(&args, 1, &kwargs, "killwords")?.unwrap_or(false);
    let end: Option<String> = argument(&args, 2, &kwargs, "end")?;
    let end = end.unwrap_or_else(|| "...".to_owned());
    let leeway = argument(&args, 3, &kwargs, "leeway")?.unwrap_or(5);
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = length.saturating_sub(end.chars().count());
    let kept: String = text.chars().take(kept).collect();
    let kept = match kept.rfind(' ') {
        Some(space) if !killwords => &kept[..space],
        _ => &kept,
    };
    Ok(format!("{kept}{end}"))
}

/// Breaks lines that are wider than that.
pub(super) fn wordwrap(
    state: &State,
    text: &str,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = argument(&args, 0, &kwargs, "width")?.unwrap_or(79_usize);
    let width = width.max(1);
    let breaks = argument(&args, 1, &kwargs, "break_long_words")?.unwrap_or(true);
    let between: Option<String> = argument(&args, 2, &kwargs, "wrapstring")?;
    let between = between.unwrap_or_else(|| "\n".to_owned());
    kwargs.assert_all_used()?;
    let mut wrapped = String::new();
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            wrapped.push('\n');
        }
        let mut room = width;
        for (index, word) in line.split_whitespace().enumerate() {
            let chars: Vec<char> = word.chars().collect();
            let mut rest = &chars[..];
            if index > 0 && rest.len() < room {
                wrapped.push(' ');
                room -= 1;
            } else if index > 0 {
                budget::charge_written(state, between.len() + 1)?;
                wrapped.push_str(&between);
                room = width;
            }
            while breaks && rest.len() > room {
                let (line, more) = rest.split_at(room);
                wrapped.extend(line);
                budget::charge_written(state, between.len() + 1)?;
                wrapped.push_str(&between);
                (rest, room) = (more, width);
            }
            room = room.saturating_sub(rest.len());
            wrapped.extend(rest);
        }
    }
    Ok(wrapped)
}

/// The argument at an index, or with a name.
fn argument<T>(
    args: &[Value],
    index: usize,
    kwargs: &Kwargs,
    name: &'static str,
) -> Result<Option<T>, Error>
where
    T: for<'a> ArgType<'a, Output = T>,
{
    match args.get(index) {
        Some(given) => T::from_value(Some(given)).map(Some),
        None if kwargs.has(name) => kwargs.get(name).map(Some),
        None => Ok(None),
    }
}
