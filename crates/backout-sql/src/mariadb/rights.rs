//! What the user may do in the database, and what each right that is missing costs. Each is tried on an object that is not
//! there: the server looks at rights first. Changes nothing.

use mysql::Error;

use super::session::{Session, ident, is_denied, is_lost};

/// A right.
struct Right {
    name: &'static str,
    /// Fails in any case; `{n}` and `{m}`: names of objects that are not there.
    tried: &'static str,
    /// What is not possible without it.
    cost: &'static str,
    /// Hardly any deployment is possible without it.
    grave: bool,
}

const fn grave(name: &'static str, tried: &'static str, cost: &'static str) -> Right {
    Right { name, tried, cost, grave: true }
}

const fn light(name: &'static str, tried: &'static str, cost: &'static str) -> Right {
    Right { name, tried, cost, grave: false }
}

const OWN: &str = "the tool keeps what an undo needs in tables of its own, so that nothing can be deployed";
const RIGHTS: [Right; 12] = [
    grave("CREATE", "CREATE TABLE {n} LIKE {m}", OWN),
    grave("ALTER", "ALTER TABLE {n} ADD a int", OWN),
    grave("DROP", "DROP TABLE {n}", OWN),
    grave("SELECT", "SELECT 1 FROM {n}", OWN),
    grave("INSERT", "INSERT INTO {n} VALUES (1)", OWN),
    grave("UPDATE", "UPDATE {n} SET a = 1", OWN),
    grave("DELETE", "DELETE FROM {n}", OWN),
    grave(
        "CREATE TEMPORARY TABLES",
        "CREATE TEMPORARY TABLE {n} LIKE {m}",
        "rows are compared in such tables before they go back, so that no change of rows can be undone",
    ),
    light(
        "LOCK TABLES",
        "LOCK TABLES {n} WRITE",
        "an ALTER TABLE that loses values fails, and so does the undo of one and of a table that foreign keys point at",
    ),
    light("CREATE VIEW", "CREATE VIEW {n} AS SELECT * FROM {m}", "a view that is dropped cannot come back"),
    light("ALTER ROUTINE", "DROP PROCEDURE {n}", "a procedure or function that is made cannot go again"),
    light("EVENT", "DROP EVENT {n}", "an event that is made or dropped cannot go or come back"),
];
const TRIGGER: &str = "CREATE TRIGGER {n} BEFORE INSERT ON {n} FOR EACH ROW SET @a = 1";

/// What the server says where this user may not do it.
fn is_refused(b: &mut Session, tried: &str, name: &str) -> Result<Option<Error>, Error> {
    match b.run(&tried.replace("{n}", &ident(name)).replace("{m}", &ident(&format!("{name}$")))) {
        Err(error) if is_denied(&error) => Ok(Some(error)),
        // That it is not there, or that nobody may write at the moment.
        Err(error) if !is_lost(&error) => Ok(None),
        done => done.map(|()| None),
    }
}

/// Why no rows can be captured; none where they can. `name`: of nothing that is there.
pub fn why_no_triggers(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    let Some(error) = is_refused(b, TRIGGER, name)? else { return Ok(None) };
    let why = "this user may not make triggers, by which rows that change are captured";
    if matches!(&error, Error::MySqlError(error) if error.code == 1419) {
        return Ok(Some(format!("the binary log is on, and {why}: ask for log_bin_trust_function_creators = 1")));
    }
    let database = ident(&b.value("SELECT DATABASE()")?.unwrap_or_default());
    let of_tables = format!(" ON {database}.`");
    let grants = b.rows("SHOW GRANTS")?;
    let mut texts = grants.iter().filter_map(|row| row[0].as_deref());
    if texts.any(|text| text.contains("TRIGGER") && text.contains(&of_tables)) {
        // On some tables it may; which these are the deployment finds out.
        return Ok(None);
    }
    Ok(Some(format!("{why}: ask for GRANT TRIGGER ON {database}.*")))
}

/// Why no change of rows could be captured, or taken back; none where both can.
pub fn why_no_rows(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    if let Some(why) = why_no_triggers(b, name)? {
        return Ok(Some(why));
    }
    Ok(lacking(b, name)?.into_iter().find(|(_, grave)| *grave).map(|(why, _)| why))
}

/// The rights that are missing, each with what that costs, and whether hardly any deployment is possible without it.
pub fn lacking(b: &mut Session, name: &str) -> Result<Vec<(String, bool)>, Error> {
    let mut all = Vec::new();
    for right in &RIGHTS {
        if is_refused(b, right.tried, name)?.is_some() {
            all.push((format!("this user lacks the right {}: {}", right.name, right.cost), right.grave));
        }
    }
    Ok(all)
}

/// What of the account and of the server's settings is to be said that keeps no deployment from being made.
pub fn notes(b: &mut Session, may_for_others: bool) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    if is_refused(b, "SHOW ENGINE INNODB STATUS", "")?.is_some() {
        all.push(
            "this user lacks the right PROCESS: a statement that a captured command left behind under another user is not waited for, and foreign \
             keys of databases that the user has no right on are not seen"
                .to_owned(),
        );
    }
    let others = "SELECT COUNT(*) FROM (SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()
             UNION ALL SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()
             UNION ALL SELECT DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()) AS d
         WHERE DEFINER <> CURRENT_USER()";
    let others = if may_for_others { 0 } else { b.number(others)? };
    if others > 0 {
        all.push(format!(
            "this user lacks the right SET USER: what drops or changes a view, routine or event of another definer is refused ({others} are there)"
        ));
    }
    let settings =
        b.rows("SELECT @@secure_timestamp, @@GLOBAL.local_infile, @@GLOBAL.tx_isolation")?.pop().unwrap_or_default();
    let is = |at: usize, wanted: &[&str]| {
        settings.get(at).and_then(Option::as_deref).is_none_or(|one| wanted.contains(&one))
    };
    if !is(0, &["NO"]) {
        all.push("the server keeps the time to itself (secure_timestamp): an ALTER TABLE that gives rows the moment (DEFAULT NOW()) gives them another one when it is done again".to_owned());
    }
    if !is(1, &["1"]) {
        all.push("local_infile is off: LOAD DATA LOCAL fails".to_owned());
    }
    if !is(2, &["REPEATABLE-READ", "SERIALIZABLE"]) {
        all.push("the isolation is not REPEATABLE READ: statements of which tables have to be copied first (rows that follow in a circle, or into keys) are refused".to_owned());
    }
    Ok(all)
}
