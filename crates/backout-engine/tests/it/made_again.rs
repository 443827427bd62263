//! What later deployments took away and made again: the site is as the first one left it, and yet it is not the first
//! one's to take back.

use backout_engine::outcome::Status;
use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_testkit::database;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, captured, delete, files, sql};
use backout_testkit::site::TestSite;
use backout_testkit::tree::{Node, Tree};

const BASE: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, a, c);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2');
    CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    INSERT INTO w VALUES ('a', 1);
    CREATE TABLE n (x);
    CREATE TABLE big (id INTEGER PRIMARY KEY, v);
";

const MANNERS: [OnConflict; 3] = [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite];

/// What happens to the site, one after the other.
enum Done<'a> {
    Deployed(&'a str),
    ByOthers(&'a str),
}

fn package(number: usize, text: &str) -> Pkg {
    Pkg::new(&format!("p{number}")).step(sql(text))
}

/// Does everything, then tries to undo the first deployment in every manner; the ids of all.
fn deploy_all(site: &TestSite, all: &[Done<'_>]) -> Vec<String> {
    let mut ids = Vec::new();
    for (number, one) in all.iter().enumerate() {
        match one {
            Done::Deployed(text) => ids.push(site.deploy(&package(number, text)).id()),
            Done::ByOthers(text) => site.execute(text),
        }
    }
    ids
}

#[test]
fn rows_that_a_later_deployment_made_again_are_not_taken_away() {
    use Done::{ByOthers, Deployed};
    let many = "INSERT INTO big WITH RECURSIVE r(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM r WHERE i < 20000)
                SELECT i, i FROM r";
    let most = format!("{many} WHERE i > 5");
    let nine = "INSERT INTO t VALUES (9, 'a9', 'c9')";
    let cases: Vec<Vec<Done<'_>>> = vec![
        vec![Deployed(nine), Deployed("DELETE FROM t WHERE id = 9"), Deployed(nine)],
        vec![Deployed(nine), ByOthers("DELETE FROM t WHERE id = 9"), Deployed(nine)],
        vec![Deployed(nine), Deployed("UPDATE t SET a = 'b'"), ByOthers("UPDATE t SET a = 'a9' WHERE id = 9")],
        vec![
            Deployed("UPDATE t SET a = 'x' WHERE id = 1"),
            Deployed("UPDATE t SET a = 'y' WHERE id = 1"),
            Deployed("UPDATE t SET a = 'x' WHERE id = 1"),
        ],
        vec![
            Deployed("UPDATE t SET a = 'x' WHERE id = 1"),
            Deployed("DELETE FROM t WHERE id = 1"),
            Deployed("INSERT INTO t VALUES (1, 'x', 'c1')"),
        ],
        vec![
            Deployed("DELETE FROM t WHERE id = 1"),
            Deployed("INSERT INTO t VALUES (1, 'a1', 'c1')"),
            Deployed("DELETE FROM t WHERE id = 1"),
        ],
        vec![Deployed("UPDATE w SET v = 2"), Deployed("UPDATE w SET k = 'b'"), Deployed("UPDATE w SET k = 'a'")],
        vec![
            Deployed(many),
            Deployed("DELETE FROM big WHERE id = 19999"),
            Deployed("INSERT INTO big VALUES (19999, 19999)"),
        ],
        vec![Deployed(many), Deployed("DELETE FROM big WHERE id > 5"), Deployed(&most)],
    ];
    for (number, case) in cases.iter().enumerate() {
        let site = TestSite::builder().database("main", BASE).build();
        let before = database::read(&site.database("main"));
        let ids = deploy_all(&site, case);
        let deployed = database::read(&site.database("main"));
        for manner in MANNERS {
            let outcome = site.undo_on(Some(&ids[0]), manner).result.unwrap();
            assert_eq!(outcome.status, Status::Refused, "{number} {manner:?}: {outcome:?}");
            assert!(database::read(&site.database("main")) == deployed, "{number} {manner:?}");
            let needed = outcome.conflicts.iter().find(|one| one.kind == ConflictKind::RequiredBy);
            let needed = needed.unwrap_or_else(|| panic!("{number} {manner:?}: {outcome:?}"));
            assert!(ids[1..].iter().any(|id| needed.now.contains(id)), "{number}: {needed:?}");
            assert!(needed.key.is_some(), "{number}: {needed:?}");
        }
        if case.iter().all(|one| matches!(one, Deployed(_))) {
            for id in ids.iter().rev() {
                assert_eq!(site.undo(Some(id)).status(), Status::Done, "{number}");
            }
            assert!(database::read(&site.database("main")) == before, "{number}");
        }
    }
}

#[test]
fn what_later_deployments_changed_beside_it_is_in_nobodys_way() {
    use Done::Deployed;
    let cases: Vec<Vec<Done<'_>>> = vec![
        vec![Deployed("UPDATE t SET a = 'x' WHERE id = 1"), Deployed("UPDATE t SET c = 'y' WHERE id = 1")],
        vec![Deployed("UPDATE t SET a = 'x' WHERE id = 1"), Deployed("UPDATE t SET a = 'x' WHERE id = 2")],
        vec![Deployed("INSERT INTO n VALUES (1)"), Deployed("INSERT INTO n VALUES (1)")],
        vec![Deployed("UPDATE t SET a = 'x'"), Deployed("INSERT INTO t VALUES (9, 'a9', 'c9')")],
    ];
    for (number, case) in cases.iter().enumerate() {
        let site = TestSite::builder().database("main", BASE).build();
        let ids = deploy_all(&site, case);
        for id in &ids {
            let outcome = site.undo(Some(id)).result.unwrap();
            assert_eq!(outcome.status, Status::Done, "{number}: {outcome:?}");
        }
    }
}

