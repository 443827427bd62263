//! Indexes of one form in a partition: undo knows which of them is a part of the whole's index.

use backout_model::target::TargetError;

use crate::postgres::rows::there_and_back;
use crate::postgres::stage::Stage;

const SETUP: &str = "CREATE TABLE whole (at int NOT NULL, w int) PARTITION BY RANGE (at);
    CREATE TABLE part (at int NOT NULL, w int); CREATE INDEX one ON part (w); CREATE INDEX two ON part (w); CREATE INDEX three ON part (w) WITH (fillfactor = 70);
    ALTER TABLE whole ATTACH PARTITION part FOR VALUES FROM (0) TO (10); INSERT INTO whole VALUES (1, 2);
    CREATE INDEX whole_w ON ONLY whole (w);";

const TOO: &str = "CREATE INDEX whole_too ON ONLY whole (w);";

const PARTS: &str = "SELECT coalesce(string_agg(concat_ws(' ', inhparent::regclass, inhrelid::regclass, inhrelid), ', ' ORDER BY 1, inhrelid), '')
    FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid";

#[test]
fn the_same_index_is_a_part_again() {
    for parts in [
        "ALTER INDEX whole_w ATTACH PARTITION two;",
        "ALTER INDEX whole_w ATTACH PARTITION three;",
        "ALTER INDEX whole_w ATTACH PARTITION one;",
    ] {
        for change in ["ALTER TABLE whole DETACH PARTITION part;", "DROP TABLE part;"] {
            let mut stage = Stage::new(&format!("{SETUP}{parts}"));
            let (before, dump) = (stage.ask(PARTS), stage.pg_dump());
            let images = stage.apply(change);
            stage.undo(&images);
            assert_eq!(stage.ask(PARTS), before, "{parts} {change}");
            assert_eq!(stage.pg_dump(), dump, "{parts} {change}");
        }
    }
}

#[test]
fn each_of_two_is_a_part_of_its_own_whole_again() {
    let mut stage = Stage::new(&format!(
        "{SETUP}{TOO} ALTER INDEX whole_w ATTACH PARTITION three; ALTER INDEX whole_too ATTACH PARTITION one;"
    ));
    let before = stage.pg_dump();
    let images = stage.apply("ALTER TABLE whole DETACH PARTITION part; INSERT INTO part VALUES (3, 4);");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
}

#[test]
fn a_key_of_the_whole_goes_back_to_the_keys_of_its_parts() {
    for key in [
        "ALTER TABLE part ADD CONSTRAINT own UNIQUE (at); ALTER TABLE whole ADD CONSTRAINT key UNIQUE (at);",
        "ALTER TABLE part ADD CONSTRAINT a UNIQUE (at); ALTER TABLE part ADD CONSTRAINT b UNIQUE (at); ALTER TABLE whole ADD CONSTRAINT key UNIQUE (at);",
        "ALTER TABLE whole ADD CONSTRAINT key PRIMARY KEY (at);",
    ] {
        let key = format!("ALTER INDEX whole_w ATTACH PARTITION two; {key}");
        there_and_back(
            &format!("{SETUP}{key}"),
            "ALTER TABLE whole DROP CONSTRAINT key; INSERT INTO whole VALUES (2, 1);",
        );
        there_and_back(
            &format!("{SETUP}{key}"),
            "ALTER TABLE whole DETACH PARTITION part; INSERT INTO part VALUES (5, 1);",
        );
    }
}

#[test]
fn what_a_foreign_key_counts_on_is_not_made_anew() {
    let mut stage = Stage::new(
        "CREATE TABLE whole (a int NOT NULL) PARTITION BY LIST (a); CREATE TABLE part (a int NOT NULL); CREATE UNIQUE INDEX own ON part (a);
         CREATE UNIQUE INDEX attached ON part (a); ALTER TABLE whole ATTACH PARTITION part FOR VALUES IN (1);
         CREATE UNIQUE INDEX key ON ONLY whole (a); ALTER INDEX key ATTACH PARTITION attached; CREATE TABLE c (a int REFERENCES part (a));",
    );
    let Err(TargetError::Refused(refusal)) = stage.try_apply("ALTER TABLE whole DETACH PARTITION part;") else {
        panic!("it is not refused");
    };
    assert!(refusal.why.contains("its index public.own is of the form"), "{refusal}");
}

#[test]
fn an_index_of_the_whole_without_a_part_would_get_one() {
    let mut stage = Stage::new(SETUP);
    let Err(TargetError::Refused(refusal)) = stage.try_apply("ALTER TABLE whole DETACH PARTITION part;") else {
        panic!("it is not refused");
    };
    assert!(refusal.why.contains("no index of it is a part of public.whole_w"), "{refusal}");
}

