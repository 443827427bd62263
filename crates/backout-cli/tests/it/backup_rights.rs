//! Backups by accounts that may not do everything: what a restore will be refused for is said beforehand, and nothing is
//! emptied that cannot be filled again.

use backout_testkit::{mariadb, postgres};

use crate::scene::Scene;

pub const BACKUP: &str = "backup: {password-file: password}\n";

/// A site whose database `main` is reached by an account that has rights on nothing else.
pub fn on_mariadb(database: &mariadb::Database<'_>, script: &str) -> Scene {
    database.script(&format!("{script}CREATE USER {0}@localhost; GRANT ALL ON {0}.* TO {0}@localhost;", database.name));
    on(&database.url_as(&database.name))
}

pub fn on_postgres(database: &postgres::Database<'_>, script: &str) -> Scene {
    database.psql(&format!(
        "CREATE ROLE {0} LOGIN; GRANT CREATE ON DATABASE {0} TO {0}; GRANT CREATE ON SCHEMA public TO {0}; SET ROLE {0};
         CREATE TABLE t (a int PRIMARY KEY); RESET ROLE; {script}",
        database.name
    ));
    on(&database.url_as(&database.name))
}

fn on(url: &str) -> Scene {
    let scene = Scene::new();
    scene.write("site.yaml", format!("site: shop\ndatabases:\n  main: {{url: \"{url}\"}}\n{BACKUP}"));
    scene.write("password", "x");
    scene.package("more", "steps:\n  - sql: more.sql\n");
    scene.write("more/more.sql", "INSERT INTO t VALUES (100)");
    scene
}

/// Each kind of thing with a definer who is not the site's account.
const DEFINED: &str = "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1);
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a + 0;
    CREATE EVENT ev ON SCHEDULE EVERY 1 YEAR DO SELECT 1;
    CREATE VIEW vw AS SELECT a FROM t;";

#[test]
fn a_restore_of_what_others_defined_is_refused_before_mariadb_is_emptied() {
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, DEFINED);
    scene.write("more/more.sql", "CREATE TABLE other (a INT PRIMARY KEY)");
    scene.run(&["backup"]).exits(0).says("a restore would be refused").says("event ev, view vw, trigger tr");
    scene.run(&["doctor"]).exits(0).answers("note   database main: a restore would be refused");
    let ran = scene.run(&["restore", "--database", "main", "--yes"]).exits(4).closes("Nothing was changed.");
    ran.says("in the name of root@localhost, which").says("GRANT SET USER");
    let there = "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
        UNION ALL SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() UNION ALL SELECT a FROM vw";
    assert_eq!(database.script(there), "1\n1\n1\n");
    // Nothing stands in the way of anything else, and with the right it is done.
    scene.run(&["deploy", "more"]).exits(0);
    scene.run(&["verify", "--backup"]).exits(3).answers("a restore would be refused");
    database.script(&format!("GRANT SET USER ON *.* TO {}@localhost", database.name));
    scene.run(&["doctor"]).exits(0);
    scene.run(&["restore", "--yes"]).exits(0);
    assert_eq!(database.script(there), "1\n1\n1\n");
    database.script(&format!("DROP USER {}@localhost", database.name));
}

#[test]
fn a_restore_of_what_belongs_to_others_is_refused_on_postgres() {
    let database = postgres::Server::shared().database();
    let scene = on_postgres(&database, "CREATE TABLE others (a int); GRANT SELECT ON others TO PUBLIC;");
    scene.run(&["backup"]).exits(0).says("a restore would be refused").says("table others belongs to");
    scene.run(&["doctor"]).exits(0).answers("note   database main: a restore would be refused");
    let ran = scene.run(&["restore", "--yes"]).exits(4).closes("Nothing was changed.");
    ran.says("it may not drop others, which belongs to").says("may not bring back what the backup holds");
    scene.run(&["status"]).exits(0);
    scene.run(&["deploy", "more"]).exits(0);
    // Of a schema likewise, also where it came after the backup.
    database.psql("DROP TABLE others");
    scene.run(&["backup"]).exits(0);
    database.psql("CREATE SCHEMA other");
    scene.run(&["restore", "--yes"]).exits(4).says("it may not drop schema other, which belongs to");
    database.psql("DROP SCHEMA other");
    scene.run(&["restore", "--yes"]).exits(0);
    // The schema that every database has stays, and with it whose it is: so databases of before PostgreSQL 15 have it.
    database.psql("ALTER SCHEMA public OWNER TO postgres");
    scene.run(&["backup"]).exits(0);
    assert!(!scene.run(&["doctor"]).exits(0).stdout.contains("would be refused"));
    scene.run(&["restore", "--yes"]).exits(0);
}

