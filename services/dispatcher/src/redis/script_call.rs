//! A script call, built in its wire format: keys, then arguments.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisResult, RedisWrite, Script, ServerErrorKind, ToRedisArgs,
    ToSingleRedisArg,
};

use super::keys::Key;
use crate::metrics::RedisCall;

pub(crate) struct ScriptCall<'a> {
    script: &'a Script,
    command: Cmd,
    /// What the call is for.
    pub(super) kind: RedisCall,
}

impl<'a> ScriptCall<'a> {
    /// `keys`: the number of keys, which come first.
    pub(crate) fn new(script: &'a Script, keys: usize) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys);
        Self {
            script,
            command,
            kind: RedisCall::Other,
        }
    }

    pub(crate) fn of_kind(mut self, kind: RedisCall) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn key(&mut self, key: Key<'_>) -> &mut Self {
        self.arg(Written(key))
    }

    /// Runs the script, after loading it if the server does not have it.
    pub(crate) async fn make<T: FromRedisValue>(
        &self,
        connection: &mut impl ConnectionLike,
    ) -> RedisResult<T> {
        match self.command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.script.load_async(connection).await?;
                self.command.query_async(connection).await
            }
            answer => answer,
        }
    }
}

/// Writes a key without an intermediate string.
struct Written<'a>(Key<'a>);

impl ToRedisArgs for Written<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self.0);
    }
}

impl ToSingleRedisArg for Written<'_> {}

pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
