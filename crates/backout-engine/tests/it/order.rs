//! Deployments undone in another order than they came, on one SQLite database: an undo that would take away what the
//! undo of a later one cannot do without is refused, whatever the manner, and names that one.

use backout_engine::outcome::Status;
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_testkit::database;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, child, delete, files, sql};
use backout_testkit::seeds::seeds;
use backout_testkit::site::TestSite;
use backout_testkit::tree::Tree;
use fastrand::Rng;

const MANNERS: [OnConflict; 3] = [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite];

const BASE: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, a, c);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2'), (3, 'a3', NULL);
    CREATE TABLE n (x, y);
    INSERT INTO n VALUES (1, 1), (1, 1), ('q', 2);
    CREATE TABLE p (id INTEGER PRIMARY KEY, n);
    CREATE TABLE k (id INTEGER PRIMARY KEY, p REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE);
    CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    INSERT INTO w VALUES ('a', 1), ('b', 2);
    INSERT INTO p VALUES (1, 'p1'), (2, 'p2');
    INSERT INTO k VALUES (1, 1), (2, 2);
";

fn rebuilt(table: &str, columns: &str, form: &str) -> String {
    format!(
        "CREATE TABLE {table}_n ({form}); INSERT INTO {table}_n ({columns}) SELECT {columns} FROM {table};
         DROP TABLE {table}; ALTER TABLE {table}_n RENAME TO {table};"
    )
}

fn site() -> TestSite {
    TestSite::builder().database("main", BASE).build()
}

fn package(name: &str, text: &str) -> Pkg {
    Pkg::new(name).step(sql(text))
}

#[test]
fn what_a_later_undo_needs_is_not_taken_away() {
    let with_d = rebuilt("t", "id, a, c", "id INTEGER PRIMARY KEY, a, c, d DEFAULT 1");
    let with_e = rebuilt("t", "id, a, c", "id INTEGER PRIMARY KEY, a, c, e DEFAULT 2");
    let of_other_types = rebuilt("t", "id, a, c", "id INTEGER PRIMARY KEY, a TEXT, c");
    let without_c = rebuilt("t", "id, a", "id INTEGER PRIMARY KEY, a");
    for (first, second, always) in [
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "UPDATE t SET d = 'x' WHERE id = 1", false),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "DELETE FROM t WHERE id = 1", true),
        ("ALTER TABLE t RENAME COLUMN c TO cc", "DELETE FROM t WHERE id = 1", true),
        (&with_d, "DELETE FROM t WHERE id = 1", true),
        (&without_c, "DELETE FROM t WHERE id = 1", true),
        (&without_c, "UPDATE t SET id = 9 WHERE id = 1", true),
        ("ALTER TABLE t DROP COLUMN c", "UPDATE t SET id = 9 WHERE id = 1", true),
        ("ALTER TABLE t DROP COLUMN c", "DELETE FROM t WHERE id = 1", true),
        // What would be kept is not taken away.
        (&with_d, &with_e, false),
        (&of_other_types, &with_e, false),
        ("ALTER TABLE t RENAME TO tt", "UPDATE tt SET a = 'x'", true),
        ("UPDATE t SET id = 9 WHERE id = 1", "UPDATE t SET a = a || '+'", true),
        ("UPDATE t SET id = 9 WHERE id = 1; INSERT INTO t VALUES (1, 'n', 'n')", "DELETE FROM t WHERE id = 9", true),
        ("UPDATE w SET k = 'z' WHERE k = 'a'", "UPDATE w SET v = v || '+'", true),
        ("CREATE TABLE u (a)", "INSERT INTO u VALUES (1)", false),
        ("INSERT INTO n VALUES ('i', 'i')", &rebuilt("n", "x, y", "id INTEGER PRIMARY KEY, x, y"), true),
    ] {
        let what = format!("{first}; then {second}");
        let site = site();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package("one", first)).id();
        let second_id = site.deploy(&package("two", second)).id();
        let deployed = database::read(&site.database("main"));
        for manner in MANNERS {
            if manner == OnConflict::Keep && !always {
                continue;
            }
            let result = site.undo_on(Some(&id), manner).result;
            assert!(database::read(&site.database("main")) == deployed, "{what} {manner:?}");
            // Rows that have no place any more are refused by the database itself.
            let Ok(outcome) = result else {
                assert!(!always && manner == OnConflict::Overwrite, "{what}");
                continue;
            };
            assert_eq!(outcome.status, Status::Refused, "{what} {manner:?}: {outcome:?}");
            if always || manner == OnConflict::Overwrite {
                let needed =
                    outcome.conflicts.iter().find(|one| one.kind == ConflictKind::RequiredBy).unwrap_or_else(|| {
                        panic!("{what} {manner:?}: {:?}", outcome.conflicts);
                    });
                assert!(needed.now.contains(&second_id), "{what}: {needed:?}");
                assert!(outcome.hints.iter().all(|hint| !hint.contains("overwrite")), "{:?}", outcome.hints);
            }
        }
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{what}");
    }
}

