//! The entities of one kind in one workspace, by their places in lists, with an index of whatever they are asked for by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::super::row::Row;
use super::query::{Cursor, Query, Tagged, Tags, tags};

/// Rows that a list looks at under one lock; more than the largest page has.
pub(super) const STEP: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<Cursor, Arc<Row>>,
    places: HashMap<String, i64>,
    unique: HashMap<(&'static str, String), String>,
    pub(super) children: HashMap<(&'static str, String), BTreeSet<Cursor>>,
    tags: BTreeMap<String, BTreeSet<Cursor>>,
    /// How many have each form of the polymorphic record.
    pub(super) forms: HashMap<String, u64>,
    /// Rows that are not built in.
    pub(super) own: u64,
}

impl Table {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Row>> {
        self.rows.get(&(*self.places.get(id)?, id.to_owned()))
    }

    pub(super) fn get_by_unique(&self, field: &'static str, value: &str) -> Option<&Arc<Row>> {
        self.get(self.unique.get(&(field, value.to_owned()))?)
    }

    pub(super) fn put(&mut self, row: Row) {
        if let Some(known) = self.get(&row.id) {
            if known.sequence >= row.sequence {
                return;
            }
            self.remove(&row.id);
        }
        let cursor = (row.created_at(), row.id.clone());
        for unique in row.schema.unique_values(&row.entity) {
            self.unique
                .insert((unique.field, unique.value), row.id.clone());
        }
        for (reference, parent) in row.schema.parents(&row.entity) {
            let children = self.children.entry((reference.field, parent)).or_default();
            children.insert(cursor.clone());
        }
        for tag in tags(&row) {
            let tagged = self.tags.entry(tag.to_owned()).or_default();
            tagged.insert(cursor.clone());
        }
        if let Some(form) = form(&row) {
            *self.forms.entry(form.to_owned()).or_default() += 1;
        }
        self.own += u64::from(!row.is_built_in());
        self.places.insert(row.id.clone(), cursor.0);
        self.rows.insert(cursor, Arc::new(row));
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(created_at) = self.places.remove(id) else {
            return;
        };
        let cursor = (created_at, id.to_owned());
        let Some(row) = self.rows.remove(&cursor) else {
            return;
        };
        self.own -= u64::from(!row.is_built_in());
        for unique in row.schema.unique_values(&row.entity) {
            // Another entity may have taken the value.
            let key = (unique.field, unique.value);
            if self.unique.get(&key).is_some_and(|owner| owner == id) {
                self.unique.remove(&key);
            }
        }
        for (reference, parent) in row.schema.parents(&row.entity) {
            let key = (reference.field, parent);
            if let Some(children) = self.children.get_mut(&key) {
                children.remove(&cursor);
                if children.is_empty() {
                    self.children.remove(&key);
                }
            }
        }
        for tag in tags(&row) {
            if let Some(tagged) = self.tags.get_mut(tag) {
                tagged.remove(&cursor);
                if tagged.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
        if let Some(form) = form(&row)
            && let Some(count) = self.forms.get_mut(form)
        {
            *count -= 1;
            if *count == 0 {
                self.forms.remove(form);
            }
        }
    }

    /// Looks at the next [`STEP`] rows and adds those that match, until there is one more than the
    /// query wants. Returns where to continue, or `None` at the end.
    pub(super) fn list_step(
        &self,
        query: &Query,
        after: Option<&Cursor>,
        found: &mut Vec<Arc<Row>>,
    ) -> Option<Cursor> {
        let filter = self.filter(query)?;
        for (looked, cursor) in self.candidates(&filter, after).enumerate() {
            if let Some(row) = self.rows.get(cursor).filter(|_| filter.holds(cursor)) {
                found.push(Arc::clone(row));
            }
            if found.len() > query.size {
                return None;
            }
            if looked + 1 == STEP {
                return Some(cursor.clone());
            }
        }
        None
    }

    /// `None` if nothing matches.
    fn filter(&self, query: &Query) -> Option<Filter<'_>> {
        let mut filter = Filter::default();
        if let Some(parent) = &query.parent {
            filter.all.push(self.children.get(parent)?);
        }
        match &query.tags {
            Some(Tags::All(tags)) => {
                for tag in tags {
                    filter.all.push(self.tags.get(tag)?);
                }
            }
            Some(Tags::Any(tags)) => {
                let tags: BTreeSet<_> = tags.iter().collect();
                let sets = tags.into_iter().filter_map(|tag| self.tags.get(tag));
                filter.any = Some(sets.collect());
            }
            None => {}
        }
        Some(filter)
    }

    /// The next rows of the smallest set that has all that match.
    fn candidates<'a>(
        &'a self,
        filter: &Filter<'a>,
        after: Option<&Cursor>,
    ) -> Box<dyn Iterator<Item = &'a Cursor> + 'a> {
        let range = (
            after.cloned().map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let smallest = filter.all.iter().min_by_key(|set| set.len());
        if let Some(any) = &filter.any {
            let size: usize = any.iter().map(|set| set.len()).sum();
            if smallest.is_none_or(|set| size < set.len()) {
                let next = any.iter();
                let next = next.flat_map(|set| set.range(range.clone()).take(STEP));
                let next: BTreeSet<_> = next.collect();
                return Box::new(next.into_iter());
            }
        }
        match smallest {
            Some(set) => Box::new(set.range(range)),
            None => Box::new(self.rows.range(range).map(|(cursor, _)| cursor)),
        }
    }

    /// The next that have tags, or one tag, in order.
    pub(super) fn tagged<'a>(
        &'a self,
        kind: &'static str,
        tag: Option<&'a str>,
        after: Option<&'a Tagged>,
    ) -> impl Iterator<Item = Tagged> + 'a {
        let first = after.map_or(tag.unwrap_or_default(), |(tag, ..)| tag);
        let tags = self
            .tags
            .range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let tags = tags.take_while(move |(of, _)| tag.is_none_or(|tag| *of == tag));
        tags.flat_map(move |(tag, cursors)| {
            let from = match after {
                Some((of, before, cursor)) if of == tag => match kind.cmp(before) {
                    std::cmp::Ordering::Less => None,
                    std::cmp::Ordering::Equal => Some(Bound::Excluded(cursor)),
                    std::cmp::Ordering::Greater => Some(Bound::Unbounded),
                },
                _ => Some(Bound::Unbounded),
            };
            let cursors = from.map(|from| cursors.range::<Cursor, _>((from, Bound::Unbounded)));
            let cursors = cursors.into_iter().flatten();
            cursors.map(move |cursor| (tag.clone(), kind, cursor.clone()))
        })
    }
}

/// The sets that a row must be in.
#[derive(Debug, Default)]
struct Filter<'a> {
    all: Vec<&'a BTreeSet<Cursor>>,
    /// In one of them.
    any: Option<Vec<&'a BTreeSet<Cursor>>>,
}

impl Filter<'_> {
    fn holds(&self, cursor: &Cursor) -> bool {
        let is_in = |set: &&BTreeSet<Cursor>| set.contains(cursor);
        self.all.iter().all(is_in) && self.any.as_ref().is_none_or(|sets| sets.iter().any(is_in))
    }
}

/// Which form the polymorphic record has.
fn form(row: &Row) -> Option<&str> {
    let selector = row.schema.variants()?.selector;
    row.entity.get(selector).and_then(Value::as_str)
}
