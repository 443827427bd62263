//! An alteration that is done again: the statement runs under the settings of then, and where the server gives rows values for new
//! columns that it might give only once, they get those that they had.

use backout_model::target::{TargetError, Ticket};
use mysql::Error;

use super::Mariadb;
use super::ddl::Change;
use super::ddl_alter::Altered;
use super::ddl_hung;
use super::ddl_kept::{Holds, Kept, set_from};
use super::head::head;
use super::moment;
use super::segment::{Detail, Segment};
use super::session::Session;
use super::split::Statement;
use super::table::{self, Table, There};
use super::token::bare;

/// Before a change is done again: what it left in new columns is to be given again, unless that is so already.
fn put_given_aside(b: &mut Session, holds: &Holds) -> Result<(), Error> {
    let Holds { after, given, .. } = holds;
    if has(b, given)? || !has(b, after)? {
        return Ok(());
    }
    b.run(&format!("DROP TABLE IF EXISTS `{given}`"))?;
    b.run(&format!("RENAME TABLE `{after}` TO `{given}`"))
}

/// True where a hold is there and has rows.
fn has(b: &mut Session, hold: &str) -> Result<bool, Error> {
    Ok(matches!(table::there(b, hold)?, There::Table(_))
        && b.value(&format!("SELECT 1 FROM `{hold}` LIMIT 1"))?.is_some())
}

/// Gives rows again in new columns what they had there; those that came since keep what they got. Can be done again, until
/// [`forget_given`].
pub fn give_again(a: &mut Session, kept: &Kept, holds: &Holds) -> Result<(), Error> {
    let table = &kept.after;
    let now = Table::find(a, &table.name)?;
    let moving = now.columns.iter().filter(|column| column.moves).map(|column| column.name.as_str());
    let columns = table.key.len()..table.key.len() + kept.given;
    a.run(&set_from(table, &holds.given, columns, moving))
}

/// Once the row of the change says that it is done: what rows have now is what the next redo gives.
pub fn forget_given(a: &mut Session, holds: &Holds) -> Result<(), Error> {
    a.run(&format!("DELETE FROM `{}`", holds.given))
}

impl Mariadb {
    /// A change that broke off behind the server's part: rows get again what they had, and that is noted as what it left.
    pub(super) fn settle_given(&mut self, kept: &Kept, holds: &Holds, name: &str) -> Result<(), TargetError> {
        let label = self.label.clone();
        let failed = |source| TargetError::failed(format!("cannot bring values back in {label}"), source);
        if kept.given == 0 || !has(&mut self.b, &holds.given).map_err(failed)? {
            return Ok(());
        }
        self.hold_triggers(&[name])?;
        give_again(&mut self.b, kept, holds).map_err(failed)?;
        if !has(&mut self.b, &holds.after).map_err(failed)? {
            let note = format!("INSERT INTO `{}` SELECT * FROM `{}`", holds.after, holds.given);
            self.b.run(&note).map_err(failed)?;
        }
        Ok(())
    }

    /// Runs the statement again, under the script's settings of then; the tool's own hold again afterwards, however it went.
    pub(super) fn redo_alter(
        &mut self,
        segment: &mut Segment,
        was: &Altered,
        (sql, settings): (&str, &str),
        line: u32,
        ticket: Ticket,
    ) -> Result<(), TargetError> {
        let done = self.alter_again(segment, was, (sql, settings), line, ticket);
        let unset = self.a()?.unset().map_err(|source| self.failed("cannot set up", source));
        done.and(unset.and_then(|()| self.own_session()))
    }

    fn alter_again(
        &mut self,
        segment: &mut Segment,
        was: &Altered,
        (sql, settings): (&str, &str),
        line: u32,
        ticket: Ticket,
    ) -> Result<(), TargetError> {
        let statement = Statement { line, sql: sql.to_owned() };
        let place = format!("line {line}");
        let name = was.name.as_str();
        let Some(mut head) = head(&bare(sql, self.version)) else { return Ok(()) };
        // As the server has it, however it is written.
        head.names.iter_mut().take(1).for_each(|one| name.clone_into(&mut one.name));
        let there =
            table::there(&mut self.b, name).map_err(|source| self.failed("cannot read the schema of", source))?;
        let again = self.without_loss(segment, name)?;
        let a = self.a()?;
        let set = moment::settable(a, settings).and_then(|settings| a.run(settings));
        set.map_err(|source| self.failed("cannot set up", source))?;
        let gave = was.kept.as_ref().filter(|kept| kept.given > 0);
        if gave.is_some() {
            let holds = self.holds_of(segment);
            let put = put_given_aside(&mut self.b, &holds);
            put.map_err(|source| self.failed("cannot keep what was left in", source))?;
        }
        let prepared = self.prepare_alter(segment.step, segment.number, &statement, &place, &head, &there)?;
        match prepared.change {
            Some(Change::Altered(altered)) => {
                if gave.is_some_and(|gave| !altered.kept.as_ref().is_some_and(|kept| kept.gives_as(gave))) {
                    let why = "others changed since the key or the columns by which its rows get again what they had";
                    return Err(TargetError::failed(format!("cannot do {name} again"), why));
                }
                let change = Box::new(Change::Altered(altered.clone()));
                let held = self.begin_of_held();
                let hung = ddl_hung::before(&mut self.b, &change, &held).map_err(|source| self.reading(source))?;
                segment.detail = Detail::Ddl { line, sql: sql.to_owned(), settings: settings.to_owned(), change, hung };
                let altered = Altered { after: was.after.clone(), ..*altered };
                match again {
                    Some(again) => {
                        let altered = Altered { gone: Vec::new(), ..altered };
                        self.perform_alter(segment, &altered, ticket, &place, &again)
                    }
                    None => self.perform_alter(segment, &altered, ticket, &place, sql),
                }
            }
            _ => Ok(()),
        }
    }
}
