//! Finds things in the history: a deployment by its id, a child by its path, what is on top of the redo stack.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backout_journal::{DeploymentRow, Found, Reader};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event};
use backout_package::package::Package;

use crate::error::EngineError;
use crate::history::View;
use crate::restored::{Remains, remains};

/// The deployment that an id or its prefix names.
pub fn find(reader: &Reader, prefix: &str) -> Result<DeploymentRow, EngineError> {
    match reader.find(prefix)? {
        Found::One(row) => Ok(*row),
        Found::None => Err(EngineError::Usage {
            what: format!("no deployment `{prefix}` on this site"),
            hint: Some("`backout log` lists them".to_owned()),
        }),
        Found::Many(rows) => Err(EngineError::Usage {
            what: format!("`{prefix}` names {} deployments", rows.len()),
            hint: Some(format!("one of {}", rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>().join(", "))),
        }),
    }
}

/// `ID/CHILD/GRANDCHILD` as an id's prefix and a frame.
pub(crate) fn split(what: &str) -> (&str, FramePath) {
    match what.split_once('/') {
        Some((id, child)) => (id, FramePath::parse(child)),
        None => (what, FramePath::root()),
    }
}

/// The package of a frame.
pub(crate) fn package_at<'p>(root: &'p Package, path: &FramePath) -> Option<&'p Package> {
    fn seek<'p>(package: &'p Package, here: &FramePath, wanted: &FramePath) -> Option<&'p Package> {
        if here == wanted {
            return Some(package);
        }
        package.children().find_map(|child| {
            let path = here.child(&child.name);
            if path.contains(wanted) { seek(&child.package, &path, wanted) } else { None }
        })
    }
    seek(root, &FramePath::root(), path)
}

/// Where the package of each frame lies.
pub(crate) fn directories(root: &Package) -> BTreeMap<FramePath, PathBuf> {
    fn add(package: &Package, path: FramePath, into: &mut BTreeMap<FramePath, PathBuf>) {
        for child in package.children() {
            add(&child.package, path.child(&child.name), into);
        }
        into.insert(path, package.dir.clone());
    }
    let mut directories = BTreeMap::new();
    add(root, FramePath::root(), &mut directories);
    directories
}

/// The undo that a redo would take back.
pub(crate) struct Top {
    pub row: DeploymentRow,
    pub view: View,
    /// The entry that began it.
    pub since: u64,
    pub part: FramePath,
}

/// The last undo that was not redone, unless a later deployment cleared the stack.
pub(crate) fn top(reader: &Reader) -> Result<Top, EngineError> {
    let rows = reader.deployments()?;
    let mut undone: Vec<&DeploymentRow> = rows
        .iter()
        .filter(|row| matches!(row.state, DeploymentState::Undone | DeploymentState::PartlyUndone))
        .collect();
    undone.sort_by_key(|row| std::cmp::Reverse(row.state_seq));
    let mut top: Option<Top> = None;
    for row in undone {
        // An undo began before its end was written: what ended earlier began earlier, too.
        if top.as_ref().is_some_and(|top| top.since > row.state_seq) {
            break;
        }
        let view = View::load(reader, &row.id)?;
        if let Some((since, part)) =
            view.redoable().filter(|_| !view.pruned).map(|(seq, part)| (*seq, part.frame.clone()))
            && top.as_ref().is_none_or(|top| since > top.since)
        {
            top = Some(Top { row: row.clone(), view, since, part });
        }
    }
    let top = top.ok_or_else(|| EngineError::NotNow { what: "there is nothing to redo".to_owned(), hint: None })?;
    if let Some(later) = rows.iter().find(|row| row.first_seq > top.since && row.state.is_on_site()) {
        return Err(EngineError::NotNow {
            what: format!(
                "there is nothing to redo: {} {} ({}) was deployed since",
                later.package, later.version, later.id
            ),
            hint: Some(format!("deploy {} again instead", top.row.package)),
        });
    }
    Ok(top)
}

/// What is deployed now, in a sentence: the second line of an undo.
pub(crate) fn now_at(reader: &Reader) -> Result<String, EngineError> {
    let rows = reader.deployments()?;
    if let Some(row) = rows.iter().find(|row| row.state.is_on_site()) {
        return Ok(format!("the site is now at {} {} ({})", row.package, row.version, row.id));
    }
    let (mut left, mut commands) = (Vec::new(), Vec::new());
    for row in &rows {
        let remains = match row.state {
            DeploymentState::GivenUp => remains(reader, &View::load(reader, &row.id)?, row.state_seq)?,
            DeploymentState::Undone if View::load(reader, &row.id)?.left_something() => Remains::Something,
            _ => Remains::Nothing,
        };
        match remains {
            Remains::Nothing => {}
            Remains::OfCommands => commands.push(row.id.to_string()),
            Remains::Something => left.push(row.id.to_string()),
        }
    }
    // A journal that was made again from a record begins with what it does not know.
    let is_whole = reader.entry(1)?.is_none_or(|first| first.event != Event::EntryLost);
    let mut now = match is_whole {
        true => "the site is now as it was before its first deployment",
        false => {
            "no deployment is on the site now that this journal knows of; what came before its record is not in it"
        }
    }
    .to_owned();
    if !left.is_empty() {
        now.push_str(&format!(", except for what is left of {}", left.join(", ")));
    }
    if !commands.is_empty() {
        let ids = commands.join(", ");
        now.push_str(&format!(", except for what commands of {ids} did elsewhere, which no restore takes back"));
    }
    Ok(now)
}