/// Where the old form cannot come back, nothing is overwritten: neither by one step nor by one of several, and whoever
/// changed the form since.
#[test]
fn what_cannot_be_overwritten_is_left_as_it_is() {
    let first = "ALTER TABLE t DROP COLUMN c";
    for (steps, by_a_deployment) in [(1, false), (1, true), (2, false), (2, true)] {
        let what = format!("{steps} {by_a_deployment}");
        let site = site();
        let mut one = package("one", first);
        if steps == 2 {
            one = one.step(sql("UPDATE p SET n = 'x'"));
        }
        let id = site.deploy(&one).id();
        let theirs = "ALTER TABLE t RENAME COLUMN a TO o";
        if by_a_deployment {
            site.deploy(&package("two", theirs)).expect(Status::Done);
        } else {
            site.execute(theirs);
        }
        let now = database::read(&site.database("main"));
        let outcome = site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Refused);
        assert!(!outcome.conflicts.is_empty(), "{what}");
        assert!(database::read(&site.database("main")) == now, "{what}");
        assert!(outcome.hints.iter().all(|hint| !hint.contains("overwrite")), "{what}: {:?}", outcome.hints);
    }
}

/// A dropped column's value whose row has another key now is somebody's to put back.
#[test]
fn a_value_without_a_row_is_a_conflict() {
    for (manner, status) in [(OnConflict::Stop, Status::Refused), (OnConflict::Keep, Status::Partly)] {
        let site = site();
        site.deploy(&package("one", "ALTER TABLE t DROP COLUMN c")).expect(Status::Done);
        site.execute("UPDATE t SET id = 9 WHERE id = 1");
        let outcome = site.undo_on(None, manner).expect(status);
        assert_eq!(outcome.conflicts.len(), 1, "{manner:?}: {:?}", outcome.conflicts);
    }
}

