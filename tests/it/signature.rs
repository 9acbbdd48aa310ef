//! Signatures, verified by third-party code.

use e2e::{Cluster, Request, Result, python};
use serde_json::{Value, json};

/// Prints the verdict of the Standard Webhooks project's package.
const STANDARD_WEBHOOKS: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
given = json.load(sys.stdin)
secret = given["secret"]
# The package takes base64 or bytes; any other secret is its own bytes.
webhook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
try:
    webhook.verify(given["body"], given["headers"], json_parse=False)
    print("valid")
except WebhookVerificationError as error:
    print(error)
"#;

/// Prints the verdict of a receiver of Kong's hooks.
const KONG: &str = r#"
import hashlib, hmac, json, sys
given = json.load(sys.stdin)
digest = hmac.new(given["secret"].encode(), given["body"].encode(), hashlib.sha256)
expected = "sha256=" + digest.hexdigest()
sent = given["headers"].get("x-kong-signature", "")
print("valid" if hmac.compare_digest(expected, sent) else "invalid")
"#;

/// The scripts' input.
fn given(request: &Request, secret: &str) -> Value {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        (name.as_str().to_owned(), json!(value))
    });
    let headers: serde_json::Map<String, Value> = headers.collect();
    json!({ "secret": secret, "body": request.text(), "headers": headers })
}

fn verdicts(given: &Value) -> Result<[String; 2]> {
    let given = given.to_string();
    let standard = python::run(STANDARD_WEBHOOKS, &given)?;
    Ok([standard, python::run(KONG, &given)?])
}

/// A request verifies, and fails to once it is tampered with.
async fn check(handler: &str, mut config: Value, secret: &str) -> Result {
    let cluster = Cluster::single().await?;
    config["url"] = json!(cluster.receiver.url("/hook"));
    config["secret"] = json!(secret);
    cluster.admin().hook_consumers(handler, config).await?;
    cluster.admin().create_consumer("Ada é Lovelace").await?;

    let request = cluster.receiver.wait_for_one("/hook").await?;
    let sent = given(&request, secret);
    assert_eq!(verdicts(&sent)?, ["valid", "valid"]);

    let mut tampered = sent.clone();
    tampered["body"] = json!(request.text().replace("Lovelace", "Loveless"));
    assert_ne!(tampered["body"], sent["body"]);
    assert_eq!(
        verdicts(&tampered)?,
        ["No matching signature found", "invalid"]
    );

    let mut other_id = sent.clone();
    other_id["headers"]["webhook-id"] = json!("another");
    let [standard, _] = verdicts(&other_id)?;
    assert_eq!(standard, "No matching signature found");

    let mut other_secret = sent.clone();
    other_secret["secret"] = json!("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(
        verdicts(&other_secret)?,
        ["No matching signature found", "invalid"]
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_verifies_with_a_standard_webhooks_secret() -> Result {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    check("webhook", json!({}), secret).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_signs_with_the_key_of_a_secret_that_was_pasted_carelessly() -> Result {
    let cluster = Cluster::single().await?;
    let secrets = [
        "whsec_++//AAECAwQFBgcICQoLDA0ODw==",
        "whsec_--__AAECAwQFBgcICQoLDA0ODw \n",
    ];
    for (number, secret) in secrets.iter().enumerate() {
        let url = cluster.receiver.url(&format!("/{number}"));
        let config = json!({ "url": url, "secret": secret });
        cluster.admin().hook_consumers("webhook", config).await?;
    }
    cluster.admin().create_consumer("Ada").await?;
    for number in 0..secrets.len() {
        let request = cluster.receiver.wait_for_one(&format!("/{number}")).await?;
        let verdict = python::run(STANDARD_WEBHOOKS, &given(&request, secrets[0]).to_string())?;
        assert_eq!(verdict, "valid");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_verifies_with_any_secret() -> Result {
    check("webhook", json!({}), "päss word & more").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_webhook_verifies() -> Result {
    let config = json!({ "method": "POST", "body": "hello {{ entity.username }}" });
    check("webhook-custom", config, "s3cret").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_without_a_secret_signs_nothing() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    // With a secret, the same hook signs.
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let secret = json!({ "config": { "url": hook["config"]["url"], "secret": "s3cret" } });
    cluster.admin().patch(&path, &secret).await?.expect(200)?;
    cluster.admin().create_consumer("Grace").await?;
    let events = cluster.receiver.wait_for("/hook", 2).await?;
    for (event, signed) in events.iter().zip([false, true]) {
        for header in ["x-kong-signature", "webhook-signature"] {
            assert_eq!(event.headers.contains_key(header), signed, "{header}");
        }
        assert!(!event.webhook_id().is_empty());
    }
    cluster.finish().await
}
