//! Notifications that a step sends through something else: told, since nothing calls them back.

use backout_sql::database::{Database, ScriptUndo};

use crate::postgres::stage::Stage;

const SETUP: &str = r#"
    CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1); CREATE TABLE calm (a int PRIMARY KEY);
    CREATE TABLE ruled (a int PRIMARY KEY); CREATE RULE "says so" AS ON INSERT TO ruled DO ALSO NOTIFY news;
    CREATE FUNCTION tell(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('news', what); END $$;
    CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM tell('x'); RETURN NULL; END $$;
    CREATE TRIGGER news AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION told();
    CREATE FUNCTION reload() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY pgrst, 'reload schema'; END $$;"#;

/// What `plan` says of a script.
fn planned(stage: &mut Stage<'_>, script: &str) -> String {
    let script = stage.script(script, ScriptUndo::Captured);
    let mut all = Vec::new();
    let mut planner = stage.database.planner().unwrap();
    planner.script(&script, true, &mut |change| all.push(format!("{:?}", change.verdict))).unwrap();
    all.join("\n").replace("\\\"", "\"")
}

#[test]
fn what_may_have_been_notified_is_told() {
    let mut stage = Stage::new(SETUP);
    let notes = |stage: &mut Stage<'_>, script: &str| {
        let (images, report) = stage.try_apply(script).unwrap();
        stage.undo(&images);
        report.notes
    };
    for (script, expected) in [
        ("INSERT INTO calm VALUES (1); CREATE TABLE made (a int);", None),
        ("UPDATE t SET n = 2;", Some("the trigger news of t")),
        ("INSERT INTO ruled VALUES (1);", Some("the rule \"says so\" of ruled")),
        ("INSERT INTO calm SELECT 1 FROM tell('y');", Some("the function tell")),
        (
            "INSERT INTO calm VALUES (2); DO $$ BEGIN PERFORM pg_notify('news', 'z'); END $$;",
            Some("a block of the script"),
        ),
        ("INSERT INTO calm VALUES (3); DO $$ BEGIN PERFORM tell('z'); END $$;", Some("the function tell")),
    ] {
        let found = notes(&mut stage, script);
        let planned = planned(&mut stage, script);
        match expected {
            Some("a block of the script") => {}
            Some(expected) => {
                assert!(planned.contains(&format!("{expected} may send notifications")), "{script}: {planned}");
            }
            None => assert!(!planned.contains("notifications"), "{script}: {planned}"),
        }
        match expected {
            None => assert!(found.is_empty(), "{script}: {found:?}"),
            Some(expected) => assert!(
                found.len() == 1 && found[0].contains(&format!("{expected} may have sent notifications")),
                "{script}: {found:?}"
            ),
        }
    }
    stage.others("CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION reload()");
    let found = notes(&mut stage, "CREATE TABLE made (a int);");
    assert!(found.len() == 1 && found[0].contains("the event trigger watch may have sent"), "{found:?}");
    assert!(notes(&mut stage, "INSERT INTO calm VALUES (4);").is_empty());
}