/// What a later deployment made under the same name is not what an earlier one knew by it.
#[test]
fn a_namesake_is_not_taken_for_the_old_object() {
    let made = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, c);";
    let renamed = format!("ALTER TABLE t RENAME TO t2; {made}");
    let copied = format!("{renamed} INSERT INTO t SELECT * FROM t2;");
    let dropped = format!("DROP TABLE t; {made}");
    let insert = "INSERT INTO t VALUES (5, 'i', 'i')";
    let view = "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT a FROM t";
    let trigger = "DROP TRIGGER IF EXISTS r; CREATE TRIGGER r AFTER INSERT ON p BEGIN DELETE FROM n; END";
    let index = "DROP INDEX IF EXISTS i; CREATE INDEX i ON t (a)";
    for (first, second, object) in [
        (insert, renamed.as_str(), "table t"),
        (insert, &copied, "table t"),
        (insert, &dropped, "table t"),
        (insert, &format!("{dropped} {insert}"), "table t"),
        (view, view, "view v"),
        (trigger, trigger, "trigger r"),
        (index, index, "index i"),
    ] {
        let what = format!("{first}; then {second}");
        let site = site();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package("one", first)).id();
        let second_id = site.deploy(&package("two", second)).id();
        let deployed = database::read(&site.database("main"));
        for manner in MANNERS {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            let named = outcome.conflicts.iter().find(|one| one.kind == ConflictKind::RequiredBy);
            let named = named.unwrap_or_else(|| panic!("{what} {manner:?}: {:?}", outcome.conflicts));
            assert_eq!(named.object, object, "{what}");
            assert!(named.now.contains(&second_id), "{what}: {named:?}");
            assert!(database::read(&site.database("main")) == deployed, "{what} {manner:?}");
        }
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{what}");
    }
    // What has nothing to do with it is no obstacle.
    let site = site();
    let id = site.deploy(&package("one", insert)).id();
    site.deploy(&package("two", "CREATE TABLE u (a); CREATE VIEW v AS SELECT a FROM t")).expect(Status::Done);
    site.undo(Some(&id)).expect(Status::Done);
}

/// The same within one deployment.
#[test]
fn what_a_child_beside_it_needs_is_not_taken_away() {
    for first in ["ALTER TABLE t ADD COLUMN d DEFAULT 7", "UPDATE t SET id = 9 WHERE id = 1"] {
        let site = site();
        let before = database::read(&site.database("main"));
        let shop = Pkg::new("shop")
            .step(child(package("one", first)))
            .step(child(package("two", "DELETE FROM t WHERE id IN (1, 9)")));
        let id = site.deploy(&shop).id();
        for manner in MANNERS {
            site.undo_on(Some(&format!("{id}/one")), manner).expect(Status::Refused);
        }
        site.undo(Some(&format!("{id}/two"))).expect(Status::Done);
        site.undo(Some(&format!("{id}/one"))).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{first}");
    }
}

/// Where two deployments changed one table but no column and no row together, either is undone first.
#[test]
fn what_meets_nowhere_is_undone_in_any_order() {
    let with_d = rebuilt("t", "id, a, c", "id INTEGER PRIMARY KEY, a, c, d DEFAULT 1");
    for (first, second) in [
        (with_d.as_str(), "UPDATE t SET a = 'x' WHERE id = 1"),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "UPDATE t SET a = 'x' WHERE id = 1"),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "INSERT INTO t (id, a) VALUES (8, 'x')"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "ALTER TABLE t DROP COLUMN c"),
        ("INSERT INTO t VALUES (8, 'x', NULL)", "ALTER TABLE t DROP COLUMN c"),
        ("DELETE FROM t WHERE id = 3", "ALTER TABLE t DROP COLUMN c"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "ALTER TABLE t RENAME COLUMN c TO cc"),
        ("UPDATE w SET v = 5 WHERE k = 'a'", "DELETE FROM w WHERE k = 'b'"),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "ALTER TABLE t ADD COLUMN e"),
        ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN e DEFAULT 5"),
        ("ALTER TABLE t DROP COLUMN a", "ALTER TABLE t ADD COLUMN e; UPDATE t SET e = c, c = 'y'"),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "ALTER TABLE t ADD COLUMN e; UPDATE t SET e = 5 WHERE id = 1"),
    ] {
        let site = site();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package("one", first)).id();
        site.deploy(&package("two", second)).expect(Status::Done);
        site.undo(Some(&id)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{first}; then {second}");
    }
}

