//! Charges for values before anything else touches them: what a template makes of a value takes time and memory in
//! proportion to it, and a value that is shared many times is as large as it would be written out.

use std::io;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde_json::ser::{Formatter, Serializer};

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
    let mut out = Charged {
        state,
        bytes: Vec::new(),
    };
    let mut serializer = Serializer::with_formatter(&mut out, format);
    serde::Serialize::serialize(value, &mut serializer).map_err(|error| {
        let kind = if error.is_io() {
            ErrorKind::OutOfFuel
        } else {
            ErrorKind::BadSerialization
        };
        Error::from(kind)
    })?;
    String::from_utf8(out.bytes).map_err(|_| Error::from(ErrorKind::BadSerialization))
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
        if let Some(bytes) = value.as_bytes() {
            self.spent += bytes.len() as u64 * PER_BYTE;
        }
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
