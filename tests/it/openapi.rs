//! The OpenAPI document, and whether answers are as it says.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use e2e::{Admin, Cluster, Result};
use fastrand::Rng;
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Map, Value, json};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
const NOWHERE: &str = "0fd2319f-13ea-4582-a448-8d11893026a8";

/// The document, with what each answer has to be.
struct Document {
    whole: Value,
    validators: BTreeMap<(String, String, u16), Option<Validator>>,
    failure: Validator,
}

impl Document {
    async fn read(admin: &Admin) -> Result<Self> {
        let whole = admin.get("/openapi.json").await?.expect(200)?;
        let validator = |schema: &Value| {
            let all = json!({ "components": whole["components"], "allOf": [schema] });
            jsonschema::draft202012::new(&all).context("a schema")
        };
        let mut validators = BTreeMap::new();
        for (path, method, operation) in operations(&whole) {
            let answers = operation["responses"].as_object().context("responses")?;
            for (status, answer) in answers {
                let Ok(status) = status.parse() else {
                    continue;
                };
                let content = answer.get("content").and_then(Value::as_object);
                let content = content.and_then(|content| content.values().next());
                let schema = content.map(|content| validator(&content["schema"]));
                let key = (path.clone(), method.to_owned(), status);
                validators.insert(key, schema.transpose()?);
            }
        }
        let failure = validator(&json!({ "$ref": "#/components/schemas/Error" }))?;
        Ok(Self {
            whole,
            validators,
            failure,
        })
    }

    fn check(&self, path: &str, method: &str, status: u16, body: &Value) -> Result {
        let key = (path.to_owned(), method.to_owned(), status);
        let validator = match self.validators.get(&key) {
            Some(None) => {
                ensure!(body.is_null(), "{method} {path} {status}: {body}");
                return Ok(());
            }
            Some(Some(validator)) => validator,
            None => &self.failure,
        };
        ensure!(status < 500, "{method} {path} {status}: {body}");
        let problems: Vec<_> = validator
            .iter_errors(body)
            .map(|error| error.to_string())
            .collect();
        ensure!(
            problems.is_empty(),
            "{method} {path} {status}: {problems:?}: {body}"
        );
        Ok(())
    }

    /// A value of a schema, and now and then another one.
    fn value(&self, schema: &Value, random: &mut Rng, depth: usize) -> Value {
        let wrong = [
            json!(null),
            json!(-1),
            json!(1.5),
            json!("\u{0}"),
            json!([]),
            json!({}),
            json!([{}]),
        ];
        if random.u8(..60) == 0 || depth > 8 {
            return random.choice(wrong).unwrap_or_default();
        }
        if let Some(name) = schema["$ref"].as_str() {
            let pointer = name.trim_start_matches('#');
            let of = self.whole.pointer(pointer).cloned().unwrap_or_default();
            return self.value(&of, random, depth + 1);
        }
        if let Some(forms) = schema["anyOf"].as_array() {
            let form = random.choice(forms).cloned().unwrap_or_default();
            return self.value(&form, random, depth + 1);
        }
        if let Some(choices) = schema["enum"].as_array() {
            return random.choice(choices).cloned().unwrap_or_default();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds[0].as_str(),
            kind => kind.as_str(),
        };
        match kind {
            Some("object") => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let fields = schema["properties"].as_object().into_iter().flatten();
                let mut entity = Map::new();
                for (name, field) in fields {
                    if required.iter().any(|one| one == name) || random.u8(..3) == 0 {
                        entity.insert(name.clone(), self.value(field, random, depth + 1));
                    }
                }
                if random.u8(..30) == 0 {
                    entity.insert("nothing.of[it]".to_owned(), json!(1));
                }
                Value::Object(entity)
            }
            Some("array") => (0..random.usize(..3))
                .map(|_| self.value(&schema["items"], random, depth + 1))
                .collect(),
            Some("integer" | "number") => {
                let low = schema["minimum"].as_i64().unwrap_or(0);
                json!(low + random.i64(0..100))
            }
            Some("boolean") => json!(random.bool()),
            _ => json!(text(random)),
        }
    }
}

