//! A role may change what it could not take back: that is refused while the step can still be taken back as a whole.

use backout_model::target::TargetError;
use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;
use crate::stage::told;

const SETUP: &str = "
    CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain VALUES (1, 'a'), (2, 'b');
    CREATE TABLE acts (id int PRIMARY KEY, v text, n int DEFAULT 0); INSERT INTO acts (id, v) VALUES (1, 'a'), (2, 'b');
    CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.n := 7; RETURN new; END $$;
    CREATE TRIGGER act BEFORE UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION act();
    CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (10);";

/// A stage whose engine connects as a role that was granted something on what others own. `$role` stands for its name.
fn stage(setup: &str) -> Stage<'static> {
    let live = Server::shared().database();
    let role = format!("app_{}", live.name);
    let mut admin = live.connect();
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}", live.name))
        .unwrap();
    admin.batch_execute(SETUP).unwrap();
    admin.batch_execute(&setup.replace("$role", &role)).unwrap();
    let url = live.url_as(&role);
    Stage::over(live, &url)
}

#[track_caller]
fn refused(setup: &str, change: &str, why: &str) {
    let mut stage = stage(setup);
    let before = stage.dump();
    match stage.try_apply(change) {
        Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains(why), "{change}: {refusal}"),
        other => panic!("{change}: {:?}", other.map(drop).map_err(|error| told(&error))),
    }
    assert_eq!(stage.dump(), before, "{change}");
}

#[test]
fn what_the_role_could_not_take_back_is_refused() {
    for (grant, change, why) in [
        ("SELECT, DELETE ON plain", "DELETE FROM plain WHERE id = 1;", "public.plain: the role may not INSERT"),
        ("SELECT, INSERT ON plain", "INSERT INTO plain VALUES (3, 'c');", "public.plain: the role may not DELETE"),
        ("SELECT, UPDATE ON acts", "UPDATE acts SET v = 'z';", "acts: its triggers and rules could not be silenced"),
        // Rights on the whole are none on its parts, and rows go back part by part.
        ("SELECT, INSERT, DELETE ON whole, part", "INSERT INTO whole VALUES (1);", ""),
        (
            "SELECT, TRIGGER ON plain",
            "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
             CREATE TRIGGER mine BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION mine();",
            "public.plain belongs to postgres",
        ),
    ] {
        let setup = format!("GRANT {grant} TO $role; GRANT CREATE ON SCHEMA public TO $role");
        if why.is_empty() {
            stage(&setup).there_and_back(change);
        } else {
            refused(&setup, change, why);
        }
    }
}

#[test]
fn a_role_that_was_only_become_is_not_had_at_the_undo() {
    let becoming = |inherits: &str| {
        format!(
            "CREATE ROLE group_$role; ALTER ROLE $role {inherits}; GRANT group_$role TO $role; GRANT CREATE ON SCHEMA public TO group_$role;
             CREATE FUNCTION becomes() RETURNS text LANGUAGE sql AS $$ SELECT 'group_$role' $$"
        )
    };
    for change in ["CREATE TABLE made (a int);", "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1';"] {
        let change = format!("SELECT set_config('role', public.becomes(), true); {change}");
        refused(&becoming("NOINHERIT"), &change, "by SET ROLE alone");
        stage(&becoming("INHERIT")).schema_there_and_back(&change);
    }
}

#[test]
fn a_foreign_key_to_hidden_rows_could_not_be_looked_at() {
    let hidden = "ALTER TABLE plain ENABLE ROW LEVEL SECURITY; CREATE POLICY first ON plain USING (id = 1);
        GRANT SELECT ON plain TO $role; CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES plain); INSERT INTO child VALUES (1, 1);
        ALTER TABLE child OWNER TO $role";
    for change in ["DELETE FROM child;", "INSERT INTO child VALUES (2, 1);", "UPDATE child SET p = NULL;"] {
        refused(hidden, change, "public.child: a foreign key could not be looked at");
    }
    let shown =
        hidden.replace("GRANT SELECT ON plain TO $role", "ALTER ROLE $role BYPASSRLS; GRANT SELECT ON plain TO $role");
    stage(&shown).there_and_back("DELETE FROM child;");
}

#[test]
fn nothing_is_deployed_to_what_is_set_to_read_only() {
    let server = Server::shared();
    let live = server.database();
    let mut admin = live.connect();
    admin.batch_execute("CREATE TABLE t (a int)").unwrap();
    admin.batch_execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", live.name)).unwrap();
    let url = live.url();
    let mut stage = Stage::over(live, &url);
    let error = stage.try_apply("INSERT INTO t VALUES (1);").map(drop).unwrap_err();
    assert!(told(&error).contains("set to read only"), "{}", told(&error));
    assert_eq!(stage.ask("SELECT count(*) FROM t"), "0");
}
