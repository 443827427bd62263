//! A plain role that owns the tables and may not silence triggers for the whole session.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_sql::database::Database;
use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;
use crate::stage::told;

const SETUP: &str = "
    CREATE TABLE p (id int PRIMARY KEY, n int); CREATE TABLE c (id serial PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE s (id int PRIMARY KEY, up int REFERENCES s); CREATE TABLE log (at serial PRIMARY KEY, what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES (tg_op); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER off AFTER INSERT ON p FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE p DISABLE TRIGGER off;
    INSERT INTO p VALUES (1, 1), (2, 2), (3, 3); INSERT INTO c (p) VALUES (1), (2), (2); INSERT INTO s VALUES (1, NULL), (2, 1), (3, 2);";

/// A stage whose engine connects as a role that owns its database and nothing more.
fn stage(own_schema: bool) -> Stage<'static> {
    let server = Server::shared();
    let live = server.database();
    let role = format!("owner_{}", live.name);
    let mut admin = live.connect();
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}")).unwrap();
    if own_schema {
        admin.batch_execute(&format!("GRANT CREATE ON DATABASE {} TO {role}", live.name)).unwrap();
    }
    admin.batch_execute(&format!("SET ROLE {role}; {SETUP} RESET ROLE")).unwrap();
    let url = live.url_as(&role);
    Stage::over(live, &url)
}

#[test]
fn an_owner_undoes_what_an_owner_may_do() {
    for own_schema in [true, false] {
        let mut stage = stage(own_schema);
        for change in [
            "UPDATE p SET n = n + 1; INSERT INTO p VALUES (4, 4); INSERT INTO c (p) VALUES (4);",
            "DELETE FROM p WHERE id = 2;",
            "UPDATE p SET id = 20 WHERE id = 2;",
            "DELETE FROM c; DELETE FROM p;",
            "INSERT INTO s VALUES (4, 3), (5, 4); UPDATE s SET up = 1 WHERE id = 3; UPDATE s SET up = 5 WHERE id = 1;",
            "DELETE FROM s;",
            // Rows that point at one another, and a change of the schema that locks none of their tables.
            "INSERT INTO p VALUES (4, 4); INSERT INTO c (p) VALUES (4); CREATE VIEW v AS SELECT 1 AS x; UPDATE p SET n = 9 WHERE id = 1;",
        ] {
            stage.there_and_back(change);
        }
        let expected = if own_schema { "backout_shop.marker" } else { "public.backout_shop_marker" };
        assert_eq!(stage.database.own_objects().unwrap(), [expected]);
    }
}

#[test]
fn rows_that_point_at_one_another_stay_on_one_side_of_a_change_of_a_key() {
    let mut stage = stage(true);
    for change in [
        "INSERT INTO p VALUES (4, 4); INSERT INTO c (p) VALUES (4); ALTER TABLE c ALTER COLUMN p TYPE bigint;",
        "DELETE FROM c WHERE p = 2; DELETE FROM p WHERE id = 2; ALTER TABLE c ALTER COLUMN p TYPE bigint; CREATE VIEW v AS SELECT 1 AS x; INSERT INTO p VALUES (5, 5);",
    ] {
        stage.there_and_back(change);
    }
}

/// A label is taken out by building anew what uses the type, which only its owner may.
#[test]
fn a_label_for_what_another_role_uses_is_refused() {
    let mut stage = stage(true);
    stage.apply("CREATE TYPE mood AS ENUM ('a')");
    let added = stage.apply("ALTER TYPE mood ADD VALUE 'b'");
    stage.undo(&added);
    stage.others("CREATE TABLE theirs (m mood)");
    let error = stage.try_apply("ALTER TYPE mood ADD VALUE 'b'").map(drop).unwrap_err();
    assert!(told(&error).contains("theirs belongs to another role"), "{}", told(&error));
}

