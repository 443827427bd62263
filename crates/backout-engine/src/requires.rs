//! What packages require of each other: where a name leads, and who requires what is to be undone.
//!
//! Never decides what becomes of a package that lacks something: that is the frame's business.

use backout_journal::{DeploymentRow, Reader};
use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::id::FramePath;
use backout_model::state::{Event, FrameState};
use backout_package::package::Package;

use crate::error::EngineError;
use crate::history::{Planned, View, read};
use crate::lookup::package_at;
use crate::step::Run;

/// A package that a child requires and that is not there.
pub(crate) struct Missing {
    pub why: String,
    /// It is part of this deployment and was passed over.
    pub passed_over: bool,
}

/// The frame that a name means which the package at `path` requires: the nearest of that name, beside it or beside a
/// package around it. None where only another deployment can have it.
fn provider(root: &Package, path: &FramePath, name: &str) -> Option<FramePath> {
    path.parents().iter().find_map(|around| {
        let found = package_at(root, around)?.children().find(|child| child.package.name == name)?;
        Some(around.child(&found.name)).filter(|provider| !provider.contains(path))
    })
}

/// Every package below `root` with its place, `root` itself first.
fn walk<'p>(root: &'p Package, path: &FramePath, each: &mut dyn FnMut(&FramePath, &'p Package)) {
    each(path, root);
    for child in root.children() {
        walk(&child.package, &path.child(&child.name), each);
    }
}

/// What the deployment that `row` names was planned to do.
fn planned(reader: &Reader, row: &DeploymentRow) -> Result<Option<Planned>, EngineError> {
    match reader.entry(row.first_seq)?.filter(|entry| entry.event == Event::DeploymentPlanned) {
        Some(entry) => Ok(Some(read(&entry.payload, entry.seq)?)),
        None => Ok(None),
    }
}

impl Run<'_, '_> {
    /// What the child at `path` requires and is not there.
    pub(crate) fn missing(&self, child: &Package, path: &FramePath) -> Result<Option<Missing>, EngineError> {
        for name in &child.requires {
            let state = provider(self.view.manifest()?, path, name)
                .map(|provider| self.view.frames.get(&provider).map(|frame| frame.state));
            let present = match state {
                Some(state) => state == Some(FrameState::Done),
                None => {
                    let rows = self.session.journal.reader().deployments()?;
                    let is_here = rows.iter().any(|row| row.package == *name && row.state.is_on_site());
                    is_here || self.session.is_deployed_live(name)
                }
            };
            if !present {
                let why = format!("{} requires `{name}`, which is not deployed", child.name);
                return Ok(Some(Missing { why, passed_over: state == Some(Some(FrameState::PassedOver)) }));
            }
        }
        Ok(None)
    }

    /// Deployments, and packages of this one, that require what is to be undone.
    pub(crate) fn required_by(&self, part: &FramePath) -> Result<Conflicts, EngineError> {
        let requirers = if part.is_root() { self.later_requirers()? } else { self.inner_requirers(part)? };
        let object = if part.is_root() { self.view.manifest()?.name.clone() } else { part.to_string() };
        let mut conflicts = Conflicts::default();
        for now in requirers {
            conflicts.push(Conflict {
                target: format!("deployment {}", self.view.id),
                object: object.clone(),
                key: None,
                column: None,
                kind: ConflictKind::RequiredBy,
                before: String::new(),
                left: String::new(),
                now,
            });
        }
        Ok(conflicts)
    }

    /// Packages of later deployments that require this one's, and that no other deployment satisfies.
    fn later_requirers(&self) -> Result<Vec<String>, EngineError> {
        let reader = self.session.journal.reader();
        let name = &self.view.manifest()?.name;
        let rows = reader.deployments()?;
        let others: Vec<&DeploymentRow> =
            rows.iter().filter(|row| row.id != self.view.id && row.state.is_on_site()).collect();
        if others.iter().any(|row| row.package == *name) {
            return Ok(Vec::new());
        }
        let mut requirers = Vec::new();
        for row in others.into_iter().filter(|row| row.first_seq > self.view.first_seq) {
            let Some(planned) = planned(reader, row)? else { continue };
            let mut paths = Vec::new();
            walk(&planned.manifest, &FramePath::root(), &mut |path, package| {
                if package.requires.contains(name) && provider(&planned.manifest, path, name).is_none() {
                    paths.push(path.clone());
                }
            });
            if paths.is_empty() {
                continue;
            }
            // What failed or was passed over requires nothing any more.
            let other = View::load(reader, &row.id)?;
            for path in paths.iter().filter(|path| other.is_done(path)) {
                let child = if path.is_root() { String::new() } else { format!("/{path}") };
                requirers.push(format!("{} ({}{child})", other.name(), other.id));
            }
        }
        Ok(requirers)
    }

    /// Packages of this deployment outside `part` that require it or something in it.
    fn inner_requirers(&self, part: &FramePath) -> Result<Vec<String>, EngineError> {
        let root = self.view.manifest()?;
        let mut requirers = Vec::new();
        walk(root, &FramePath::root(), &mut |path, package| {
            let requires = |name: &String| provider(root, path, name).is_some_and(|found| part.contains(&found));
            if !part.contains(path) && self.view.is_done(path) && package.requires.iter().any(requires) {
                requirers.push(format!("the package {path} beside it"));
            }
        });
        Ok(requirers)
    }
}
