//! A call of a script, written as it goes over the wire: its keys, then its arguments.

use std::fmt;

use redis::aio::ConnectionLike;
use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisResult, RedisWrite, Script, ServerErrorKind, ToRedisArgs,
    ToSingleRedisArg,
};

/// The call.
pub(crate) struct ScriptCall<'a> {
    script: &'a Script,
    command: Cmd,
}

impl<'a> ScriptCall<'a> {
    /// A call whose first arguments are so many keys.
    pub(crate) fn new(script: &'a Script, keys: usize) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys);
        Self { script, command }
    }

    /// The next key or argument.
    pub(crate) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// The same for a text that nobody else needs.
    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) -> &mut Self {
        self.arg(Text(text))
    }

    /// Makes it. A server that does not know the script, since it was just started, is told.
    ///
    /// # Errors
    /// If Redis does not answer, or the script fails.
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

struct Text<'a>(fmt::Arguments<'a>);

impl ToRedisArgs for Text<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self.0);
    }
}

impl ToSingleRedisArg for Text<'_> {}
