//! The server's JSON API of streams and consumers, whose answers the client reads as plain payloads: also those about
//! messages that it could not read itself.

use async_nats::Client;
use serde::Deserialize;
use serde_json::Value;

/// The server's code for a message that is not there.
const NO_MESSAGE: u64 = 10_037;
/// and for such a consumer.
pub(crate) const NO_CONSUMER: u64 = 10_014;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the server did not answer")]
    Request(#[from] async_nats::RequestError),
    #[error("the server's answer cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the server refused: {0}")]
    Refused(Value),
}

/// A stored message, as the JSON API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Raw {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) hdrs: String,
    #[serde(default)]
    pub(crate) data: String,
    pub(crate) time: String,
}

pub(crate) async fn api(client: &Client, subject: &str, request: &Value) -> Result<Value, Error> {
    let subject = format!("$JS.API.{subject}");
    let answer = client.request(subject, request.to_string().into()).await?;
    let mut answer: Value = serde_json::from_slice(&answer.payload)?;
    match answer.get_mut("error") {
        Some(error) => Err(Error::Refused(error.take())),
        None => Ok(answer),
    }
}

/// None: there is no such message.
pub(crate) async fn raw(client: &Client, stream: &str, which: Value) -> Result<Option<Raw>, Error> {
    match api(client, &format!("STREAM.MSG.GET.{stream}"), &which).await {
        Ok(mut answer) => Ok(Some(Raw::deserialize(answer["message"].take())?)),
        Err(Error::Refused(error)) if error["err_code"] == NO_MESSAGE => Ok(None),
        Err(error) => Err(error),
    }
}
