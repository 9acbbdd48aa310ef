//! What the caller may do to entities, beyond the request's own path.

use super::Collection;
use crate::access::{self, Action};
use crate::error::ApiError;
use crate::schema::ingest_tokens::names_changes;
use crate::schema::{Entity, Schema, Scope};

impl Collection<'_> {
    /// What one role forbids, no other permits, by whatever path.
    pub(in super::super) fn check_forbidden(
        &self,
        entity: &Entity,
        action: Action,
    ) -> Result<(), ApiError> {
        let (view, here) = (self.store.view(), &self.place.workspace);
        match self.caller.forbids(view, here, self.schema, entity, action) {
            true => Err(ApiError::forbidden(&self.caller)),
            false => Ok(()),
        }
    }

    /// Whether the caller might do it by a request for that alone.
    pub(in super::super) fn may(&self, entity: &Entity, action: Action) -> bool {
        let (view, here) = (self.store.view(), &self.place.workspace);
        self.caller.may(view, here, self.schema, entity, action)
    }

    /// As [`check_forbidden`](Self::check_forbidden), of the list of the kind.
    pub(in super::super) fn check_list(&self, action: Action) -> Result<(), ApiError> {
        let here = &self.place.workspace;
        match self.caller.forbids_list(here, self.schema, action) {
            true => Err(ApiError::forbidden(&self.caller)),
            false => Ok(()),
        }
    }

    /// Events of changes in the workspace are raised, with a token, only by whom somebody let who might make the changes.
    fn check_sources(&self, entity: &Entity) -> Result<(), ApiError> {
        if self.schema.kind != Schema::ingest_tokens().kind || !names_changes(entity) {
            return Ok(());
        }
        let here = &self.place.workspace;
        let mut kinds = Schema::kinds()
            .filter(|kind| kind.is_top_level && kind.scope == Scope::Workspace)
            .filter(|kind| !kind.gives_rights());
        let may_all = kinds.all(|kind| {
            let mut actions = [Action::Create, Action::Update, Action::Delete].into_iter();
            actions.all(|action| self.caller.may_on_list(here, kind, action))
        });
        match may_all {
            true => Ok(()),
            false => Err(ApiError::forbidden(&self.caller)),
        }
    }

    /// Nobody gives or takes rights in a workspace in which they might not do it.
    pub(in super::super) fn check_reach(&self, entity: &Entity) -> Result<(), ApiError> {
        self.check_sources(entity)?;
        if !self.schema.gives_rights() {
            return Ok(());
        }
        let (view, here) = (self.store.view(), &self.place.workspace);
        let reach = access::reach(view, self.schema, here, entity);
        for workspace in reach.iter().filter(|workspace| *workspace != here) {
            if !self.caller.may_in(workspace) {
                return Err(ApiError::forbidden(&self.caller));
            }
        }
        Ok(())
    }
}
