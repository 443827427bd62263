//! What is rare and was once lost without a word: values that only a lenient server takes, texts in another character set,
//! rows that follow into another database, versions and periods.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

const BASE: &str = "
    SET sql_mode = 'ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION';
    CREATE TABLE day (id int PRIMARY KEY, d date NOT NULL, t datetime NOT NULL) ENGINE=InnoDB;
    INSERT INTO day VALUES (1, '2001-02-31', '2001-04-31 01:00:00'), (2, '0000-00-00', '2020-00-00');
    CREATE TABLE kind (k enum('', 'x') PRIMARY KEY, v int) ENGINE=InnoDB; INSERT INTO kind VALUES ('bad', 1), ('', 2), ('x', 3);
    CREATE TABLE word (id int PRIMARY KEY, w varchar(20)) ENGINE=InnoDB;
    CREATE TABLE par (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO par VALUES (1), (2);
    SET NAMES latin1;
    CREATE TRIGGER word_new BEFORE INSERT ON word FOR EACH ROW SET NEW.w = CONCAT('é', NEW.w);
    SET NAMES utf8mb4; CREATE TABLE keyed (w varchar(9) CHARACTER SET latin1 COLLATE latin1_general_ci PRIMARY KEY, v varchar(9) CHARACTER SET latin1, n tinyint, KEY by_n (n) COMMENT 'n', UNIQUE KEY by_v (v) IGNORED) ENGINE=InnoDB;
    INSERT INTO keyed VALUES ('é', 'ü', 1), ('A', 'b', 2), ('ß ', NULL, NULL);
    CREATE TABLE pair (a char(3) CHARACTER SET utf8mb4, b int, PRIMARY KEY (a, b)) ENGINE=InnoDB; INSERT INTO pair VALUES ('x', 1), ('x', 2), ('ł', 1);
    CREATE SEQUENCE s START WITH 7; CREATE TABLE numbered (id int PRIMARY KEY DEFAULT NEXTVAL(s), v int) ENGINE=InnoDB; INSERT INTO numbered (v) VALUES (1);
    SET NAMES latin1; CREATE FUNCTION accent() RETURNS varchar(9) RETURN 'ß'; CREATE VIEW named AS SELECT 'é' AS `ñ`;
    SET NAMES utf8mb4;";

const SCRIPTS: &[&str] = &[
    "SET sql_mode = ''; UPDATE day SET d = '2020-01-01', t = '2020-01-01'; DELETE FROM day WHERE id = 2;",
    "SET sql_mode = 'ALLOW_INVALID_DATES'; ALTER TABLE day DROP COLUMN d;",
    "SET sql_mode = ''; UPDATE kind SET v = v + 1; DELETE FROM kind WHERE k = 'x';",
    "INSERT INTO word VALUES (1, 'x'); TRUNCATE word; INSERT INTO word VALUES (2, 'ü');",
    "DROP TRIGGER word_new; DROP FUNCTION accent; DROP VIEW named;",
    "SET NAMES latin1; CREATE OR REPLACE TRIGGER word_new BEFORE INSERT ON word FOR EACH ROW SET NEW.w = 'ü'; CREATE OR REPLACE FUNCTION accent() RETURNS varchar(9) RETURN 'ü'; ALTER VIEW named AS SELECT 'ü' AS `ö`;",
    "SET timestamp = 1000000000.5, div_precision_increment = 9, lc_time_names = 'de_DE'; ALTER TABLE par ADD made datetime(6) NOT NULL DEFAULT NOW(6), ADD part varchar(40) DEFAULT (1 / 3), ADD month varchar(20) DEFAULT (DATE_FORMAT('2020-03-01', '%M'));",
    "SET auto_increment_increment = 10, auto_increment_offset = 3; ALTER TABLE word DROP PRIMARY KEY; ALTER TABLE par DROP PRIMARY KEY, ADD n int AUTO_INCREMENT PRIMARY KEY;",
    "ALTER TABLE word ADD par int REFERENCES par (id), ADD more int; INSERT INTO word (id, par) VALUES (5, 1); ALTER TABLE word DROP FOREIGN KEY word_ibfk_1;",
    "ALTER TABLE word ADD par int REFERENCES par (id);",
    "RENAME TABLE IF EXISTS nothing TO par, word TO text, text NOWAIT TO letters; ALTER TABLE IF EXISTS nothing RENAME TO par; RENAME TABLE IF EXISTS nothing TO other; INSERT INTO letters VALUES (3, 'x');",
    "ALTER TABLE keyed ALTER INDEX by_n IGNORED, ALTER INDEX by_v NOT IGNORED; DELETE FROM keyed WHERE n = 1;",
    "ALTER TABLE keyed ALTER KEY by_n IGNORED, DROP KEY by_v, ADD KEY by_v (v, n);",
    "ALTER TABLE par CHECKSUM=1, PAGE_COMPRESSED=1 STATS_PERSISTENT=0, AVG_ROW_LENGTH=9, MAX_ROWS=99 MIN_ROWS=2; INSERT INTO par VALUES (7);",
    "CREATE OR REPLACE INDEX by_n ON keyed (n, v); CREATE OR REPLACE INDEX another ON keyed (n);",
    "INSERT INTO par VALUES (5); CREATE OR REPLACE TEMPORARY TABLE own (a int); INSERT INTO own SELECT id FROM par; CREATE OR REPLACE TEMPORARY TABLE own AS SELECT id + 100 AS id FROM par; INSERT INTO par SELECT id FROM own;",
    "CREATE OR REPLACE SEQUENCE s START WITH 500; INSERT INTO numbered (v) VALUES (2), (3);",
    "DROP SEQUENCE s; CREATE SEQUENCE t START WITH 70; RENAME TABLE t TO s; INSERT INTO numbered (v) VALUES (2);",
    "SET STATEMENT max_statement_time = 100, sort_buffer_size = 100000 FOR UPDATE par SET id = id + 10; SET STATEMENT lock_wait_timeout = 3 FOR ALTER TABLE word ADD c int DEFAULT 5; SET STATEMENT optimizer_switch = 'mrr=on' FOR DELETE FROM par WHERE id > 11;",
    "SET STATEMENT sql_mode = 'ALLOW_INVALID_DATES' FOR INSERT INTO day VALUES (3, '2002-02-31', '2002-02-31'); SET STATEMENT timestamp = 1000000000, time_zone = '+05:00' FOR UPDATE day SET t = NOW() WHERE id = 1; SET STATEMENT max_statement_time = 9 FOR TRUNCATE word; SET STATEMENT max_statement_time = 9 FOR DROP TABLE kind;",
    "SET STATEMENT max_statement_time = 9 FOR CREATE TABLE more AS SELECT * FROM par; SET STATEMENT max_statement_time = 9 FOR CREATE OR REPLACE VIEW named AS SELECT 1 AS a; SET STATEMENT max_statement_time = 9 FOR CREATE OR REPLACE FUNCTION accent() RETURNS int RETURN 1; SET STATEMENT max_statement_time = 9 FOR RENAME TABLE more TO most;",
    "ALTER TABLE keyed MODIFY w varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; INSERT INTO keyed VALUES ('a', 'A', 3), ('ł', 'x', 4); UPDATE keyed SET w = 'E' WHERE w = 'é';",
    "ALTER TABLE keyed CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; UPDATE keyed SET v = 'ł' WHERE n = 2;",
    "ALTER TABLE keyed CHANGE w `key` varchar(30) COLLATE latin1_bin, DROP COLUMN n;",
    "ALTER TABLE pair MODIFY a varchar(30) COLLATE utf8mb4_bin, MODIFY b bigint; INSERT INTO pair VALUES ('X', 70000000000);",
    "ALTER TABLE par ADD e text DEFAULT 'a''b\\\\', ADD f blob DEFAULT '''', ADD g json DEFAULT '{\"a\": \"it''s\"}', ADD h varchar(9) DEFAULT 'a''b\\\\'; UPDATE par SET e = 'x' WHERE id = 1;",
];

/// Foreign keys that write to a column from which a stored one is computed: without checks the server makes none of them in
/// place. And an option that it forgets with each ALTER that does not say it.
pub const LINKS: &str = "
    CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2);
    CREATE TABLE c (id int PRIMARY KEY, base int, g int AS (base * 2) STORED, CONSTRAINT fk FOREIGN KEY (base) REFERENCES p (id) ON DELETE CASCADE) ENGINE=InnoDB;
    CREATE TABLE d (id int PRIMARY KEY, base int, g int AS (base * 2) STORED, CONSTRAINT fd FOREIGN KEY (base) REFERENCES p (id) ON DELETE CASCADE) ENGINE=InnoDB;
    CREATE TABLE b (id int PRIMARY KEY, p int, CONSTRAINT fb FOREIGN KEY (p) REFERENCES p (id)) ENGINE=InnoDB;
    INSERT INTO c (id, base) VALUES (1, 1), (2, NULL); INSERT INTO d (id, base) VALUES (1, 2); INSERT INTO b VALUES (1, 1);";