/// A column is taken out from beside those that others added; where something of theirs hangs on it, it stays.
#[test]
fn a_column_is_taken_out_beside_those_of_others() {
    let site = site();
    site.deploy(&package("one", "ALTER TABLE t ADD COLUMN d DEFAULT 7")).expect(Status::Done);
    site.execute("ALTER TABLE t ADD COLUMN o DEFAULT 'o'; CREATE VIEW v AS SELECT \"x\" AS x, o FROM t;");
    site.undo(None).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(o) FROM t"), "o,o,o");
    assert_eq!(site.value("SELECT count(*) FROM pragma_table_info('t') WHERE name = 'd'"), "0");
    assert_eq!(
        site.value("SELECT sql FROM sqlite_schema WHERE name = 'v'"),
        "CREATE VIEW v AS SELECT \"x\" AS x, o FROM t"
    );
    let site = self::site();
    site.deploy(&package("one", "ALTER TABLE t ADD COLUMN d DEFAULT 7")).expect(Status::Done);
    site.execute("ALTER TABLE t ADD COLUMN o; CREATE VIEW v AS SELECT d, o FROM t;");
    for manner in [OnConflict::Stop, OnConflict::Overwrite] {
        let outcome = site.undo_on(None, manner).expect(Status::Refused);
        assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    }
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(site.value("SELECT group_concat(d) FROM t"), "7,7,7");
}

/// A value that has no column any more is a conflict, which nothing overwrites; the rest of its row goes back.
#[test]
fn a_value_without_a_column_is_a_conflict() {
    for (first, others) in [
        ("DELETE FROM t WHERE id = 1", "ALTER TABLE t DROP COLUMN c"),
        ("UPDATE t SET a = 'x', c = 'y' WHERE id = 1", "ALTER TABLE t DROP COLUMN c"),
    ] {
        for by_a_deployment in [false, true] {
            let site = site();
            let id = site.deploy(&package("one", first)).id();
            if by_a_deployment {
                site.deploy(&package("two", others)).expect(Status::Done);
            } else {
                site.execute(others);
            }
            for manner in [OnConflict::Stop, OnConflict::Overwrite] {
                let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
                assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
                let overwrites = outcome.hints.iter().any(|hint| hint.contains("overwrite"));
                assert!(!overwrites || manner == OnConflict::Stop && !by_a_deployment, "{outcome:?}");
            }
            let outcome = site.undo_on(Some(&id), OnConflict::Keep).expect(Status::Partly);
            let conflict = &outcome.conflicts[0];
            assert_eq!((conflict.column.as_deref(), conflict.before.as_str()), (Some("c"), "'c1'"), "{conflict:?}");
            let rows = site.value("SELECT group_concat(id || a) FROM (SELECT * FROM t ORDER BY id)");
            assert_eq!(rows, "1a1,2a2,3a3", "{first}");
        }
    }
}

/// What a later deployment made of it is not overwritten: its own undo would take that for what it left, and delete
/// the original.
#[test]
fn what_a_later_deployment_made_is_not_overwritten() {
    let tree = || Tree::new().file("d/f", "o");
    let made = |name: &str| Pkg::new(name).step(files(tree()));
    let of_files = (Pkg::new("one").step(delete(["d/"])), made("two"));
    let of_rows = (package("one", "DELETE FROM t WHERE id = 1"), package("two", "UPDATE t SET id = 1 WHERE id = 2"));
    let of_values =
        (package("one", "UPDATE t SET a = 'x' WHERE id = 1"), package("two", "UPDATE t SET a = 'y' WHERE id = 1"));
    let of_views = (package("one", "DROP VIEW v"), package("two", "CREATE VIEW v AS SELECT a FROM t"));
    for (first, second) in [of_files, of_rows, of_values, of_views] {
        let site = TestSite::builder()
            .database("main", &format!("{BASE} CREATE VIEW v AS SELECT a FROM t;"))
            .root("web", tree())
            .build();
        let before = Fingerprint::of(&site);
        let id = site.deploy(&first).id();
        let second = site.deploy(&second).id();
        let deployed = Fingerprint::of(&site);
        let outcome = site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Refused);
        assert!(outcome.hints[0].contains(&second), "{outcome:?}");
        assert!(outcome.hints.iter().all(|hint| !hint.contains("overwrite")), "{outcome:?}");
        Fingerprint::of(&site).assert_same(&deployed, "refused");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        Fingerprint::of(&site).assert_same(&before, "undone");
    }
}