#[test]
fn files_that_a_later_deployment_made_again_are_not_taken_away() {
    let x = || Tree::new().file("d/x", "1");
    let y = || Tree::new().file("d/x", "2");
    let with_mode = |mode| Tree::new().node("d/x", Node::File { content: b"1".to_vec(), mode });
    let install = |name: &str, tree: Tree| Pkg::new(name).step(files(tree));
    let remove = |name: &str, path: &str| Pkg::new(name).step(delete([path]));
    let cases: Vec<(Tree, Vec<Pkg>)> = vec![
        // The content of one, the mode of the other: either way the whole file goes back.
        (
            Tree::new().file("d/x", "0"),
            vec![install("one", x()), Pkg::new("two").step(captured("chmod 600 \"$BACKOUT_ROOT_WEB/d/x\""))],
        ),
        (Tree::new(), vec![install("one", x()), remove("two", "d/x"), install("three", x())]),
        (Tree::new(), vec![install("one", x()), remove("two", "d/"), install("three", x())]),
        (y(), vec![install("one", x()), install("two", y()), install("three", x())]),
        (x(), vec![remove("one", "d/x"), install("two", x()), remove("three", "d/x")]),
        (
            x(),
            vec![
                install("one", with_mode(0o600)),
                install("two", with_mode(0o640)),
                install("three", with_mode(0o600)),
            ],
        ),
    ];
    for (number, (tree, packages)) in cases.into_iter().enumerate() {
        let site = TestSite::builder().root("web", tree).build();
        let before = Fingerprint::of(&site).without_directory_times();
        let ids: Vec<String> = packages.iter().map(|package| site.deploy(package).id()).collect();
        let deployed = Fingerprint::of(&site).without_directory_times();
        for manner in MANNERS {
            let outcome = site.undo_on(Some(&ids[0]), manner).result.unwrap();
            assert_eq!(outcome.status, Status::Refused, "{number} {manner:?}: {outcome:?}");
            assert!(Fingerprint::of(&site).without_directory_times() == deployed, "{number} {manner:?}");
            let is_needed = |one: &Conflict| {
                one.kind == ConflictKind::RequiredBy && one.object == "d/x" && one.now.contains(ids.last().unwrap())
            };
            assert!(outcome.conflicts.iter().any(is_needed), "{number} {manner:?}: {outcome:?}");
        }
        for id in ids.iter().rev() {
            assert_eq!(site.undo(Some(id)).status(), Status::Done, "{number}");
        }
        assert!(Fingerprint::of(&site).without_directory_times() == before, "{number}");
    }
}