pub const RELINKING: &[&str] = &[
    "ALTER TABLE c DROP FOREIGN KEY fk; ALTER TABLE d DROP FOREIGN KEY fd;",
    "ALTER TABLE c DROP FOREIGN KEY fk, ADD z int; ALTER TABLE d ADD z int;",
    "DROP TABLE c, d;",
    "ALTER TABLE p ADD v int;",
    "SET foreign_key_checks = 0; DROP TABLE p;",
    "RENAME TABLE p TO q;",
    "ALTER TABLE b PAGE_CHECKSUM=1; INSERT INTO b VALUES (2, 1);",
];

#[test]
fn what_is_strange_goes_there_and_back() {
    go_there_and_back(BASE, SCRIPTS);
    is_a_conflict(
        BASE,
        "ALTER TABLE par ADD e text DEFAULT 'a''b';",
        "UPDATE par SET e = 'c'",
        "another value in 2 rows",
    );
}

#[test]
fn foreign_keys_that_need_a_copy_come_back() {
    go_there_and_back(LINKS, RELINKING);
}

/// Keys that the new type has no room for, under a mode that says nothing of it; keys of others that the old one has none for.
#[test]
fn texts_that_are_keys_come_back_or_stay() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    for script in [
        "SET sql_mode = ''; INSERT INTO par VALUES (9); ALTER TABLE pair MODIFY a char(3) CHARACTER SET latin1;",
        "INSERT INTO par VALUES (9); ALTER TABLE keyed MODIFY w char(9) COLLATE latin1_bin, DROP n;",
    ] {
        is_refused(&site, &before, script, "1 key would be lost on the way");
        assert_eq!(mariadb_dump::own_objects(site.mariadb("main").unwrap()), ["backout_shop", "backout_shop$segment"]);
    }
    let retyped = "ALTER TABLE keyed MODIFY w varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;";
    is_a_conflict(BASE, retyped, "INSERT INTO keyed VALUES ('a', NULL, NULL)", "rows of others do not fit");
    is_a_conflict(BASE, retyped, "INSERT INTO keyed VALUES ('ł', NULL, NULL)", "does not fit");
    let more = "ALTER TABLE keyed MODIFY w varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, DROP n;";
    is_a_conflict(BASE, more, "UPDATE keyed SET w = 'theirs' WHERE w = 'A'", "1 of its rows");
}

