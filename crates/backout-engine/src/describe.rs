//! Names each change of a step and what takes it back.

use backout_journal::Reader;
use backout_journal::error::JournalError;
use backout_model::target::Described;
use backout_package::step::{RunUndo, SqlUndo};

use crate::act::Act;
use crate::error::EngineError;
use crate::history::StepView;
use crate::session::Targets;

/// Names each change of a step and its undo.
pub(crate) fn describe(
    targets: &mut Targets,
    reader: &Reader,
    step: &StepView,
    each: &mut dyn FnMut(Described),
) -> Result<(), EngineError> {
    let plain = |change: String, undo: String| Described { change, place: String::new(), undo, rows: 0, bytes: 0 };
    match step.act() {
        Act::Run { argv, undo, .. } => each(plain(
            format!("run {}", argv.join(" ")),
            match undo {
                RunUndo::Command(undo) => format!("run {}", undo.join(" ")),
                RunUndo::Never { because } => format!("none, because {because}"),
                RunUndo::Captured(_) => "by what it changed, which is captured".to_owned(),
            },
        )),
        Act::Sql { shown, undo: SqlUndo::Script { shown: undo, .. }, .. } => {
            each(plain(format!("sql {shown}"), format!("sql {undo}")))
        }
        Act::Sql { shown, undo: SqlUndo::Never { because }, .. } => {
            each(plain(format!("sql {shown}"), format!("none, because {because}")))
        }
        Act::Sql { .. } | Act::Files { .. } | Act::Delete { .. } | Act::Captured { .. } if !step.has_images => {}
        Act::Sql { .. } | Act::Files { .. } | Act::Delete { .. } | Act::Captured { .. } => {
            let mut images = match reader.open_images(step.seq) {
                Err(JournalError::ImagesDropped { .. }) => {
                    each(plain(step.act().words(), "none any more: what it would need was pruned".to_owned()));
                    return Ok(());
                }
                images => images?,
            };
            targets.of(step.act())?.describe(&mut images, each)?;
        }
    }
    Ok(())
}
