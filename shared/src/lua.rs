//! Lua scripts of `lambda`: compiled by both services, run by dispatchers in a sandbox.
//!
//! The VM is Luau, which is built for untrusted scripts: its interrupt also fires inside pattern matching
//! and sorting, and its memory is capped. A script sees only an allow-list of functions, and gets a new
//! environment for every call, so that no state passes from one event to the next. The list must not
//! contain a C function whose work the memory cap does not bound, such as `table.move` over two billion
//! empty slots, because the interrupt does not fire inside it.

mod budget;
mod explain;
mod json;
mod log;
mod natives;
mod operators;

use std::sync::Arc;
use std::time::Duration;

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Function, Lua, LuaSerdeExt as _, Table, Value, VmState};
use serde_json::Map;

use crate::known_stack::on_known_stack;
use budget::Budget;
use log::Log;

pub use log::{Level, Line};

pub const MAX_SOURCE_BYTES: usize = 64 << 10;
/// When a hook is made.
const CHECK: Limits = Limits {
    time: Duration::from_millis(20),
    memory: 8 << 20,
};
/// Longer error messages are cut.
const MAX_ERROR_BYTES: usize = 2_048;

/// Global functions that a script may call.
const FUNCTIONS: [&str; 16] = [
    "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "require", "select",
    "tonumber", "tostring", "type", "typeof", "unpack", "xpcall", "_VERSION",
];

/// Library functions that a script may call.
const LIBRARIES: [(&str, &[&str]); 9] = [
    (
        "bit",
        &[
            "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift",
            "tobit", "tohex",
        ],
    ),
    (
        "bit32",
        &[
            "arshift", "band", "bnot", "bor", "btest", "bxor", "countlz", "countrz", "extract",
            "lrotate", "lshift", "replace", "rrotate", "rshift",
        ],
    ),
    (
        "coroutine",
        &[
            "create",
            "isyieldable",
            "resume",
            "running",
            "status",
            "wrap",
            "yield",
        ],
    ),
    (
        "math",
        &[
            "abs", "acos", "asin", "atan", "atan2", "ceil", "clamp", "cos", "cosh", "deg", "exp",
            "floor", "fmod", "frexp", "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi",
            "pow", "rad", "random", "round", "sign", "sin", "sinh", "sqrt", "tan", "tanh",
        ],
    ),
    (
        "ngx",
        &[
            "ALERT",
            "CRIT",
            "DEBUG",
            "EMERG",
            "ERR",
            "INFO",
            "NOTICE",
            "STDERR",
            "WARN",
            "decode_base64",
            "encode_base64",
            "log",
            "md5",
            "now",
            "null",
            "time",
        ],
    ),
    ("os", &["clock", "date", "difftime", "time"]),
    (
        "string",
        &[
            "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep",
            "reverse", "split", "sub", "upper",
        ],
    ),
    (
        "table",
        &[
            "clear", "clone", "concat", "find", "foreach", "foreachi", "getn", "insert", "isarray",
            "isempty", "maxn", "move", "new", "nkeys", "pack", "remove", "sort", "unpack",
        ],
    ),
    (
        "utf8",
        &["char", "charpattern", "codepoint", "codes", "len", "offset"],
    ),
];

/// Replaces functions that could run too long without an interrupt.
const BOUNDED: &str = include_str!("lua/bounded.lua");
/// What Kong's users have beside Luau's functions.
const BRIDGE: &str = include_str!("lua/bridge.lua");

#[derive(Debug, Clone)]
pub struct Script {
    /// Lua derives the chunk name in error messages from the source, as in Kong's log.
    source: Arc<str>,
    bytecode: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Processor time of one call.
    pub time: Duration,
    /// Bytes of the whole VM.
    pub memory: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// The script returned `false`: call again later.
    Again,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the script is longer than {MAX_SOURCE_BYTES} bytes")]
    TooLong,
    /// A syntax error, or an error that the script raised, with chunk name and line.
    #[error("{0}")]
    Script(String),
    /// Kong's wording.
    #[error("Bad return value from function, expected function type, got {0}")]
    NotAFunction(&'static str),
    #[error("the script took more than {0:?} of processor time")]
    Time(Duration),
    #[error("the script needs more than {0} bytes of memory")]
    Memory(usize),
}

/// Compiles a script without running it.
pub fn compile(source: &str) -> Result<Script, Error> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Error::TooLong);
    }
    operators::check(source)?;
    // The compiler recurses.
    let bytecode = on_known_stack(|| {
        let compiled = Compiler::new().compile(source);
        compiled.map_err(|error| describe(&error))
    })?;
    Ok(Script {
        source: source.into(),
        bytecode: bytecode.into(),
    })
}

/// Compiles a script, and runs it, without the function that it must return.
pub fn check(source: &str) -> Result<Script, Error> {
    let script = compile(source)?;
    let sandbox = Sandbox::new(CHECK).map_err(|error| describe(&error))?;
    match sandbox.within_limits(|| sandbox.function(&script).map(drop)) {
        // A dispatcher may have more of both.
        Ok(()) | Err(Error::Time(_) | Error::Memory(_)) => Ok(script),
        Err(error) => Err(error),
    }
}

/// The arguments of a script.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub data: &'a Map<String, serde_json::Value>,
    /// The event name as the hook subscribes to it.
    pub event: &'a str,
    pub source: &'a str,
    /// Process id of the node that raised the event.
    pub pid: u64,
}

