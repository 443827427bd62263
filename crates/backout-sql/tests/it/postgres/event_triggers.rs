//! Event triggers of the application: what they write at the script's changes of the schema goes back, and the tool's own
//! changes never set them off.

use backout_model::target::TargetError;

use crate::postgres::rows::there_and_back;
use crate::postgres::stage::Stage;

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a text, b text); INSERT INTO t VALUES (1, 'x', 'y'); CREATE VIEW v AS SELECT 1 AS a;
    CREATE TABLE log (id uuid DEFAULT gen_random_uuid(), tag text, object text);
    CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log (tag) VALUES (tg_tag); END $$;
    CREATE FUNCTION note_dropped() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN
        FOR r IN SELECT * FROM pg_event_trigger_dropped_objects() LOOP INSERT INTO public.log (tag, object) VALUES (tg_tag, r.object_identity); END LOOP; END $$;";

const LAST: &str = "CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION note();
    CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION note_dropped();";

#[test]
fn what_they_wrote_goes_back_and_nothing_new_comes() {
    let setup = format!("{SETUP}{LAST}");
    for change in [
        "ALTER TABLE t ADD q int; CREATE TABLE n (a int); COMMENT ON TABLE t IS 'x';",
        "ALTER TABLE t DROP COLUMN a;",
        "ALTER TABLE t ALTER a TYPE varchar(9);",
        "DROP VIEW v;",
        "DO $$ BEGIN CREATE TABLE n (a int); UPDATE t SET a = 'z'; END $$;",
    ] {
        there_and_back(&setup, change);
    }
}

#[test]
fn one_that_forbids_does_not_forbid_the_undo() {
    let forbids = "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', tg_tag; END $$;
        CREATE EVENT TRIGGER no ON sql_drop EXECUTE FUNCTION no();";
    there_and_back(
        &format!("{SETUP}{forbids}"),
        "CREATE TABLE n (a int); INSERT INTO t VALUES (2); ALTER TABLE t ADD c int;",
    );
}

#[test]
fn what_could_not_be_kept_apart_is_refused() {
    let moved = format!("{SETUP}{LAST}");
    // Of the versions before 17, whose servers know no switch for them.
    let always = format!("{SETUP}{LAST} ALTER EVENT TRIGGER ends ENABLE ALWAYS;");
    let old = Stage::new("").ask("SELECT current_setting('server_version_num')::int < 170000") == "t";
    let cases = [(&moved, "DROP TABLE t;", true), (&always, "ALTER TABLE t ADD c int;", old)];
    for (setup, change, is_refused) in cases {
        let mut stage = Stage::new(setup);
        let before = stage.dump();
        match stage.try_apply(change) {
            Err(TargetError::Refused(refusal)) if is_refused => {
                assert!(refusal.why.contains("event trigger (drops, ends) writes rows"), "{refusal}");
                assert_eq!(stage.dump(), before);
            }
            Ok((images, _)) if !is_refused => {
                stage.undo(&images);
                assert_eq!(stage.dump(), before);
            }
            other => panic!("{change}: {other:?}"),
        }
    }
}
