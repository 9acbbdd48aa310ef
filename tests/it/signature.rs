//! Signatures, verified by third-party code.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{Cluster, Request, Result, python};
use ring::signature::{ED25519, UnparsedPublicKey};
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

/// While a secret is replaced, receivers with either verify; after its end, those with the old one no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_without_a_request_that_does_not_verify() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.admin().hook_consumers(
        "webhook",
        json!({ "url": cluster.receiver.url("/hook"), "secret": "the-old-one" }),
    );
    let hook = hook.await?;
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let change = |until: i64| json!({ "config": { "secret": "the-new-one", "previous_secret_until": until } });
    let shown = cluster.admin().patch(&path, &change(4_000_000_000)).await?;
    let shown = shown.expect(200)?;
    assert_eq!(shown["config"]["previous_secret"], "[redacted]");
    cluster.admin().create_consumer("ada").await?;
    let request = cluster.receiver.wait_for_one("/hook").await?;
    for (secret, kong) in [("the-new-one", "valid"), ("the-old-one", "invalid")] {
        assert_eq!(
            verdicts(&given(&request, secret))?,
            ["valid", kong],
            "{secret}"
        );
    }
    // The same change again, as tools make it, leaves the old one where it is; an end that has passed ends it.
    let again = cluster.admin().patch(&path, &change(4_000_000_000)).await?;
    again.expect(200)?;
    let ended = json!({ "config": { "previous_secret_until": 1_700_000_000 } });
    cluster.admin().patch(&path, &ended).await?.expect(200)?;
    cluster.admin().create_consumer("grace").await?;
    let request = &cluster.receiver.wait_for("/hook", 2).await?[1];
    assert_eq!(
        verdicts(&given(request, "the-new-one"))?,
        ["valid", "valid"]
    );
    let [standard, _] = verdicts(&given(request, "the-old-one"))?;
    assert_eq!(standard, "No matching signature found");
    let unending = json!({ "config": { "secret": "a", "previous_secret": "b", "previous_secret_until": null } });
    cluster.admin().patch(&path, &unending).await?.expect(400)?;
    cluster.finish().await
}

/// With a private key, receivers verify by the public one that the Admin API shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asymmetric_signature_verifies_by_the_public_key_of_the_api() -> Result {
    let cluster = Cluster::single().await?;
    let secret = format!("whsk_{}", BASE64_STANDARD.encode([42; 32]));
    let config = json!({ "url": cluster.receiver.url("/hook"), "secret": secret });
    let hook = cluster.admin().hook_consumers("webhook", config).await?;
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let shown = cluster.admin().get(&path).await?.expect(200)?;
    assert_eq!(shown["config"]["secret"], "[redacted]");
    assert_eq!(shown["public_key"], hook["public_key"]);
    cluster.admin().create_consumer("ada").await?;
    let request = cluster.receiver.wait_for_one("/hook").await?;
    let key = shown["public_key"].as_str().unwrap_or_default();
    let key = BASE64_STANDARD.decode(key.trim_start_matches("whpk_"))?;
    let signature = request.header("webhook-signature");
    let signature = BASE64_STANDARD.decode(signature.trim_start_matches("v1a,"))?;
    let (id, at) = (request.webhook_id(), request.header("webhook-timestamp"));
    let signed = format!("{id}.{at}.{}", request.text());
    let key = UnparsedPublicKey::new(&ED25519, key);
    assert!(key.verify(signed.as_bytes(), &signature).is_ok());
    assert!(key.verify(b"another", &signature).is_err());
    assert_eq!(request.header("x-kong-signature"), "");
    // What is shown beside the hook may come back.
    cluster.admin().put(&path, &shown).await?.expect(200)?;
    cluster.finish().await
}