/// Nobody but its owner may have another role's foreign key look later.
#[test]
fn a_foreign_key_of_another_role_is_no_hindrance() {
    let mut stage = stage(true);
    stage.others(
        "CREATE SCHEMA hidden; CREATE TABLE hidden.f (p int REFERENCES p, n int); INSERT INTO hidden.f VALUES (1, 1);
         REVOKE ALL ON SCHEMA hidden FROM PUBLIC",
    );
    let before = stage.dump();
    let images =
        stage.apply("UPDATE p SET n = 7; DELETE FROM c; DELETE FROM p WHERE id = 2; INSERT INTO p VALUES (9, 9)");
    let applied = stage.dump();
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
    let again = stage.redo(&images);
    assert_eq!(stage.dump(), applied);
    // What theirs points at stays, and is told.
    stage.others("INSERT INTO hidden.f VALUES (9, 1)");
    let then = stage.dump();
    let refused = stage.try_undo(&again, OnConflict::Stop);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(stage.dump(), then);
}

#[test]
fn a_cascade_never_takes_what_others_wrote() {
    let mut stage = stage(true);
    let images = stage.apply("INSERT INTO p VALUES (5, 5);");
    stage.others("INSERT INTO c (p) VALUES (5)");
    let then = stage.dump();
    let conflicts = stage.conflicts(&images);
    assert_eq!((conflicts.total, conflicts.listed[0].kind), (1, ConflictKind::ForeignKey));
    assert_eq!(stage.dump(), then);
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(stage.ask("SELECT count(*) FROM c WHERE p = 5"), "1");
}

