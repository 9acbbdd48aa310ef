//! Charges for values before anything else touches them: what a template makes of a value takes time and memory in
//! proportion to it, and a value that is shared many times is as large as it would be written out.

use std::io;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde_json::ser::Formatter;

use super::number;

/// Values within values. Events are at most 128 deep.
const MAX_DEPTH: usize = 160;
/// Charges are counted in fractions of a unit of fuel.
const PER_FUEL: u64 = 256;
const PER_BYTE: u64 = 1;
const PER_NODE: u64 = 32;
/// For each byte of a text that is taken apart into values.
const PER_ITEM: u64 = 128;
/// For each byte that is written.
const PER_WRITTEN: u64 = 4;
/// A walk is charged after at most this many nodes.
const STEP: u64 = 256 * PER_NODE;

/// What is done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read or compared.
    Read,
    /// A text becomes a list of its parts.
    Items,
    /// Only its text is looked at: a list or map costs nothing.
    Text,
}

/// Charges for a value.
pub(super) fn charge(state: &State, value: &Value, used: Use) -> Result<(), Error> {
    if let Some(text) = number::published(value) {
        return spend(state, text.len() as u64 * PER_BYTE);
    }
    match (value.kind(), used) {
        (ValueKind::String | ValueKind::Bytes, used) => {
            let per_byte = if used == Use::Items {
                PER_ITEM
            } else {
                PER_BYTE
            };
            let bytes = value.as_bytes().map_or(0, <[u8]>::len);
            spend(state, bytes as u64 * per_byte)
        }
        (_, Use::Text) => Ok(()),
        _ => {
            let mut walk = Walk { state, spent: 0 };
            walk.visit(value, MAX_DEPTH)?;
            spend(state, walk.spent)
        }
    }
}

/// The text of a list, map, number or boolean, charged by what is written.
pub(super) fn json(state: &State, value: &Value, format: impl Formatter) -> Result<String, Error> {
    charge(state, value, Use::Read)?;
    let out = Charged {
        state,
        bytes: Vec::new(),
    };
    let mut writer = Writer { out, format };
    writer.value(value).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::InvalidData => ErrorKind::BadSerialization,
            _ => ErrorKind::OutOfFuel,
        };
        Error::from(kind)
    })?;
    String::from_utf8(writer.out.bytes).map_err(|_| Error::from(ErrorKind::BadSerialization))
}

/// Writes JSON, with numbers as they were published.
struct Writer<'a, 'b, F> {
    out: Charged<'a, 'b>,
    format: F,
}

impl<F: Formatter> Writer<'_, '_, F> {
    fn value(&mut self, value: &Value) -> io::Result<()> {
        if let Some(text) = number::published(value) {
            return self.format.write_number_str(&mut self.out, text);
        }
        match value.kind() {
            ValueKind::Map => self.map(value),
            ValueKind::Seq | ValueKind::Iterable => self.list(value),
            ValueKind::Undefined => self.format.write_null(&mut self.out),
            _ => serde_json::to_writer(&mut self.out, value).map_err(invalid),
        }
    }

    fn list(&mut self, value: &Value) -> io::Result<()> {
        self.format.begin_array(&mut self.out)?;
        for (index, item) in value.try_iter().map_err(invalid)?.enumerate() {
            self.format.begin_array_value(&mut self.out, index == 0)?;
            self.value(&item)?;
            self.format.end_array_value(&mut self.out)?;
        }
        self.format.end_array(&mut self.out)
    }

    fn map(&mut self, value: &Value) -> io::Result<()> {
        self.format.begin_object(&mut self.out)?;
        for (index, key) in value.try_iter().map_err(invalid)?.enumerate() {
            self.format.begin_object_key(&mut self.out, index == 0)?;
            let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            serde_json::to_writer(&mut self.out, &name).map_err(invalid)?;
            self.format.end_object_key(&mut self.out)?;
            self.format.begin_object_value(&mut self.out)?;
            self.value(&value.get_item(&key).map_err(invalid)?)?;
            self.format.end_object_value(&mut self.out)?;
        }
        self.format.end_object(&mut self.out)
    }
}

/// Unless there was no fuel to write it.
fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    let error = error.into();
    match error.downcast::<serde_json::Error>() {
        Ok(json) if json.is_io() => (*json).into(),
        Ok(json) => io::Error::new(io::ErrorKind::InvalidData, json),
        Err(other) => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// As the engine's `tojson` writes.
pub(super) struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Charges for text before it is made.
pub(super) fn charge_written(state: &State, bytes: usize) -> Result<(), Error> {
    spend(state, (bytes as u64).saturating_mul(PER_WRITTEN))
}

fn spend(state: &State, units: u64) -> Result<(), Error> {
    state.consume_fuel(units.div_ceil(PER_FUEL))
}

struct Walk<'a, 'b> {
    state: &'a State<'b, 'b>,
    /// Not yet charged.
    spent: u64,
}

impl Walk<'_, '_> {
    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.spent += PER_NODE;
        let bytes = value.as_bytes().map(<[u8]>::len);
        let bytes = bytes.or_else(|| number::published(value).map(str::len));
        self.spent += bytes.unwrap_or(0) as u64 * PER_BYTE;
        if self.spent >= STEP {
            spend(self.state, std::mem::take(&mut self.spent))?;
        }
        let is_map = match value.kind() {
            ValueKind::Map => true,
            ValueKind::Seq | ValueKind::Iterable => false,
            _ => return Ok(()),
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::from(ErrorKind::OutOfFuel));
        };
        for item in value.try_iter()? {
            if is_map {
                self.visit(&value.get_item(&item)?, depth)?;
            }
            self.visit(&item, depth)?;
        }
        Ok(())
    }
}

struct Charged<'a, 'b> {
    state: &'a State<'b, 'b>,
    bytes: Vec<u8>,
}

impl io::Write for Charged<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A small write is charged with later ones.
        let (before, after) = (self.bytes.len() / 64, (self.bytes.len() + bytes.len()) / 64);
        if after > before {
            charge_written(self.state, (after - before) * 64).map_err(io::Error::other)?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