/// What others wrote is, though a later deployment changed other rows and columns of the same table, other files of
/// the same directory.
#[test]
fn what_others_made_is_overwritten_beside_a_later_deployment() {
    let site =
        TestSite::builder().database("main", BASE).root("web", Tree::new().file("a", "a").file("b", "b")).build();
    let one = package("one", "UPDATE t SET a = 'x' WHERE id = 1").step(files(Tree::new().file("a", "x")));
    let two = package("two", "UPDATE t SET c = 'y' WHERE id = 1; UPDATE t SET a = 'y' WHERE id = 2")
        .step(files(Tree::new().file("b", "y")));
    let id = site.deploy(&one).id();
    site.deploy(&two).expect(Status::Done);
    site.execute("UPDATE t SET a = 'z' WHERE id = 1");
    std::fs::write(site.root("web").join("a"), "z").unwrap();
    let outcome = site.undo_on(Some(&id), OnConflict::Stop).expect(Status::Refused);
    assert!(outcome.hints.iter().any(|hint| hint.contains("overwrite")), "{outcome:?}");
    site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(a || c) FROM t WHERE id < 3"), "a1c1,a2c2");
    let file = |name: &str| site.text(&format!("web/{name}")).unwrap();
    assert_eq!((file("a"), file("b")), ("a".to_owned(), "b".to_owned()));
}

/// A directory that the earlier one made and the later one filled stays with the later one: that is no whole undo.
#[test]
fn a_directory_that_a_later_deployment_fills_is_a_conflict() {
    let adds = |name: &str, path: &str| Pkg::new(name).step(files(Tree::new().file(path, path)));
    let deployed = || {
        let site = TestSite::builder().database("main", BASE).root("web", Tree::new()).build();
        let before = Fingerprint::of(&site);
        let id = site.deploy(&adds("one", "d/f")).id();
        site.deploy(&adds("two", "d/g")).expect(Status::Done);
        (site, before, id)
    };
    let (site, before, id) = deployed();
    let outcome = site.undo(Some(&id)).expect(Status::Refused);
    assert_eq!((outcome.conflicts.len(), outcome.conflicts[0].kind), (1, ConflictKind::NotEmpty), "{outcome:?}");
    site.undo(None).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    Fingerprint::of(&site).assert_same(&before, "undone");
    let (site, _, id) = deployed();
    site.undo_on(Some(&id), OnConflict::Keep).expect(Status::Partly);
    let outcome = site.undo(None).expect(Status::Done);
    assert!(outcome.answer.last().unwrap().contains(&format!("what is left of {id}")), "{outcome:?}");
    // What others put there is theirs: the directory stays, and nobody's undo is in the way.
    let site = TestSite::builder().database("main", BASE).root("web", Tree::new()).build();
    site.deploy(&adds("one", "d/f")).expect(Status::Done);
    std::fs::write(site.root("web").join("d/theirs"), "").unwrap();
    site.undo(None).expect(Status::Done);
}

/// A step whose undo is a script of its own, or none, has no images that need anything.
#[test]
fn what_has_no_images_needs_nothing() {
    let site = site();
    let id = site.deploy(&package("one", "ALTER TABLE t ADD COLUMN d DEFAULT 7")).id();
    let step = sql("UPDATE t SET a = 'x' WHERE id = 1").with("undo", "none").with("because", "so it is");
    site.deploy(&Pkg::new("two").step(step)).expect(Status::Done);
    site.undo(Some(&id)).expect(Status::Done);
}