#[test]
fn emptied_tables_come_back_in_any_order_of_their_foreign_keys() {
    let mut stage = stage(false);
    let before = stage.dump();
    for change in [
        "TRUNCATE p, c RESTART IDENTITY;",
        "TRUNCATE c;",
        "TRUNCATE s;",
        "TRUNCATE p CASCADE; INSERT INTO p VALUES (9, 9);",
    ] {
        let images = stage.apply(change);
        stage.undo(&images);
        assert_eq!(stage.dump(), before, "undo of {change}");
    }
    stage.others("ALTER TABLE p ADD c int REFERENCES c; UPDATE p SET c = id");
    let before = stage.dump();
    let images = stage.apply("TRUNCATE p, c;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn an_emptied_table_does_not_come_back_to_point_at_nothing() {
    for mut stage in [stage(false), Stage::new(SETUP)] {
        let images = stage.apply("TRUNCATE c;");
        stage.others("DELETE FROM p WHERE id = 2");
        let then = stage.dump();
        let conflicts = stage.conflicts(&images);
        assert_eq!((conflicts.total, conflicts.listed[0].kind), (1, ConflictKind::ForeignKey), "{conflicts:?}");
        assert_eq!(stage.dump(), then);
    }
}

/// A row that goes and comes again for its unique value must not take along what points at it.
#[test]
fn unique_values_that_move_round_take_no_children_along() {
    let mut stage = stage(true);
    stage.others("ALTER TABLE p ADD UNIQUE (n)");
    let before = stage.dump();
    let images = stage.apply("UPDATE p SET n = n + 10; UPDATE p SET n = n - 11;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

/// A row whose column changes takes along what points at it; what points there already is as it is to be.
#[test]
fn a_column_that_moves_round_drags_nobody_along() {
    let mut stage = stage(true);
    stage.others(
        "ALTER TABLE p ADD UNIQUE (n); ALTER TABLE c ADD n int REFERENCES p (n) ON UPDATE CASCADE; UPDATE c SET n = p",
    );
    stage.others(&format!("ALTER TABLE c OWNER TO owner_{}", stage.live.name));
    let images = stage.apply("UPDATE p SET n = n + 100; UPDATE p SET n = 50 WHERE id = 3;");
    let then = stage.dump();
    stage.undo(&images);
    let before = stage.dump();
    assert_ne!(before, then);
    // Each takes the value of the one before: children that are back would go along with the next.
    let images = stage.apply("UPDATE p SET n = n + 100; UPDATE p SET n = n - 99;");
    let then = stage.dump();
    let conflicts = stage.conflicts(&images);
    assert!(conflicts.listed.iter().any(|one| one.now.contains("would follow")), "{conflicts:?}");
    assert_eq!(stage.dump(), then);
    stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT count(*) FROM c JOIN p USING (n)"), "3");
}

/// What cascades take along when a row is left as the step left it is told, row by row.
#[test]
fn what_follows_a_row_that_stays_is_told() {
    let mut stage = stage(true);
    stage.others(&format!(
        "ALTER TABLE p ADD UNIQUE (n); ALTER TABLE c ADD n int REFERENCES p (n) ON UPDATE CASCADE; UPDATE c SET n = 1;
         CREATE TABLE g (id int PRIMARY KEY, c int REFERENCES c ON DELETE CASCADE); INSERT INTO g VALUES (1, 1), (2, 2);
         CREATE TABLE d (id int PRIMARY KEY, n int REFERENCES p (n));
         ALTER TABLE g OWNER TO {role}; ALTER TABLE d OWNER TO {role}",
        role = format_args!("owner_{}", stage.live.name)
    ));
    let told_of = |conflicts: &[Conflict], object: &str| conflicts.iter().filter(|one| one.object == object).count();

    // The parent cannot come back, so neither can its children, nor theirs.
    let images = stage.apply("DELETE FROM p WHERE id = 2;");
    stage.others("INSERT INTO p VALUES (9, 2)");
    let kept = stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT count(*) FROM c WHERE p = 2"), "0");
    assert_eq!(stage.ask("SELECT string_agg(id::text, ' ') FROM g"), "1");
    let listed = &kept.conflicts.listed;
    assert_eq!((told_of(listed, "p"), told_of(listed, "c"), told_of(listed, "g")), (1, 2, 1), "{listed:?}");
    assert_eq!(kept.conflicts.total, 4);

    // The parent keeps its new value for the sake of one row; another that went back follows it once more.
    let images = stage.apply("UPDATE p SET n = 20 WHERE id = 1;");
    stage.others("INSERT INTO d VALUES (1, 20)");
    let kept = stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT n FROM p WHERE id = 1"), "20");
    assert_eq!(stage.ask("SELECT n FROM c WHERE id = 1"), "20");
    let listed = &kept.conflicts.listed;
    assert_eq!((told_of(listed, "d"), told_of(listed, "c")), (1, 1), "{listed:?}");
}

/// A key that was never validated is in force for what comes back.
#[test]
fn a_key_that_was_never_validated_ends_in_a_conflict() {
    let mut stage = stage(true);
    stage.others("ALTER TABLE c DROP CONSTRAINT c_p_fkey, ADD CONSTRAINT later FOREIGN KEY (p) REFERENCES p NOT VALID");
    let images = stage.apply("DELETE FROM c WHERE p = 2;");
    stage.others("DELETE FROM p WHERE id = 2");
    let conflicts = stage.conflicts(&images);
    assert_eq!((conflicts.total, conflicts.listed[0].kind), (2, ConflictKind::ForeignKey), "{conflicts:?}");
    stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT count(*) FROM c"), "1");
}

/// What the triggers of TRUNCATE wrote comes back as rows: they do not fire again, whoever runs it, and are as they were.
#[test]
fn a_redo_of_truncate_is_silent() {
    const TRIGGERS: &str = "CREATE TABLE k (a int REFERENCES p); CREATE TABLE bare (w text);
        CREATE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO bare VALUES (tg_when || tg_table_name); RETURN NULL; END $$;
        CREATE TRIGGER after AFTER TRUNCATE ON s FOR EACH STATEMENT EXECUTE FUNCTION emptied();
        CREATE TRIGGER before BEFORE TRUNCATE ON s FOR EACH STATEMENT EXECUTE FUNCTION emptied();
        CREATE TRIGGER along AFTER TRUNCATE ON k FOR EACH STATEMENT EXECUTE FUNCTION emptied(); ALTER TABLE k ENABLE ALWAYS TRIGGER along;";
    for as_owner in [true, false] {
        for change in ["TRUNCATE s;", "TRUNCATE p CASCADE;"] {
            let mut stage = if as_owner { stage(true) } else { Stage::new(SETUP) };
            let role = if as_owner { format!("SET ROLE owner_{};", stage.live.name) } else { String::new() };
            stage.others(&format!("{role} {TRIGGERS}"));
            let before = stage.dump();
            let images = stage.apply(change);
            let applied = stage.dump();
            stage.undo(&images);
            assert_eq!(stage.dump(), before, "undo of {change}, owner {as_owner}");
            let again = stage.redo(&images);
            assert_eq!(stage.dump(), applied, "redo of {change}, owner {as_owner}");
            stage.undo(&again);
            assert_eq!(stage.dump(), before, "undo after redo of {change}, owner {as_owner}");
        }
    }
}
