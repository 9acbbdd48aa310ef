//! JSON for scripts, as lua-cjson reads and writes it.

use std::fmt::Write as _;

use mlua::{Error, Lua, LuaSerdeExt as _, LuaString, Result, Table, Value};

use super::budget::Budget;

/// Of a text that is read or written.
const MAX_BYTES: usize = 2 << 20;
const MAX_DEPTH: usize = 128;
/// Values that are written: a table that is there many times is written each time.
const MAX_VALUES: usize = 100_000;
/// A list with more holes than that is refused from this length on.
const SPARSE_RATIO: usize = 2;
const SPARSE_SAFE: usize = 10;

pub(super) fn decode(lua: &Lua, text: LuaString) -> Result<Value> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_BYTES {
        return Err(too_long());
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::runtime(format!("the text is not JSON: {error}")))?;
    let options = mlua::serde::ser::Options::new().set_array_metatable(false);
    lua.to_value_with(&value, options)
}

/// Walking a table takes longer than its values say, so it ends with the script's time.
pub(super) fn encode(value: &Value, budget: &Budget) -> Result<String> {
    let mut writer = Writer {
        out: String::new(),
        values: 0,
        budget,
    };
    writer.value(value, MAX_DEPTH)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    values: usize,
    budget: &'a Budget,
}

/// As LuaJIT writes numbers.
pub(super) fn number(number: f64) -> String {
    // `%.14g`: 14 digits, without the zeros at their end.
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{number:.13e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..14).contains(&exponent) {
        let decimals = (13 - exponent).max(0) as usize;
        return shortest(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", shortest(digits), exponent.abs())
}

fn shortest(digits: &str) -> &str {
    if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    }
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.values += 1;
        if !self.budget.is_left() {
            return Err(Error::runtime("time is up"));
        }
        if self.out.len() > MAX_BYTES || self.values > MAX_VALUES {
            return Err(too_long());
        }
        let out = &mut self.out;
        match value {
            Value::Nil => out.push_str("null"),
            value if value.is_null() => out.push_str("null"),
            Value::Boolean(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Integer(whole) => out.push_str(&number(*whole as f64)),
            Value::Number(fraction) if fraction.is_finite() => out.push_str(&number(*fraction)),
            Value::Number(_) => return Err(refused("number: must not be NaN or Infinity")),
            Value::String(text) => text_of(out, text)?,
            Value::Table(table) => {
                let depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| refused("table: excessive depth"))?;
                self.table(table, depth)?;
            }
            other => {
                let what = format!("{}: type not supported", other.type_name());
                return Err(refused(&what));
            }
        }
        Ok(())
    }

    /// A list if its keys are whole numbers from 1 on; an empty table is an object.
    fn table(&mut self, table: &Table, depth: usize) -> Result<()> {
        let (mut last, mut count) = (Some(0), 0);
        for pair in table.pairs::<Value, Value>() {
            count += 1;
            let index = match pair?.0 {
                Value::Integer(index) => usize::try_from(index).ok(),
                Value::Number(index) if index.fract() == 0.0 && index >= 1.0 => {
                    Some(index as usize)
                }
                _ => None,
            };
            last = last
                .zip(index.filter(|index| *index > 0))
                .map(|(last, index)| last.max(index));
        }
        match last {
            Some(last) if count > 0 => {
                if last > SPARSE_SAFE && last > count * SPARSE_RATIO {
                    return Err(refused("table: excessively sparse array"));
                }
                self.out.push('[');
                for index in 1..=last {
                    if index > 1 {
                        self.out.push(',');
                    }
                    self.value(&table.raw_get(index)?, depth)?;
                }
                self.out.push(']');
            }
            _ => {
                self.out.push('{');
                for (index, pair) in table.pairs::<Value, Value>().enumerate() {
                    let (key, value) = pair?;
                    if index > 0 {
                        self.out.push(',');
                    }
                    match &key {
                        Value::String(text) => text_of(&mut self.out, text)?,
                        Value::Integer(whole) => string(&mut self.out, &number(*whole as f64)),
                        Value::Number(fraction) => string(&mut self.out, &number(*fraction)),
                        _ => return Err(refused("table: table key must be a number or string")),
                    }
                    self.out.push(':');
                    self.value(&value, depth)?;
                }
                self.out.push('}');
            }
        }
        Ok(())
    }
}

fn text_of(out: &mut String, text: &LuaString) -> Result<()> {
    if out.len() + text.as_bytes().len() > MAX_BYTES {
        return Err(too_long());
    }
    string(out, &text.to_string_lossy());
    Ok(())
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' || control == '\u{7f}' => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn refused(what: &str) -> Error {
    Error::runtime(format!("Cannot serialise {what}"))
}

fn too_long() -> Error {
    Error::runtime(format!(
        "the JSON is longer than {MAX_BYTES} bytes, or holds more than {MAX_VALUES} values"
    ))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_written_as_by_luajit() {
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-42.0, "-42"),
            (1.5, "1.5"),
            (1.0 / 3.0, "0.33333333333333"),
            (2.0 / 3.0, "0.66666666666667"),
            (100.0, "100"),
            (1e13, "10000000000000"),
            (1e14, "1e+14"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "1.2345678901234e+14"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (99_999_999_999_999.9, "1e+14"),
        ] {
            assert_eq!(number(value), want, "{value}");
        }
    }
}