fn deed(rng: &mut Rng) -> String {
    let pool = [
        "UPDATE t SET a = a || '+' WHERE id < 3;",
        "UPDATE t SET id = id + 100 WHERE id = 2;",
        "DELETE FROM t WHERE id = 1;",
        "REPLACE INTO t (id, a) VALUES (1, 'r'), (77, 'n');",
        "INSERT INTO t (a) VALUES ('new');",
        "ALTER TABLE t ADD COLUMN d DEFAULT 7;",
        "ALTER TABLE t DROP COLUMN c;",
        "ALTER TABLE t RENAME COLUMN a TO aa;",
        "UPDATE n SET y = 'u' WHERE x = 1;",
        "INSERT INTO n VALUES ('i', 'i');",
        "DELETE FROM n WHERE x = 'q';",
        "PRAGMA foreign_keys = ON; UPDATE p SET id = id + 10 WHERE id = 2;",
        "PRAGMA foreign_keys = ON; DELETE FROM p WHERE id = 1;",
        "INSERT INTO p VALUES (5, 'p5'); INSERT INTO k VALUES (5, 5);",
        "DROP TABLE n; CREATE TABLE n (x, y, z); INSERT INTO n VALUES (1, 2, 3);",
    ];
    match rng.usize(..pool.len() + 5) {
        0 => rebuilt("t", "id, a, c", "id INTEGER PRIMARY KEY, a, c, e DEFAULT 5"),
        1 => rebuilt("t", "id, a", "id INTEGER PRIMARY KEY, a"),
        2 => rebuilt("n", "x, y", "id INTEGER PRIMARY KEY, x, y"),
        3 => rebuilt("n", "x, y", "x, y, w"),
        4 => rebuilt("p", "id, n", "id INTEGER PRIMARY KEY, n, o DEFAULT 1"),
        one => pool[one - 5].to_owned(),
    }
}

/// Whatever was tried before, in whatever order and manner: the latest can be undone, and where all are undone and the
/// tool says that the site is as before, it is.
#[test]
fn random_orders_and_manners_end_as_they_are_said_to() {
    let (mut undone, mut refused, mut exact) = (0, 0, 0);
    for seed in seeds(40) {
        let mut rng = Rng::with_seed(seed);
        let site = site();
        let before = database::read(&site.database("main"));
        let mut ids: Vec<String> = Vec::new();
        let mut what = format!("BACKOUT_SEED={seed}");
        for number in 0..rng.usize(2..5) {
            let script = deed(&mut rng);
            let done = site.deploy(&package(&format!("p{number}"), &script));
            if done.status() == Status::Done {
                what = format!("{what}\n-- p{number} {}: {script}", done.id());
                ids.push(done.id());
            }
        }
        let mut settled = false;
        for tried in 0..20 {
            if ids.is_empty() {
                break;
            }
            let last = ids.len() - 1;
            let at = if tried < 5 { rng.usize(..ids.len()) } else { last };
            let manner = if settled || rng.u8(..3) > 0 { OnConflict::Stop } else { MANNERS[rng.usize(1..3)] };
            // What an earlier undo kept may be in the way for good: then there is no way out but to keep it once more.
            let manner =
                [manner, OnConflict::Overwrite, OnConflict::Keep][usize::from(tried >= 12) + usize::from(tried >= 16)];
            let now = database::read(&site.database("main"));
            let outcome = match site.undo_on(Some(&ids[at]), manner).result {
                Ok(outcome) => outcome,
                Err(error) => {
                    what = format!("{what}\n-- undo {} {manner:?}: {error}", ids[at]);
                    assert!(database::read(&site.database("main")) == now, "{what}");
                    assert!(settled || at != last, "the latest can be undone: {what}");
                    continue;
                }
            };
            what = format!("{what}\n-- undo {} {manner:?}: {:?} {:#?}", ids[at], outcome.status, outcome.conflicts);
            match outcome.status {
                Status::Done | Status::Partly => {
                    undone += 1;
                    settled |= !outcome.conflicts.is_empty();
                    ids.remove(at);
                }
                Status::Refused => {
                    refused += 1;
                    assert!(database::read(&site.database("main")) == now, "a refusal changes nothing: {what}");
                    assert!(settled || at != last, "the latest can be undone: {what}");
                }
                _ => panic!("{what}\n{outcome:?}"),
            }
        }
        assert!(ids.is_empty(), "something can't be undone: {what}");
        let said = site.undo(None).result.map(|outcome| outcome.answer).unwrap_or_default();
        assert!(said.is_empty());
        let is_same = database::read(&site.database("main")) == before;
        exact += usize::from(is_same);
        assert!(is_same || settled, "{what}");
    }
    println!("{undone} undone, {refused} refused, {exact} exact");
}