/// What SET STATEMENT sets that decides what becomes of it, or of what the tool does around it.
#[test]
fn settings_for_one_statement_that_must_be_known_are_refused() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    for script in [
        "SET STATEMENT foreign_key_checks = 0 FOR DELETE FROM par;",
        "SET STATEMENT sql_mode = '' FOR ALTER TABLE par ADD d date NOT NULL;",
        "SET STATEMENT sql_log_bin = 0 FOR DELETE FROM par;",
        "SET STATEMENT max_statement_time = 1 FOR EXECUTE IMMEDIATE 'DELETE FROM par';",
    ] {
        is_refused(&site, &before, script, "these settings, which are for one statement alone");
    }
}

/// A mode under which `"par"` is a table, and not a string, that no word of the script names.
#[test]
fn a_mode_that_came_unsaid_is_refused() {
    let server: &'static Server = Box::leak(Box::new(Server::with(&["--sql-mode=ANSI_QUOTES"])));
    let base = "CREATE TABLE par (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO par VALUES (1), (2);";
    let site = TestSite::builder().mariadb("main", server, base).build();
    let before = Fingerprint::of(&site);
    is_refused(&site, &before, "DELETE FROM \"par\";", "under the mode ANSI_QUOTES");
    is_refused(&site, &before, "SET @a = 1; UPDATE par, \"par\" AS x SET par.id = 5;", "under the mode ANSI_QUOTES");
    let plain = "SET sql_mode = ''; DELETE FROM par WHERE id <> \"2\";";
    site.deploy(&Pkg::new("p").step(sql(plain))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    for by in ["4", "1 << 2", "(SELECT CONCAT('AN', 'SI_QUOTES'))"] {
        let script = format!("SET sql_mode = ''; SET sql_mode = {by}; DELETE FROM \"par\";");
        is_refused(&site, &before, &script, "under the mode ANSI_QUOTES");
    }
}

/// What an application stored under a mode in which `"t"` is a table is read in another way than it acts.
#[test]
fn bodies_that_were_stored_under_another_mode_are_not_trusted() {
    let base = r#"CREATE TABLE t (id int PRIMARY KEY, a int) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1), (2, 2);
        CREATE TABLE lg (id int AUTO_INCREMENT PRIMARY KEY, w varchar(9)) ENGINE=InnoDB; CREATE TABLE free (id int PRIMARY KEY) ENGINE=InnoDB;
        SET sql_mode = 'ANSI_QUOTES'; CREATE PROCEDURE pq() UPDATE "t" SET a = 77 WHERE id = 2;
        CREATE FUNCTION fq() RETURNS int RETURN (SELECT COUNT(*) FROM "t");
        CREATE TRIGGER tq AFTER INSERT ON lg FOR EACH ROW UPDATE "t" SET a = a + 1;
        SET sql_mode = 'NO_BACKSLASH_ESCAPES'; CREATE PROCEDURE pn() INSERT INTO free VALUES ('\'); SET sql_mode = 'STRICT_TRANS_TABLES';"#;
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("CALL pq();", "routine pq: it was stored under the mode ANSI_QUOTES"),
        ("SELECT fq();", "routine fq: it was stored under the mode ANSI_QUOTES"),
        ("INSERT INTO lg (w) VALUES ('x');", "trigger tq: it was stored under the mode ANSI_QUOTES"),
        ("CALL pn();", "routine pn: it was stored under the mode NO_BACKSLASH_ESCAPES"),
    ] {
        is_refused(&site, &before, script, why);
    }
    is_a_conflict(
        base,
        "INSERT INTO free VALUES (1); CREATE TABLE neu (a int PRIMARY KEY);",
        r#"SET sql_mode = 'ANSI_QUOTES'; CREATE PROCEDURE uses() SELECT * FROM "neu";"#,
        "the procedure uses",
    );
}

/// A trigger's text in the server's list of triggers is not as it was written.
#[test]
fn triggers_with_escapes_are_held_still() {
    let base = "CREATE TABLE n (id int PRIMARY KEY, a int, b varchar(99)) ENGINE=InnoDB; INSERT INTO n VALUES (1, 1, ''), (2, 2, '');";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let mut application = site.mariadb("main").unwrap().connect();
    for trigger in [
        r"CREATE TRIGGER one BEFORE UPDATE ON n FOR EACH ROW SET NEW.b = CONCAT(NEW.b, 'it\'s')",
        r"CREATE TRIGGER two BEFORE UPDATE ON n FOR EACH ROW /* c */ SET NEW.b = CONCAT(NEW.b, 'a\\b', _latin1'x', N'ü')",
    ] {
        application.query_drop(trigger).unwrap();
    }
    let before = Fingerprint::of(&site);
    for script in [
        "UPDATE n SET id = id + 10;",
        "DROP TRIGGER one; DROP TRIGGER two; ALTER TABLE n DROP COLUMN b; CREATE TRIGGER one BEFORE UPDATE ON n FOR EACH ROW SET NEW.a = 5;",
        "ALTER TABLE n RENAME COLUMN a TO c;",
    ] {
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let deployed = Fingerprint::of(&site);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), script);
        site.redo().expect(Status::Done);
        deployed.assert_same(&Fingerprint::of(&site), script);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), script);
    }
    for script in ["ALTER TABLE n DROP COLUMN b;", "UPDATE n SET a = 5; ALTER TABLE n RENAME COLUMN b TO c;"] {
        is_refused(&site, &before, script, "the trigger one names the column b");
    }
}

