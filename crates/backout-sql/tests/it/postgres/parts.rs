//! Partitions that come and go where foreign keys point at their whole, or from it.

use backout_model::conflict::OnConflict;

use crate::postgres::stage::Stage;

const POINTED_AT: &str = "CREATE TABLE o (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE o1 PARTITION OF o FOR VALUES FROM (0) TO (10);
    CREATE TABLE i (oid int, at int, FOREIGN KEY (oid, at) REFERENCES o); INSERT INTO o VALUES (1, 1); INSERT INTO i VALUES (1, 1);";
const MORE: &str = "CREATE TABLE o2 PARTITION OF o FOR VALUES FROM (10) TO (20);";

#[test]
fn a_new_partition_of_what_others_point_at_goes_and_their_key_stays() {
    for change in [
        MORE.to_owned(),
        format!("{MORE} INSERT INTO o VALUES (2, 11); INSERT INTO i VALUES (2, 11);"),
        "CREATE TABLE o2 PARTITION OF o FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (at);
         CREATE TABLE o21 PARTITION OF o2 FOR VALUES FROM (10) TO (15);"
            .to_owned(),
        format!("DO $do$ BEGIN EXECUTE $${MORE}$$; END $do$;"),
    ] {
        let mut stage = Stage::new(POINTED_AT);
        let before = stage.pg_dump();
        stage.schema_there_and_back(&change);
        let images = stage.apply(&change);
        let report = stage.try_undo(&images, OnConflict::Overwrite).unwrap();
        assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
        assert_eq!(stage.pg_dump(), before, "{change}");
    }
}

#[test]
fn a_row_of_others_that_points_into_the_new_partition_keeps_it() {
    let mut stage = Stage::new(POINTED_AT);
    let images = stage.apply(MORE);
    stage.others("INSERT INTO o VALUES (3, 12); INSERT INTO i VALUES (3, 12)");
    let before = stage.pg_dump();
    assert!(!stage.conflicts(&images).is_empty());
    assert!(stage.try_undo(&images, OnConflict::Overwrite).is_err());
    assert_eq!(stage.pg_dump(), before);
}

const POINTING: &str = "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2);
    CREATE TABLE o (id int, at int, aid int REFERENCES a, PRIMARY KEY (id, at)) PARTITION BY LIST (at);
    CREATE TABLE o1 PARTITION OF o FOR VALUES IN (1); CREATE TABLE o2 PARTITION OF o FOR VALUES IN (2);
    INSERT INTO o VALUES (1, 1, 1), (2, 2, 2);";

#[test]
fn a_partition_that_points_elsewhere_comes_back() {
    let incoming = format!("{POINTING} CREATE TABLE i (x int, y int, FOREIGN KEY (x, y) REFERENCES o);");
    for (setup, change) in [
        (POINTING, "DROP TABLE o1;"),
        (POINTING, "ALTER TABLE o DETACH PARTITION o1; DROP TABLE o1;"),
        (incoming.as_str(), "ALTER TABLE i DROP CONSTRAINT i_x_y_fkey; DROP TABLE o1;"),
    ] {
        Stage::new(setup).schema_there_and_back(change);
    }
}

#[test]
fn a_partition_that_is_held_keeps_no_row_of_others() {
    let mut stage = Stage::new(POINTING);
    let images = stage.apply("DROP TABLE o1;");
    stage.others("DELETE FROM a WHERE id = 1");
    assert!(!stage.conflicts(&images).is_empty(), "its row would point at nothing");
    stage.others("INSERT INTO a VALUES (1)");
    stage.undo(&images);
    assert_eq!(stage.ask("SELECT count(*) FROM o"), "2");
}

#[test]
fn an_emptied_table_may_point_at_a_partitioned_one() {
    let mut stage = Stage::new(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); CREATE TABLE i (id int PRIMARY KEY, p int REFERENCES p);
         INSERT INTO p VALUES (1), (11); INSERT INTO i VALUES (1, 1), (2, 11);",
    );
    stage.there_and_back("TRUNCATE i;");
    let images = stage.apply("TRUNCATE i;");
    stage.others("DELETE FROM p WHERE id = 11");
    assert!(!stage.conflicts(&images).is_empty(), "a row would point at nothing");
}