/// What one says of a row covers all of it: nobody's value goes unsaid with the row.
#[test]
fn each_value_of_a_row_that_gives_way_is_told() {
    let site = site();
    let id = site.deploy(&package("one", "DELETE FROM t WHERE id = 1")).id();
    site.execute("INSERT INTO t VALUES (1, 'x', 'y')");
    let outcome = site.undo_on(Some(&id), OnConflict::Stop).expect(Status::Refused);
    let columns: Vec<_> = outcome.conflicts.iter().filter_map(|one| one.column.as_deref()).collect();
    assert_eq!(columns, ["a", "c"], "{outcome:?}");
    site.deploy(&package("two", "UPDATE t SET c = 'B' WHERE id = 1")).expect(Status::Done);
    let now = database::read(&site.database("main"));
    site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Refused);
    assert!(database::read(&site.database("main")) == now);
}

/// More conflicts than are listed hide no later deployment, and make up none.
#[test]
fn more_conflicts_than_are_listed_hide_no_later_deployment() {
    let rows = "WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 1500)
        INSERT INTO many SELECT i, 'o', 'o' FROM i;";
    let base = format!("{BASE} CREATE TABLE many (id INTEGER PRIMARY KEY, a, c); {rows}");
    let deployed = |second: &str| {
        let site = TestSite::builder().database("main", &base).build();
        let id = site.deploy(&package("one", "UPDATE many SET a = 'A'")).id();
        site.deploy(&package("two", second)).expect(Status::Done);
        (site, id)
    };
    let (site, id) = deployed("UPDATE many SET a = 'later' WHERE id = 1500");
    site.execute("UPDATE many SET a = 'app' WHERE id < 1400");
    let now = database::read(&site.database("main"));
    site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Refused);
    assert!(database::read(&site.database("main")) == now);
    // As it is to be already, by others' hands.
    let (site, id) = deployed("UPDATE t SET a = 'later'");
    site.execute("UPDATE many SET a = 'o'");
    site.undo(Some(&id)).expect(Status::Done);
}

/// What a later undo goes by must stay as it is: the names of columns, the rows' keys, a free name.
#[test]
fn what_a_later_undo_goes_by_stays() {
    let reordered = rebuilt("p2", "i, j, v", "i, j, v, x, PRIMARY KEY (j, i)");
    for (first, second, manner) in [
        ("ALTER TABLE n ADD COLUMN d", "UPDATE n SET x = 'B' WHERE y = 2", OnConflict::Stop),
        ("ALTER TABLE t RENAME COLUMN c TO cc", "INSERT INTO t VALUES (9, 'i', 'B')", OnConflict::Stop),
        ("DELETE FROM p2 WHERE j = 1", &reordered, OnConflict::Stop),
        ("DROP VIEW v; CREATE VIEW v AS SELECT 'new' AS x", "DROP VIEW v", OnConflict::Stop),
    ] {
        let base = "CREATE TABLE p2 (i, j, v, PRIMARY KEY (i, j)); INSERT INTO p2 VALUES (1, 1, 'a'), (2, 2, 'b');
            CREATE VIEW v AS SELECT 'old' AS x;";
        let site = TestSite::builder().database("main", &format!("{BASE} {base}")).build();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package("one", first)).id();
        let second_id = site.deploy(&package("two", second)).id();
        let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
        assert!(outcome.hints.iter().any(|hint| hint.contains(&second_id)), "{first}; {second}: {outcome:?}");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{first}; {second}");
    }
}