/// A number in the database's header is nobody's row, and yet somebody's.
#[test]
fn a_number_in_the_header_is_a_later_deployments() {
    for (second, third) in
        [("PRAGMA user_version = 6", None), ("PRAGMA user_version = 6", Some("PRAGMA user_version = 5"))]
    {
        let site = TestSite::builder().database("main", "PRAGMA user_version = 1; CREATE TABLE t (id)").build();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package(1, "INSERT INTO t VALUES (1); PRAGMA user_version = 5")).id();
        let mut later = vec![site.deploy(&package(2, second)).id()];
        later.extend(third.map(|text| site.deploy(&package(3, text)).id()));
        let deployed = site.value("PRAGMA user_version");
        for manner in [OnConflict::Stop, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            let told = outcome.conflicts.iter().any(|one| one.object == "pragma user_version");
            let names = later.iter().any(|id| outcome.hints.iter().any(|hint| hint.contains(id)));
            assert!(told && names, "{outcome:?}");
            assert_eq!(site.value("PRAGMA user_version"), deployed);
        }
        for id in later.iter().rev().chain([&id]) {
            site.undo(Some(id)).expect(Status::Done);
        }
        assert!(database::read(&site.database("main")) == before);
    }
    // What others set is a conflict as any other.
    for (manner, status, left) in [
        (OnConflict::Stop, Status::Refused, "7"),
        (OnConflict::Keep, Status::Partly, "7"),
        (OnConflict::Overwrite, Status::Done, "1"),
    ] {
        let site = TestSite::builder().database("main", "PRAGMA user_version = 1").build();
        site.deploy(&package(1, "PRAGMA user_version = 5")).expect(Status::Done);
        site.execute("PRAGMA user_version = 7");
        let outcome = site.undo_on(None, manner).expect(status);
        assert_eq!(site.value("PRAGMA user_version"), left);
        let is_it = |one: &Conflict| one.object == "pragma user_version" && one.now == "7";
        assert!(outcome.conflicts.iter().any(is_it), "{outcome:?}");
    }
}

/// Tables and columns under names that others had before, keys that change places, rows that came with a table built
/// anew: what has the old name after the undo is not what the later deployment knew by it.
#[test]
fn what_has_the_same_name_is_not_the_same() {
    let two = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2');
               CREATE TABLE s(id INTEGER PRIMARY KEY, a, b); INSERT INTO s VALUES (1, 's1', 's1');
               CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('a');";
    let into_anothers = "DROP TABLE s; ALTER TABLE t RENAME TO s;";
    let places = "ALTER TABLE t RENAME TO x; ALTER TABLE s RENAME TO t; ALTER TABLE x RENAME TO s;";
    let columns = "ALTER TABLE t RENAME a TO q; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME q TO b;";
    let keys = "UPDATE t SET id = 9 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 9;";
    let anew =
        "CREATE TABLE n(id INTEGER PRIMARY KEY, a, b); INSERT INTO n SELECT * FROM t; INSERT INTO n VALUES (9, 9, 9);
                DROP TABLE t; ALTER TABLE n RENAME TO t;";
    let without_b = "CREATE TABLE n(id INTEGER PRIMARY KEY, a); INSERT INTO n SELECT id, a FROM t;
                     DROP TABLE t; ALTER TABLE n RENAME TO t;";
    for (first, second) in [
        (into_anothers, "INSERT INTO s VALUES (7, 'seven', 7)"),
        (into_anothers, "UPDATE s SET a = 'new' WHERE id = 1"),
        (into_anothers, "DELETE FROM s WHERE id = 1"),
        (places, "UPDATE s SET a = 's1' WHERE id = 1"),
        ("DELETE FROM t WHERE id = 1", columns),
        ("UPDATE t SET a = 'b1' WHERE id = 1", columns),
        ("ALTER TABLE t DROP COLUMN b; ALTER TABLE t RENAME a TO b", "UPDATE t SET b = 'b1' WHERE id = 1"),
        ("DELETE FROM t WHERE id = 1", "ALTER TABLE t RENAME a TO q; ALTER TABLE t ADD COLUMN a"),
        (anew, "DELETE FROM t WHERE id = 9"),
        ("ALTER TABLE t DROP COLUMN b", keys),
        (without_b, keys),
        ("ALTER TABLE f RENAME TO g", "INSERT INTO g VALUES ('q')"),
    ] {
        let what = format!("{first}; then {second}");
        let site = TestSite::builder().database("main", two).build();
        let before = database::read(&site.database("main"));
        let id = site.deploy(&package(1, first)).id();
        let later = site.deploy(&package(2, second)).id();
        let deployed = database::read(&site.database("main"));
        for manner in [OnConflict::Stop, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            assert!(outcome.hints.iter().any(|hint| hint.contains(&later)), "{what}: {outcome:?}");
            assert!(database::read(&site.database("main")) == deployed, "{what}");
        }
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert!(database::read(&site.database("main")) == before, "{what}");
    }
}

/// What has another name since is not simply gone: who named it so is named.
#[test]
fn a_table_that_a_later_deployment_renamed_is_told_with_it() {
    let site = TestSite::builder().database("main", BASE).build();
    let id = site.deploy(&package(1, "INSERT INTO t VALUES (9, 'a9', 'c9')")).id();
    let later = site.deploy(&package(2, "ALTER TABLE t RENAME TO u")).id();
    let outcome = site.undo(Some(&id)).expect(Status::Refused);
    assert!(outcome.hints.iter().any(|hint| hint.contains("undo first") && hint.contains(&later)), "{outcome:?}");
}
