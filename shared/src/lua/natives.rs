//! Functions that the bridge needs and Luau does not have. None takes longer than its bounded arguments are worth.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};
use mlua::{Error, Lua, LuaString, Result, Table, Value};

use super::budget::Budget;
use super::json;
use super::log::{Level, Log};
use crate::clock;
use crate::signature::hex;

/// The longest text that is hashed or encoded.
const MAX_BYTES: usize = 4 << 20;

pub(super) fn table(lua: &Lua, log: &Log, budget: &Arc<Budget>) -> Result<Table> {
    let natives = lua.create_table()?;
    let log = log.clone();
    let write = lua.create_function(move |_, (level, text): (u8, LuaString)| {
        let level = match level {
            0..=4 => Level::Error,
            5 => Level::Warn,
            6 | 7 => Level::Info,
            _ => Level::Debug,
        };
        log.add(level, &text.as_bytes());
        Ok(())
    })?;
    natives.raw_set("log", write)?;
    let now = lua.create_function(|_, ()| Ok(clock::unix_millis() as f64 / 1_000.0))?;
    natives.raw_set("now", now)?;
    let md5 = lua.create_function(|_, text: LuaString| Ok(hex(&Md5::digest(&*bounded(&text)?))))?;
    natives.raw_set("md5", md5)?;
    let encode =
        lua.create_function(|_, text: LuaString| Ok(BASE64_STANDARD.encode(&*bounded(&text)?)))?;
    natives.raw_set("encode_base64", encode)?;
    let decode = lua.create_function(|lua, text: LuaString| {
        let decoded = BASE64_STANDARD.decode(&*bounded(&text)?);
        decoded
            .ok()
            .map(|bytes| lua.create_string(bytes))
            .transpose()
    })?;
    natives.raw_set("decode_base64", decode)?;
    let budget = Arc::clone(budget);
    let encode = lua.create_function(move |_, value: Value| json::encode(&value, &budget))?;
    natives.raw_set("encode_json", encode)?;
    natives.raw_set("decode_json", lua.create_function(json::decode)?)?;
    natives.raw_set("null", Value::NULL)?;
    Ok(natives)
}

fn bounded(text: &LuaString) -> Result<mlua::BorrowedBytes> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_BYTES {
        return Err(Error::runtime(format!(
            "the text is longer than {MAX_BYTES} bytes"
        )));
    }
    Ok(bytes)
}