/// What nobody saw beforehand: the server took all of it back, and so nothing is in between.
#[test]
fn a_restore_that_postgres_took_back_blocks_nothing() {
    let database = postgres::Server::shared().database();
    let scene = on_postgres(&database, "");
    scene.run(&["backup"]).exits(0);
    database.psql("CREATE TYPE public.colour AS ENUM ('red')");
    scene.run(&["restore", "--yes"]).exits(4).says("must be owner").closes("Nothing was changed.");
    let status = scene.run(&["status"]).exits(0);
    assert!(!status.stdout.contains("interrupted"), "{status}");
    scene.run(&["deploy", "more", "--no-backup"]).exits(0);
    scene.run(&["verify"]).exits(0);
    database.psql("DROP TYPE public.colour");
    scene.run(&["restore", "--yes"]).exits(0);
    assert_eq!(database.psql("SELECT count(*) FROM t").trim(), "0");
}

#[test]
fn a_restore_that_lacks_a_right_on_the_database_empties_nothing() {
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1);");
    database.script(&format!("REVOKE LOCK TABLES ON {0}.* FROM {0}@localhost", database.name));
    scene.run(&["backup"]).exits(0).says("lacks LOCK TABLES on its database");
    scene.run(&["restore", "--yes"]).exits(4).says("lacks LOCK TABLES on its database").closes("Nothing was changed.");
    assert_eq!(database.script("SELECT a FROM t"), "1\n");
    scene.run(&["status"]).exits(0);
    database.script(&format!("GRANT LOCK TABLES ON {0}.* TO {0}@localhost", database.name));
    scene.run(&["restore", "--yes"]).exits(0);
}

/// Where a restore is half done, the last line names what goes on.
#[test]
fn a_restore_that_failed_half_way_says_what_goes_on() {
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, "CREATE TABLE t (a INT PRIMARY KEY);");
    scene.run(&["backup"]).exits(0);
    // A client that empties the database and then does not load a dump.
    scene.write("bin/mariadb", "#!/bin/sh\ncase \"$(readlink /proc/self/fd/0)\" in *1-tables.sql) exit 1;; esac\nexec /usr/bin/mariadb \"$@\"\n");
    let words = ["restore", "--yes"];
    let path = format!("{}:/usr/bin:/bin", scene.path("bin").display());
    crate::record::sh(&scene.path(""), "chmod 755 bin/mariadb");
    let ran = crate::scene::Ran::of(&words, scene.command(&words).env("PATH", path).output().unwrap());
    let last = ran.exits(3).stderr.trim_end().lines().last().unwrap().to_owned();
    let again = last.split('`').nth(1).unwrap().strip_prefix("backout ").unwrap().to_owned();
    assert!(again.starts_with("restore "), "{last}");
    scene.run(&["resume"]).exits(4).says("was interrupted");
    let words: Vec<&str> = again.split(' ').chain(["--yes"]).collect();
    scene.run(&words).exits(0);
    scene.run(&["deploy", "more"]).exits(0);
}

#[test]
fn a_backup_that_cannot_be_tried_is_not_called_a_bad_one() {
    let maria = mariadb::Server::shared().database();
    let pg = postgres::Server::shared().database();
    for scene in [on_mariadb(&maria, "CREATE TABLE t (a INT PRIMARY KEY);"), on_postgres(&pg, "")] {
        scene.run(&["backup"]).exits(0);
        let ran = scene.run(&["verify", "--backup"]).exits(5).answers("database main: could not be checked");
        ran.closes("Nothing was changed; what could not be checked is listed above, with the reason.");
    }
}

#[test]
fn doctor_tries_what_a_dump_needs() {
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, "CREATE TABLE t (a INT PRIMARY KEY); CREATE PROCEDURE p() SELECT 1;");
    scene.run(&["backup"]).exits(4);
    scene
        .run(&["doctor"])
        .exits(4)
        .answers("GRAVE  database main: no backup can be taken")
        .answers("SHOW CREATE PROCEDURE");
    let database = postgres::Server::shared().database();
    let scene = on_postgres(&database, "CREATE TABLE hidden (a int);");
    scene.run(&["backup"]).exits(4);
    scene.run(&["doctor"]).exits(4).answers("GRAVE  database main: no backup can be taken").answers("hidden");
}
