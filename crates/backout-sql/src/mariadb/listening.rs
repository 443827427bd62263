//! Listens to what others write while a command runs: triggers log what sessions change that were connected before it began, and
//! note that later ones wrote. They never fail and never wait; where one cannot log, it says that something was lost.
//!
//! Who was there stands in a table in memory, which a server that was started again has lost: then nobody was.

use mysql::Error;

use super::Mariadb;
use super::capture::patiently;
use super::marker::Names;
use super::quiet::QUIET;
use super::session::{Session, ident, is_denied, is_lost, literal};
use super::table::{Side, Table};

/// The triggers on each table: for rows that come, change and go.
pub const TRIGGERS: [&str; 3] = ["i", "u", "d"];

const OLD: Side<'static> = Side::Live("OLD");
const NEW: Side<'static> = Side::Live("NEW");

/// The tool's own tables beside a copy that say who wrote.
pub struct Beside {
    /// The last session that was connected before the command began. In memory.
    pub known: String,
    /// Whether sessions that began later wrote: its counter moved then, which stays so where they roll back.
    pub later: String,
    /// The tables of which something is not in a log, each once for each session that wrote it.
    pub lost: String,
}

impl Beside {
    pub fn of(names: &Names, copy: u64) -> Self {
        let [known, later, lost] = ["known", "later", "lost"].map(|what| names.of_copy(copy, what));
        Self { known, later, lost }
    }

    /// A trigger on the table whose log has this number, in that database.
    fn trigger(&self, database: &str, at: usize, table: &Table, (name, event, act): (&str, &str, &str)) -> String {
        let Self { known, later, lost } = self;
        // Once for each session, for it stays noted. The copy of another database may have the same number.
        let noted = literal(&format!("{database}.{later}"));
        format!(
            "CREATE TRIGGER `{name}` AFTER {event} ON {table} FOR EACH ROW BEGIN
             DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN
                 DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN END;
                 INSERT IGNORE INTO `{lost}` VALUES ({at}, CONNECTION_ID());
             END;
             IF {QUIET} IS NULL THEN
                 IF CONNECTION_ID() <= (SELECT MAX(id) FROM `{known}`) THEN {act};
                 ELSEIF NOT (@backout_later <=> {noted}) AND CONNECTION_ID() > (SELECT MAX(id) FROM `{known}`) THEN
                     INSERT INTO `{later}` VALUES ();
                     SET @backout_later = {noted};
                 END IF;
             END IF; END",
            table = ident(&table.name)
        )
    }
}