/// As with the client: a hidden statement is computed from neither a routine nor a table.
#[test]
fn a_hidden_statement_is_computed_as_the_client_has_it() {
    let base = "CREATE TABLE t (a int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1), (2);
        CREATE FUNCTION f() RETURNS varchar(99) DETERMINISTIC RETURN 'DELETE FROM t';";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    for script in [
        "EXECUTE IMMEDIATE f();",
        "EXECUTE IMMEDIATE (SELECT 'DELETE FROM t');",
        "PREPARE s FROM CONCAT(f(), ' WHERE a = 1'); EXECUTE s;",
        "PREPARE s FROM CONCAT('DELETE FROM t WHERE a <> ', (SELECT MAX(a) FROM t)); EXECUTE s;",
    ] {
        let done = site.deploy(&Pkg::new("p").step(sql(script)));
        assert_eq!(done.status(), Status::Failed, "{done:?}");
        assert!(format!("{done:?}").contains("does not support subqueries or stored functions"), "{done:?}");
        before.assert_same(&Fingerprint::of(&site), script);
    }
    go_there_and_back(
        base,
        &[
            "EXECUTE IMMEDIATE CONCAT('DELETE FROM t', ' WHERE a = 1; ');",
            "SET @a = 'DELETE FROM t WHERE a = ?;;'; PREPARE s FROM @a; EXECUTE s USING @b := 2;",
        ],
    );
}