/// As pg_dump writes them: each index by itself, then attached.
#[test]
fn indexes_that_a_step_makes_and_attaches_go_with_the_whole() {
    let rows = "INSERT INTO whole VALUES (3, 4); UPDATE whole SET w = w + 1;";
    for script in [
        "CREATE INDEX i ON ONLY whole (w); CREATE INDEX j ON part (w); ALTER INDEX i ATTACH PARTITION j;",
        "CREATE INDEX j ON part (w); CREATE INDEX i ON ONLY whole (w); ALTER INDEX i ATTACH PARTITION j;",
        "ALTER TABLE ONLY whole ADD CONSTRAINT k PRIMARY KEY (at); ALTER TABLE ONLY part ADD CONSTRAINT l PRIMARY KEY (at);
         ALTER INDEX k ATTACH PARTITION l;",
        "CREATE INDEX h ON ONLY whole (w); COMMENT ON INDEX h IS 'x'; ALTER INDEX h RENAME TO i; CREATE INDEX j ON part (w); COMMENT ON INDEX j IS 'y';
         ALTER INDEX j RENAME TO k; ALTER INDEX i ATTACH PARTITION k; COMMENT ON INDEX i IS 'z';",
        "CREATE TABLE top (at int NOT NULL, w int) PARTITION BY RANGE (at); CREATE TABLE mid PARTITION OF top FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (at);
         CREATE TABLE leaf PARTITION OF mid FOR VALUES FROM (0) TO (5); CREATE INDEX a ON ONLY top (w); CREATE INDEX b ON ONLY mid (w); CREATE INDEX c ON leaf (w);
         ALTER INDEX a ATTACH PARTITION b; ALTER INDEX b ATTACH PARTITION c;",
        "CREATE TABLE whole2 (at int NOT NULL, w int) PARTITION BY RANGE (at); CREATE TABLE part2 (at int NOT NULL, w int);
         ALTER TABLE ONLY whole2 ATTACH PARTITION part2 FOR VALUES FROM (0) TO (10); INSERT INTO part2 VALUES (1, 1);
         ALTER TABLE ONLY whole2 ADD CONSTRAINT k2 PRIMARY KEY (at); ALTER TABLE ONLY part2 ADD CONSTRAINT l2 PRIMARY KEY (at);
         CREATE INDEX i2 ON ONLY whole2 (w); CREATE INDEX j2 ON part2 (w); ALTER INDEX k2 ATTACH PARTITION l2; ALTER INDEX i2 ATTACH PARTITION j2;",
        "CREATE TABLE whole2 (at int NOT NULL, w int) PARTITION BY RANGE (at); CREATE TABLE part2 (at int NOT NULL, w int);
         CREATE INDEX i2 ON ONLY whole2 (w); CREATE INDEX j2 ON part2 (w); ALTER TABLE ONLY whole2 ADD CONSTRAINT k2 PRIMARY KEY (at);
         ALTER TABLE part2 ADD CONSTRAINT l2 PRIMARY KEY (at); ALTER TABLE whole2 ATTACH PARTITION part2 FOR VALUES FROM (0) TO (10); INSERT INTO whole2 VALUES (1, 1);",
        "CREATE TABLE whole2 (at int NOT NULL, w int) PARTITION BY RANGE (at); CREATE TABLE part2 (at int NOT NULL, w int);
         CREATE INDEX i2 ON ONLY whole2 (w); CREATE INDEX j2 ON part2 (w); ALTER TABLE whole2 ATTACH PARTITION part2 FOR VALUES FROM (0) TO (10);",
    ] {
        let mut stage = Stage::new(SETUP);
        let before = (stage.ask(PARTS), stage.pg_dump());
        let images = stage.apply(&format!("{script} {rows}"));
        let after = stage.pg_dump();
        stage.undo(&images);
        assert_eq!((stage.ask(PARTS), stage.pg_dump()), before, "{script}");
        let again = stage.redo(&images);
        assert_eq!(stage.pg_dump(), after, "{script}");
        stage.undo(&again);
        assert_eq!((stage.ask(PARTS), stage.pg_dump()), before, "{script}");
    }
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    match stage.try_apply("\nALTER INDEX whole_w ATTACH PARTITION two") {
        Err(TargetError::Refused(refusal)) => {
            assert!(refusal.why.contains("does not come back"), "{}", refusal.why);
            assert_eq!(refusal.what, "ALTER INDEX whole_w ATTACH PARTITION two");
            assert!(refusal.place.ends_with(":2"), "{}", refusal.place);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.pg_dump(), before);
}
