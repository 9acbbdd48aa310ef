//! Which consumers are in which groups: `/consumer_groups/{group}/consumers` and `/consumers/{consumer}/consumer_groups`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::collections::Collection;
use super::paging::Paging;
use super::response;
use crate::access::Action;
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Violations};
use crate::store::{self, Row};

const GROUP: &str = "consumer_group";
const CONSUMER: &str = "consumer";
/// That one request adds.
const MOST: usize = 100;

/// The consumers of one group, or the groups of one consumer.
#[derive(Debug)]
pub(super) struct Members<'a> {
    links: Collection<'a>,
    /// What is listed.
    listed: Collection<'a>,
    of: Arc<Row>,
}

impl<'a> Members<'a> {
    /// `of`: the group or consumer with this key.
    pub(super) async fn new(of: Collection<'a>, key: &str) -> Result<Self, ApiError> {
        let other = match of.schema.kind == Schema::consumers().kind {
            true => Schema::consumer_groups(),
            false => Schema::consumers(),
        };
        let beside =
            |schema| Collection::new(of.store, schema, of.place.clone(), Arc::clone(&of.caller));
        Ok(Self {
            links: beside(Schema::members()),
            listed: beside(other),
            of: find(&of, key).await?,
        })
    }

    /// The fields by which a link names what they belong to, and what is listed.
    fn fields(&self) -> (&'static str, &'static str) {
        match self.of.schema.kind == Schema::consumers().kind {
            true => (CONSUMER, GROUP),
            false => (GROUP, CONSUMER),
        }
    }

    fn links(&self) -> Vec<Arc<Row>> {
        let (here, view) = (&self.links.place.workspace, self.links.store.view());
        let mut links = view.children(self.links.schema, here, self.fields().0, &self.of.id);
        links.retain(|link| self.links.shows(link));
        links
    }

    fn rows(&self, links: &[Arc<Row>]) -> Vec<Arc<Row>> {
        let (here, view) = (&self.listed.place.workspace, self.listed.store.view());
        let ids = links
            .iter()
            .filter_map(|link| link.entity.get(self.fields().1)?.get("id")?.as_str());
        let rows = ids.filter_map(|id| view.get(self.listed.schema, here, id));
        rows.filter(|row| self.listed.shows(row)).collect()
    }

    /// As clients of several versions read it: by the name of the kind, and as other lists are.
    pub(super) async fn list(&self, uri: &Uri) -> Result<Response, ApiError> {
        let mut paging = Paging::read(self.links.schema, uri.query().unwrap_or_default())?;
        paging.query.parent = Some((self.fields().0, self.of.id.clone()));
        let (view, here) = (self.links.store.view(), &self.links.place.workspace);
        let mut page = view.list(self.links.schema, here, &paging.query).await;
        page.rows.retain(|link| self.links.shows(link));
        page.rows = self.rows(&page.rows);
        let (of, listed) = (self.of.schema.path, self.listed.schema);
        let path = format!("/{of}/{}/{}", self.of.id, listed.path);
        let mut shown = paging.envelope(|row| listed.response(&row.entity), &path, &page);
        shown[listed.kind] = shown["data"].clone();
        Ok(response::ok(&shown))
    }

    pub(super) async fn show(&self, key: &str) -> Result<Response, ApiError> {
        let row = find(&self.listed, key).await?;
        self.link(&row).ok_or(ApiError::NotFound)?;
        Ok(response::ok(&self.both(&[row])))
    }

    /// Adds what the input names: `consumer` or `group`, by id or name, one or several.
    pub(super) async fn add(&self, mut input: Input) -> Result<Response, ApiError> {
        let field = match self.fields().1 {
            CONSUMER => "consumer",
            _ => "group",
        };
        let keys = match input.values.shift_remove(field) {
            Some(Value::String(key)) => vec![key],
            Some(Value::Array(keys)) if keys.iter().all(Value::is_string) => {
                let keys = keys.into_iter();
                keys.filter_map(|key| Some(key.as_str()?.to_owned()))
                    .collect()
            }
            Some(Value::Object(of)) if of.get("id").is_some_and(Value::is_string) => {
                vec![of["id"].as_str().unwrap_or_default().to_owned()]
            }
            None => return Err(Violations::of(field, "required field missing").into()),
            Some(_) => return Err(Violations::of(field, "expected a string").into()),
        };
        let keys: BTreeSet<String> = keys.into_iter().collect();
        if keys.len() > MOST {
            let says = format!("length must be at most {MOST}");
            return Err(Violations::of(field, says).into());
        }
        if let Some(unknown) = input.values.keys().next() {
            return Err(Violations::of(unknown, "unknown field").into());
        }
        let mut rows = Vec::new();
        for key in &keys {
            rows.push(find(&self.listed, key).await?);
        }
        for row in &rows {
            self.add_one(row).await?;
        }
        Ok(response::json(StatusCode::CREATED, &self.both(&rows)))
    }