#[test]
fn what_no_trigger_tells_of_is_refused() {
    let server = Server::shared();
    let base = "CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2);
        CREATE TABLE v (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE) WITH SYSTEM VERSIONING;
        CREATE TABLE q (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO q VALUES (1), (2);
        CREATE TABLE r (id int PRIMARY KEY, q int, FOREIGN KEY (q) REFERENCES q (id) ON UPDATE CASCADE) ENGINE=InnoDB; INSERT INTO r VALUES (1, 1);
        CREATE TABLE time (id int, s date, e date, PERIOD FOR p (s, e), PRIMARY KEY (id, e)) ENGINE=InnoDB;
        INSERT INTO time VALUES (1, '2000-01-01', '2001-01-01');
        CREATE PROCEDURE part() DELETE FROM time FOR PORTION OF p FROM '2000-02-01' TO '2000-03-01';";
    let site = TestSite::builder().mariadb("main", server, base).build();
    let other = server.database();
    let here = &site.mariadb("main").unwrap().name;
    other.script(&format!(
        "CREATE TABLE c (id int PRIMARY KEY, r int, FOREIGN KEY (r) REFERENCES `{here}`.r (id) ON DELETE CASCADE) ENGINE=InnoDB; INSERT INTO c VALUES (1, 1);
        CREATE TABLE d (id int PRIMARY KEY, q int, FOREIGN KEY (q) REFERENCES `{here}`.q (id) ON UPDATE SET NULL) ENGINE=InnoDB; INSERT INTO d VALUES (1, 2);"
    ));
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("DELETE FROM p WHERE id = 1", "v is a system versioned table"),
        ("DELETE FROM r WHERE id = 1", "of another database would follow by the foreign key"),
        ("UPDATE q SET id = id + 10", "of another database would follow by the foreign key"),
        ("DELETE FROM time FOR PORTION OF p FROM '2000-02-01' TO '2000-03-01'", "FOR PORTION OF"),
        ("CALL part()", "says PORTION"),
    ] {
        is_refused(&site, &before, &format!("{script};"), why);
    }
    site.deploy(&Pkg::new("p").step(sql("UPDATE r SET q = 2; INSERT INTO q VALUES (5);"))).expect(Status::Done);
    // What others of the other database point at cannot go.
    other.script("INSERT INTO d VALUES (2, 5)");
    let undone = site.undo_on(None, OnConflict::Overwrite);
    assert!(format!("{undone:?}").contains("q = 5 is not in q"), "{undone:?}");
    other.script("DELETE FROM d WHERE id = 2");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    other.script("DROP TABLE c, d");
}

/// A row whose parent in another database is gone since.
#[test]
fn a_parent_in_another_database_is_looked_up_there() {
    let server = Server::shared();
    let other = server.database();
    other.script("CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2)");
    let base = format!(
        "CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB;
        CREATE TABLE c (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES `{}`.p (id)) ENGINE=InnoDB; INSERT INTO c VALUES (1, 1), (2, 2);",
        other.name
    );
    let site = TestSite::builder().mariadb("main", server, &base).build();
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("p").step(sql("DELETE FROM c;"))).expect(Status::Done);
    other.script("DELETE FROM p WHERE id = 2");
    let undone = site.undo(None);
    assert!(format!("{undone:?}").contains("p = 2 is not in"), "{undone:?}");
    other.script("INSERT INTO p VALUES (2)");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.mariadb("main").unwrap().script("DROP TABLE c");
}

/// Duplicates of others have no place under a key that comes back: nothing is changed then, whatever was decided.
#[test]
fn rows_of_others_that_fit_no_more_leave_an_undo_that_overwrites_no_room() {
    let base = "CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE, CONSTRAINT c CHECK (id > 0)) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1);";
    for (script, others) in [
        ("ALTER TABLE t DROP INDEX a;", "INSERT INTO t VALUES (2, 1)"),
        ("ALTER TABLE t DROP CONSTRAINT c;", "INSERT INTO t VALUES (-2, 2)"),
    ] {
        is_a_conflict(base, script, others, "rows of others do not fit");
        let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
        site.deploy(
            &Pkg::new("p").step(sql(format!("INSERT INTO t VALUES (7, 7); {script} INSERT INTO t VALUES (8, 8);"))),
        )
        .expect(Status::Done);
        site.mariadb("main").unwrap().script(others);
        let state = Fingerprint::of(&site);
        let undone = site.undo_on(None, OnConflict::Overwrite);
        assert_eq!(undone.status(), Status::Refused, "{undone:?}");
        state.assert_same(&Fingerprint::of(&site), script);
    }
}