/// A VM that runs scripts within limits, on one thread.
pub struct Sandbox {
    lua: Lua,
    base: Table,
    limits: Limits,
    budget: Arc<Budget>,
    log: Log,
}

impl Sandbox {
    pub fn new(limits: Limits) -> Result<Self, mlua::Error> {
        let (lua, log) = (Lua::new(), Log::default());
        let budget = Arc::new(Budget::new());
        let base = allow_list(&lua, &log, &budget)?;
        let spent = Arc::clone(&budget);
        lua.set_interrupt(move |_| {
            if spent.is_left() {
                return Ok(VmState::Continue);
            }
            Err(mlua::Error::runtime("time is up"))
        });
        lua.set_memory_limit(limits.memory)?;
        Ok(Self {
            lua,
            base,
            limits,
            budget,
            log,
        })
    }

    /// Runs the chunk in a new environment and calls the function that it returns.
    pub fn call(&self, script: &Script, call: Call<'_>) -> Result<Verdict, Error> {
        self.within_limits(|| self.run(script, call))
    }

    /// What scripts have logged since the last call of this.
    pub fn take_log(&self) -> Vec<Line> {
        self.log.take()
    }

    fn within_limits<T>(&self, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        // Luau does not collect garbage when an allocation hits the cap, so one script's garbage would
        // make the next script fail.
        if self.lua.used_memory() > self.limits.memory / 4
            && let Err(error) = self.lua.gc_collect()
        {
            return Err(describe(&error));
        }
        self.budget.start(self.limits.time);
        let result = run();
        let late = !self.budget.stop();
        match result {
            Err(Error::Script(_)) if late => Err(Error::Time(self.limits.time)),
            Err(Error::Memory(_)) => Err(Error::Memory(self.limits.memory)),
            result => result,
        }
    }

    fn run(&self, script: &Script, call: Call<'_>) -> Result<Verdict, Error> {
        let function = self.function(script)?;
        let verdict = self.apply(&function, call).map_err(|error| {
            let error = describe(&error);
            match error {
                Error::Script(message) => Error::Script(explain::named(message, &script.source)),
                other => other,
            }
        })?;
        Ok(if matches!(verdict, Value::Boolean(false)) {
            Verdict::Again
        } else {
            Verdict::Done
        })
    }

    fn function(&self, script: &Script) -> Result<Function, Error> {
        match self.load(script).map_err(|error| describe(&error))? {
            Value::Function(function) => Ok(function),
            Value::Integer(_) => Err(Error::NotAFunction("number")),
            other => Err(Error::NotAFunction(other.type_name())),
        }
    }

    fn load(&self, script: &Script) -> Result<Value, mlua::Error> {
        let environment = self.lua.create_table()?;
        let meta = self.lua.create_table()?;
        meta.raw_set("__index", &self.base)?;
        environment.raw_set("_G", &environment)?;
        environment.set_metatable(Some(meta))?;
        self.lua
            .load(&script.bytecode[..])
            .set_name(&*script.source)
            .set_mode(ChunkMode::Binary)
            .set_environment(environment)
            .call(())
    }

    fn apply(&self, function: &Function, call: Call<'_>) -> Result<Value, mlua::Error> {
        let options = mlua::serde::ser::Options::new()
            .set_array_metatable(false)
            .serialize_none_to_null(false)
            .serialize_unit_to_null(false);
        let data = self.lua.to_value_with(call.data, options)?;
        function.call((data, call.event, call.source, call.pid))
    }
}

/// The read-only table behind every environment. The libraries themselves lose all other functions, since
/// string methods (`("x"):rep(2)`) bypass the environment.
fn allow_list(lua: &Lua, log: &Log, budget: &Arc<Budget>) -> Result<Table, mlua::Error> {
    lua.load(BOUNDED).set_name("=sandbox").exec()?;
    let globals = lua.globals();
    let natives = natives::table(lua, log, budget)?;
    let kong: Table = lua.load(BRIDGE).set_name("=sandbox").call(natives)?;
    let base = lua.create_table()?;
    for name in FUNCTIONS {
        base.raw_set(name, globals.raw_get::<Value>(name)?)?;
    }
    for (name, functions) in LIBRARIES {
        let (library, all) = (lua.create_table()?, globals.raw_get::<Table>(name)?);
        for function in functions {
            library.raw_set(*function, all.raw_get::<Value>(*function)?)?;
        }
        for pair in all.pairs::<Value, Value>() {
            let (key, _) = pair?;
            if library.raw_get::<Value>(&key)?.is_nil() {
                all.raw_set(key, Value::Nil)?;
            }
        }
        all.set_readonly(true);
        library.set_readonly(true);
        base.raw_set(name, library)?;
    }
    base.raw_set("kong", kong)?;
    base.set_readonly(true);
    Ok(base)
}

/// Keeps the message without the stack trace, up to [`MAX_ERROR_BYTES`].
fn describe(error: &mlua::Error) -> Error {
    match error {
        mlua::Error::MemoryError(_) => Error::Memory(0),
        mlua::Error::CallbackError { cause, .. } => describe(cause),
        mlua::Error::SyntaxError { message, .. } => Error::Script(cut(message)),
        mlua::Error::RuntimeError(message) => Error::Script(cut(message
            .split("\nstack traceback:")
            .next()
            .unwrap_or_default())),
        other => Error::Script(cut(&other.to_string())),
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