/// Both go in any order, and come again.
#[test]
fn columns_beside_each_other_come_again() {
    for (first, second) in [
        ("ALTER TABLE t ADD COLUMN d DEFAULT 2", "ALTER TABLE t ADD COLUMN e DEFAULT 3; UPDATE t SET e = 7"),
        ("ALTER TABLE t ADD COLUMN d DEFAULT 2", "ALTER TABLE t ADD COLUMN g AS (a || '!')"),
        ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN e DEFAULT 3"),
    ] {
        let site = site();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package("one", first)).id();
        site.deploy(&package("two", second)).expect(Status::Done);
        let columns = "SELECT group_concat(name) FROM (SELECT name FROM pragma_table_xinfo('t') ORDER BY name)";
        let deployed = site.value(columns);
        for _ in 0..2 {
            site.undo(Some(&id)).expect(Status::Done);
            site.undo(None).expect(Status::Done);
            assert!(database::read(&site.database("main")) == before, "{first}; {second}");
            site.redo().expect(Status::Done);
            site.redo().expect(Status::Done);
            assert_eq!(site.value(columns), deployed, "{first}; {second}");
        }
    }
}

/// A later deployment that deleted a directory deleted what an earlier one had put or changed in it.
#[test]
fn what_went_with_a_directory_is_of_a_later_deployment() {
    let tree = || Tree::new().file("d/a", "a");
    for first in [
        Pkg::new("one").step(files(Tree::new().file("d/n", "n"))),
        Pkg::new("one").step(files(Tree::new().file("d/a", "x"))),
    ] {
        let site = TestSite::builder().database("main", BASE).root("web", tree()).build();
        let before = Fingerprint::of(&site);
        let id = site.deploy(&first).id();
        let second = site.deploy(&Pkg::new("two").step(delete(["d/"]))).id();
        let deployed = Fingerprint::of(&site);
        for manner in [OnConflict::Stop, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            assert!(outcome.hints[0].contains(&second), "{outcome:?}");
        }
        Fingerprint::of(&site).assert_same(&deployed, "refused");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        Fingerprint::of(&site).assert_same(&before, "undone");
    }
}

/// A name that a later one used once it was free is not given back under its undo.
#[test]
fn a_name_that_was_used_meanwhile_is_not_given_back() {
    let site = site();
    let before = database::read(&site.database("main"));
    let id = site.deploy(&package("one", "ALTER TABLE n RENAME TO n_old")).id();
    site.deploy(&package("two", "CREATE TABLE n (y)")).expect(Status::Done);
    site.deploy(&package("three", "DROP TABLE n")).expect(Status::Done);
    for manner in MANNERS {
        site.undo_on(Some(&id), manner).expect(Status::Refused);
    }
    for _ in 0..3 {
        site.undo(None).expect(Status::Done);
    }
    assert!(database::read(&site.database("main")) == before);
}

/// What a constraint of the table says of conflicts is for those who write to it, not for an undo.
#[test]
fn an_undo_heeds_no_on_conflict_of_a_constraint() {
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL", "ABORT"] {
        for text in ["UPDATE o SET e = 'x' WHERE id = 1", "DELETE FROM o WHERE id = 1"] {
            let what = format!("{clause}: {text}");
            let base = format!(
                "CREATE TABLE o (id INTEGER PRIMARY KEY, e UNIQUE ON CONFLICT {clause}, f);
                 INSERT INTO o VALUES (1, 'a', 'ours');"
            );
            let site = TestSite::builder().database("main", &base).build();
            site.deploy(&package("one", text)).expect(Status::Done);
            site.execute("INSERT INTO o VALUES (9, 'a', 'theirs')");
            let now = database::read(&site.database("main"));
            let outcome = site.undo(None).expect(Status::Refused);
            assert_eq!((outcome.conflicts.len(), outcome.conflicts[0].kind), (1, ConflictKind::Constraint), "{what}");
            assert!(database::read(&site.database("main")) == now, "{what}");
            site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
            assert_eq!(site.value("SELECT group_concat(id || e || f) FROM o"), "1aours", "{what}");
        }
    }
}