/// None leads away from here.
fn text(random: &mut Rng) -> String {
    let texts = [
        "a",
        "b.test",
        "/path",
        "http://127.0.0.1:9/x",
        "127.0.0.1",
        "GET",
        "été",
        "a b",
        "x-header",
        NOWHERE,
        "{{ entity.id }}",
        "return function() end",
        "10.0.0.1:80",
        "~/[a",
        "%ff",
        "*.b.test",
    ];
    random.choice(texts).unwrap_or_default().to_owned()
}

fn operations(document: &Value) -> impl Iterator<Item = (String, &'static str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = METHODS
            .into_iter()
            .filter(|method| item.get(method).is_some());
        methods.map(|method| (path.clone(), method, &item[method]))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered_as_the_document_says() -> Result {
    let cluster = Cluster::builder().dispatchers(1).start().await?;
    let admin = cluster.admin();
    let document = Document::read(admin).await?;
    let mut random = Rng::with_seed(27);
    let mut answered = BTreeMap::new();
    // Where they were made, and what names them.
    let mut keys = vec![("workspaces".to_owned(), "default".to_owned())];
    let all: Vec<_> = operations(&document.whole).collect();
    for round in 0..8 {
        for (path, method, operation) in &all {
            // What is there is needed until the last round.
            if *method == "delete" && round % 4 != 3 {
                continue;
            }
            // Not a page, and what asks receivers takes long.
            if path == "/docs" || path.ends_with("/ping") || path.ends_with("/test") {
                continue;
            }
            let kind = path.split('/').nth(1).unwrap_or_default();
            let fitting = keys.iter().filter(|(of, _)| of == kind);
            let fitting: Vec<_> = fitting.chain(keys.last()).collect();
            let parts = path.split('/').map(|part| match part.starts_with('{') {
                true => random.choice(&fitting).map_or("a", |(_, key)| key),
                false => part,
            });
            let mut target = parts.collect::<Vec<_>>().join("/");
            if *method == "get" && random.bool() {
                target +=
                    ["?size=2", "?offset=x", "?tags=a", "?tags=a,b", "?size=0"][random.usize(..5)];
            }
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = match schema.is_null() {
                true => Value::Null,
                false => document.value(schema, &mut random, 0),
            };
            let answer = admin
                .request(method.to_uppercase().parse::<Method>()?, &target, &body)
                .await?;
            document
                .check(path, method, answer.status, &answer.body)
                .with_context(|| format!("{target} {body}"))?;
            *answered.entry(answer.status).or_insert(0) += 1;
            if let Some(id) = answer.body["id"].as_str().filter(|_| answer.status < 300) {
                let names = ["name", "username", "key", "prefix"];
                let names = names.iter().filter_map(|name| answer.body[*name].as_str());
                for key in names.chain([id]) {
                    keys.push((kind.to_owned(), key.to_owned()));
                }
                keys.retain(|(_, key)| !key.contains(['/', '%', '?', '#']) && !key.is_empty());
            }
        }
    }
    // Many of them were understood.
    ensure!(answered[&200] > 250 && answered[&201] > 20, "{answered:?}");
    // And what came of it can be taken out and put in again.
    let exported = admin.get("/config?format=json").await?.expect(200)?;
    let again = admin
        .post("/config?dry_run=true", &exported)
        .await?
        .expect(200)?;
    for name in ["create", "update", "delete"] {
        assert_eq!(again["summary"][name], 0, "{again}");
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_may_load_the_document_and_nothing_else() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_RBAC", "on")
        .gateway_env("HOOKLINE_PASSWORD", "a-token-of-the-admin")
        .start()
        .await?;
    let admin = cluster.admin();
    let http = e2e::admin::http_client()?;
    let page = http.get(format!("{}/docs", admin.base())).send().await?;
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"]
        .to_str()?
        .to_owned();
    ensure!(
        policy.starts_with("default-src 'none'; connect-src 'self'"),
        "{policy}"
    );
    ensure!(page.text().await?.contains("openapi.json"));
    // Whoever reads it learns that requests need a token.
    let document = admin.get("/openapi.json").await?.expect(200)?;
    assert_eq!(
        document["paths"]["/services"]["get"]["security"],
        json!([{"token": []}])
    );
    ensure!(document["paths"]["/docs"]["get"].get("security").is_none());
    assert_eq!(document["openapi"], "3.1.0");
    cluster.finish_unchecked().await
}