    async fn add_one(&self, row: &Row) -> Result<(), ApiError> {
        let (of, listed) = self.fields();
        let link = json!({ of: { "id": self.of.id }, listed: { "id": row.id } });
        let input = Input {
            values: link.as_object().cloned().unwrap_or_default(),
            form: false,
        };
        match self.links.insert(input, Entity::new(), false).await {
            // It is there already.
            Err(ApiError::Store(store::Error::Together { .. })) => Ok(()),
            added => added.map(drop),
        }
    }

    pub(super) async fn remove(&self, key: &str) -> Result<Response, ApiError> {
        let row = find(&self.listed, key).await?;
        let link = self.link(&row).ok_or(ApiError::NotFound)?;
        self.links.delete(&link.id).await
    }

    pub(super) async fn remove_all(&self) -> Result<Response, ApiError> {
        for link in self.links() {
            self.links.delete(&link.id).await?;
        }
        Ok(response::no_content())
    }

    fn link(&self, row: &Row) -> Option<Arc<Row>> {
        let field = self.fields().1;
        let is_it = |link: &Arc<Row>| {
            let id = link.entity.get(field).and_then(|of| of.get("id")?.as_str());
            id == Some(&row.id)
        };
        self.links().into_iter().find(is_it)
    }

    /// What they belong to, and some of what is listed.
    fn both(&self, rows: &[Arc<Row>]) -> Value {
        let rows = rows
            .iter()
            .map(|row| self.listed.schema.response(&row.entity));
        let of = self.of.schema.response(&self.of.entity);
        match self.fields() {
            (GROUP, _) => json!({ GROUP: of, "consumers": rows.collect::<Vec<_>>() }),
            _ => json!({ CONSUMER: of, "consumer_groups": rows.collect::<Vec<_>>() }),
        }
    }

    /// A group with all that it has.
    pub(super) fn whole(&self, plugins: Vec<Arc<Row>>) -> Value {
        let mut shown = self.both(&self.rows(&self.links()));
        let plugins = plugins.iter().map(|row| row.schema.response(&row.entity));
        shown["plugins"] = plugins.collect();
        shown
    }
}

impl Collection<'_> {
    /// A group with its consumers, unless the request wants none, and its plugins.
    pub(super) async fn show_group(&self, key: &str, uri: &Uri) -> Result<Response, ApiError> {
        let group = self.find(key).await?;
        if !self.shows(&group) {
            return Err(ApiError::NotFound);
        }
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let mut wants = query.filter(|(name, _)| name == "list_consumers");
        let none = wants.any(|(_, value)| value == "false");
        let view = self.store.view();
        let of = self.schema;
        let place = self.place.clone();
        let groups = Collection::new(self.store, of, place, Arc::clone(&self.caller));
        let members = Members::new(groups, &group.id).await?;
        let (plugins, here) = (Schema::plugins(), &self.place.workspace);
        let mut rows = view.children(plugins, here, "consumer_group", &group.id);
        let is_open = !self.caller.forbids_list(here, plugins, Action::Read);
        rows.retain(|row| is_open && !self.caller.is_hidden(view, here, row));
        let mut shown = members.whole(rows);
        if none && let Value::Object(shown) = &mut shown {
            shown.shift_remove("consumers");
        }
        Ok(response::ok(&shown))
    }
}

/// One that the caller may see.
async fn find(entities: &Collection<'_>, key: &str) -> Result<Arc<Row>, ApiError> {
    let row = entities.find(key).await?;
    match entities.shows(&row) {
        true => Ok(row),
        false => Err(ApiError::NotFound),
    }
}