/// What a trigger writes down for a row that comes, changes and goes. One that gets another key goes and comes.
fn acts(table: &Table, log: &str, lost: &str, at: usize) -> [(&'static str, &'static str, String); 3] {
    let all = TRIGGERS.into_iter().zip(["INSERT", "UPDATE", "DELETE"]);
    let acts = if table.is_loose() {
        // That somebody wrote is all that can be said.
        std::array::from_fn(|_| format!("INSERT IGNORE INTO `{lost}` VALUES ({at}, CONNECTION_ID())"))
    } else {
        let keys: Vec<String> = table.key.iter().map(|at| format!("c{at}")).collect();
        let old: Vec<String> = table.key.iter().map(|at| OLD.column(table, *at)).collect();
        let changed: Vec<String> =
            (0..table.columns.len()).map(|at| format!("IF({}, '0', '1')", table.same(at, OLD, NEW))).collect();
        let comes = |op: &str, changed: &str| {
            format!(
                "INSERT INTO `{log}` (op, who, changed, {}) VALUES ('{op}', USER(), {changed}, {})",
                table.held(""),
                table.live("NEW.")
            )
        };
        let goes =
            format!("INSERT INTO `{log}` (op, who, {}) VALUES ('D', USER(), {})", keys.join(", "), old.join(", "));
        let update = format!(
            "IF NOT ({}) THEN {goes}; {}; ELSEIF NOT ({}) THEN {}; END IF",
            table.keyed(OLD, NEW),
            comes("I", "NULL"),
            table.all_same(OLD, NEW),
            comes("U", &format!("CONCAT({})", changed.join(", ")))
        );
        [comes("I", "NULL"), update, goes]
    };
    let mut acts = acts.into_iter();
    let mut all = all.map(|(what, event)| (what, event, acts.next().unwrap_or_default()));
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

const RENUMBERED: &str = "what stands between here and the server gives its sessions other numbers";

impl Mariadb {
    fn is_renumbered(&mut self) -> Result<bool, Error> {
        // A proxy may answer the plain question by itself.
        Ok(self.b.number("SELECT CONNECTION_ID() + 0")? != u64::from(self.b.conn.connection_id()))
    }

    /// Whether what others write while a captured command runs is told from its own writes, in words, where triggers can be made.
    pub(super) fn what_is_told_apart(&mut self) -> Result<String, Error> {
        Ok(if self.is_renumbered()? {
            format!("nothing that others write while a captured command runs is told from its own writes: {RENUMBERED}")
        } else {
            "what others write while a captured command runs is told apart where their sessions were there before it; that of later ones \
             goes with its undo (`maintenance:` in site.yaml keeps them out); each row that they change is logged by a trigger meanwhile"
                .to_owned()
        })
    }

    /// Lets triggers log what others write, once [`Mariadb::listen`] says who these are. The tables that are listened to, each
    /// with its log; or why none can be, in words.
    pub(super) fn arm(&mut self, copy: u64) -> Result<Result<Vec<(Table, String)>, String>, Error> {
        if self.is_renumbered()? {
            return Ok(Err(RENUMBERED.to_owned()));
        }
        let beside = Beside::of(&self.names, copy);
        self.b.run(&format!("CREATE TABLE `{}` (id bigint unsigned NOT NULL) ENGINE=MEMORY", beside.known))?;
        self.b.run(&format!(
            "CREATE TABLE `{}` (n bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB",
            beside.later
        ))?;
        self.b.run(&format!(
            "CREATE TABLE `{}` (at int unsigned NOT NULL, id bigint unsigned NOT NULL, PRIMARY KEY (at, id)) ENGINE=InnoDB",
            beside.lost
        ))?;
        let mut all = Vec::new();
        for (at, (name, engine)) in self.tables_there()?.0.into_iter().enumerate() {
            let mut table = Table::find(&mut self.b, &name)?;
            if engine != "InnoDB" {
                // Its rows stay where a transaction is rolled back, and what was logged does not.
                table.key.clear();
            }
            let log = self.names.of_copy(copy, &format!("l{at}"));
            match self.arm_one(&beside, &table, &log, at) {
                Ok(()) => all.push((table, log)),
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) if is_denied(&error) => {
                    return Ok(Err(format!("this user may not make triggers ({error})")));
                }
                // Its rows are not told apart, which is said when they are compared.
                Err(_) => {}
            }
        }
        Ok(Ok(all))
    }

    fn arm_one(&mut self, beside: &Beside, table: &Table, log: &str, at: usize) -> Result<(), Error> {
        if !table.is_loose() {
            self.b.run(&format!(
                "CREATE TABLE `{log}` (n bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, op char(1) NOT NULL,
                 who varchar(384) CHARACTER SET utf8mb4 NOT NULL, changed text CHARACTER SET latin1 NULL, done bool NOT NULL DEFAULT 0,
                 {}) ENGINE=InnoDB",
                table.logged()
            ))?;
        }
        for (what, event, act) in acts(table, log, &beside.lost, at) {
            let sql = beside.trigger(&self.database, at, table, (&format!("{log}{what}"), event, &act));
            patiently(|| self.b.run(&sql))?;
        }
        Ok(())
    }

    /// From here on everybody is somebody else whose session is not newer than this one.
    pub(super) fn listen(&mut self, copy: u64, newest: &Session) -> Result<(), Error> {
        let known = Beside::of(&self.names, copy).known;
        self.b.run(&format!("INSERT INTO `{known}` VALUES ({})", newest.conn.connection_id()))
    }

    /// Takes the triggers of one copy off again, or those of all.
    pub(super) fn disarm(&mut self, copy: Option<u64>) -> Result<(), Error> {
        let begin = copy.map_or_else(|| self.names.object("c"), |copy| self.names.of_copy(copy, ""));
        let found = self.b.rows(&format!(
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND LEFT(TRIGGER_NAME, {}) = {}",
            begin.len(),
            literal(&begin)
        ))?;
        for name in found.into_iter().filter_map(|mut row| row[0].take()) {
            patiently(|| self.b.run(&format!("DROP TRIGGER IF EXISTS {}", ident(&name))))?;
        }
        Ok(())
    }
}
