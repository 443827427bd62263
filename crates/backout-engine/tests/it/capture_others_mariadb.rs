//! What sessions write to MariaDB that were connected before a captured command began is none of its own: it stays when the
//! command is undone, and goes where that is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backout_engine::outcome::Status;
use backout_engine::undo::Options;
use backout_model::conflict::OnConflict;
use backout_testkit::faults::{Fault, play, play_act};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Kind, Pkg, Step, captured};
use backout_testkit::site::{Done, TestSite};

const SHOP: &str = "
    CREATE TABLE product (id int PRIMARY KEY, name varchar(20), price decimal(8,2), stock int, kind enum('a','b'), f float,
        code varchar(9) UNIQUE, at timestamp(3) NOT NULL DEFAULT '2020-01-01 00:00:00' ON UPDATE current_timestamp(3), twice int AS (stock * 2) STORED);
    INSERT INTO product (id, name, price, stock, kind, f, code) VALUES (1, 'coat', 100, 5, 'a', 1e-40, 'x'), (2, 'hat', 20, 6, NULL, -0e0, 'y'), (3, 'scarf', 15, 7, 'b', 16777216, NULL);
    CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, product int, mood varchar(9), FOREIGN KEY (product) REFERENCES product (id));
    INSERT INTO orders (product) VALUES (1), (2);
    CREATE TABLE line (orders int, n smallint, what varchar(9) COLLATE utf8mb4_bin, PRIMARY KEY (orders, n));
    INSERT INTO line VALUES (1, 1, 'a'), (1, 2, 'b');
    CREATE TABLE tree (id int PRIMARY KEY, v int); CREATE TABLE leaf (id int PRIMARY KEY, tree int, FOREIGN KEY (tree) REFERENCES tree (id) ON DELETE CASCADE);
    INSERT INTO tree VALUES (1, 1), (2, 2); INSERT INTO leaf VALUES (1, 1), (2, 2);
    CREATE TABLE bare (v int, KEY (v)); CREATE TABLE twig (id int PRIMARY KEY, v int, FOREIGN KEY (v) REFERENCES bare (v) ON DELETE CASCADE);
    INSERT INTO bare VALUES (1), (2); INSERT INTO twig VALUES (1, 1), (2, 2);
    CREATE TABLE plain (v text); CREATE TABLE old (id int PRIMARY KEY) ENGINE=MyISAM;
";

fn shop() -> TestSite {
    TestSite::builder().mariadb("main", Server::shared(), SHOP).build()
}

/// Who runs statements: a client that the command starts, or a session that was there before it.
#[derive(Clone, Copy)]
enum Who {
    Command(&'static str),
    Other(&'static str),
}

use Who::{Command, Other};

/// The time of all that others do, and of all that a command does: so columns that move by themselves can be compared.
const THEIRS: &str = "SET timestamp = 1600000000";
const COMMANDS: &str = "SET timestamp = 1500000000";

/// A command that has some statements run by a session which was there before: it asks for them, and waits until they are.
fn step(site: &TestSite, acts: &[Who]) -> Step {
    let lines = acts.iter().enumerate().map(|(at, act)| match act {
        Command(_) => format!("printf '%s' \"{COMMANDS}; ${at}\" | client || exit 1\n"),
        Other(_) => format!("touch \"$ask.{at}\"; while [ ! -e \"$ask.{at}.done\" ]; do sleep 0.01; done\n"),
    });
    let script = format!(
        "url=\"$BACKOUT_DATABASE_MAIN\"; base=\"${{url%%\\?*}}\"; user=\"${{base#*//}}\"; ask='{}'
         client() {{ mariadb --no-defaults --socket=\"${{url#*socket=}}\" --user=\"${{user%%@*}}\" \"${{base##*/}}\"; }}\n{}",
        ask(site).display(),
        lines.collect::<String>()
    );
    let mut step = captured(&script);
    if let Kind::Run(argv) = &mut step.kind {
        argv.extend(acts.iter().map(|(Command(sql) | Other(sql))| (*sql).to_owned()));
    }
    step
}

fn ask(site: &TestSite) -> PathBuf {
    site.dir().join("ask")
}

/// Runs what is asked of it, until it is dropped.
struct Pooled {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pooled {
    fn of(site: &TestSite, acts: &[Who]) -> Self {
        let mut conn = site.mariadb("main").unwrap().connect();
        conn.query_drop(THEIRS).unwrap();
        Self::by(ask(site), acts, move |sql| conn.query_iter(sql).map(drop).unwrap())
    }

    fn by(ask: PathBuf, acts: &[Who], mut run: impl FnMut(&str) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (end, acts) = (Arc::clone(&ended), acts.to_vec());
        let file = move |at: usize, end: &str| PathBuf::from(format!("{}.{at}{end}", ask.display()));
        let work = move || {
            for (at, act) in acts.iter().enumerate() {
                let Other(sql) = act else { continue };
                while !Path::new(&file(at, "")).exists() {
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                sql.split(';').filter(|sql| !sql.trim().is_empty()).for_each(&mut run);
                std::fs::write(file(at, ".done"), "").unwrap();
            }
        };
        Self { ended, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("no statement of others ever fails");
        }
    }
}

/// Deploys a command with others at work.
fn deploy(site: &TestSite, acts: &[Who]) -> Done {
    let pooled = Pooled::of(site, acts);
    let done = site.deploy(&Pkg::new("p").step(step(site, acts)));
    drop(pooled);
    done
}

fn execute(site: &TestSite, sql: &str) {
    site.mariadb("main").unwrap().script(&format!("{THEIRS}; {sql}"));
}

/// All rows of the shop's tables, as the stock client shows them.
fn rows(site: &TestSite) -> String {
    let database = site.mariadb("main").unwrap();
    let tables = database.script("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%' ORDER BY 1");
    let all = tables.lines().map(|table| {
        let columns = if table == "product" { "id, name, price, stock, kind + 0, f, code, at, twice" } else { "*" };
        let found = database.script(&format!("SELECT {columns} FROM {table}"));
        let mut rows: Vec<&str> = found.lines().collect();
        rows.sort_unstable();
        format!("{table}\n{}\n", rows.join("\n"))
    });
    all.collect()
}

/// What the tool has left in the database of copies and triggers.
fn left(site: &TestSite) -> Vec<String> {
    let own = mariadb_dump::own_objects(site.mariadb("main").unwrap());
    own.into_iter().filter(|name| name.starts_with("backout_shop$c")).collect()
}

fn warnings(done: &Done) -> String {
    let said = done.heard.iter().filter_map(|happening| match happening {
        backout_engine::observer::Happening::Warning { text } => Some(text.clone()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("\n")
}

const ALONG: Options = Options { on_conflict: OnConflict::Stop, unattributed: true };

/// Deploys, undoes and redoes; after an undo there is what the others' acts alone would have left.
#[track_caller]
fn stays(acts: &[Who], alone: &[&str]) {
    let site = shop();
    let before = rows(&site);
    let twin = shop();
    alone.iter().for_each(|sql| execute(&twin, sql));
    let wanted = rows(&twin);
    let deployed = deploy(&site, acts);
    let said = warnings(&deployed);
    let id = deployed.id();
    deployed.expect(Status::Done);
    assert!(left(&site).iter().all(|name| !name.contains("$l")), "{:?}", left(&site));
    assert!(said.contains("--include-unattributed") && said.contains("by root@localhost"), "{said}");
    let after = rows(&site);
    for time in 0..2 {
        let undone = site.undo(None);
        let outcome = undone.expect(Status::Done);
        assert_eq!(rows(&site), wanted, "undone, {time}");
        assert!(outcome.notes.iter().any(|note| note.contains("what others did to database main")), "{outcome:?}");
        site.redo().expect(Status::Done);
        assert_eq!(rows(&site), after, "redone, {time}");
    }
    site.undo_by(Some(&id), ALONG).expect(Status::Done);
    assert_eq!(rows(&site), before, "undone with all");
    site.redo().expect(Status::Done);
    assert_eq!(rows(&site), after, "redone with all");
    site.undo_by(None, ALONG).expect(Status::Done);
    assert_eq!(rows(&site), before, "undone with all, again");
    assert!(site.grave().is_empty(), "{:?}", site.grave());
    assert_eq!(left(&site), [""; 0]);
}

#[test]
fn what_sessions_of_before_write_stays() {
    let insert = "INSERT INTO orders (product, mood) VALUES (3, 'é \\\\ ''\"')";
    let update = "UPDATE product SET stock = stock - 1, kind = 'b', f = 1e-40 WHERE id = 2";
    let delete = "DELETE FROM line WHERE n = 2; INSERT INTO line VALUES (7, 1, NULL); UPDATE line SET n = 5 WHERE orders = 7; REPLACE INTO line VALUES (7, 5, 'r')";
    stays(
        &[
            Command("UPDATE product SET name = 'cap' WHERE id = 3; INSERT INTO product (id, name) VALUES (9, 'glove')"),
            Other(insert),
            Other(update),
            Other(delete),
            Command("INSERT INTO line VALUES (8, 1, 'c'); DELETE FROM line WHERE what = 'a'"),
        ],
        &[insert, update, delete],
    );
}

/// Column by column: each has what the others gave it last, or what it had before.
#[test]
fn a_row_that_both_wrote_goes_back_where_the_command_wrote_it() {
    let first = "UPDATE product SET stock = 1 WHERE id = 1";
    let then =
        "UPDATE product SET stock = stock + 40, price = 3 WHERE id = 1; UPDATE product SET name = 'x' WHERE id = 2";
    stays(
        &[
            Other(first),
            Command("UPDATE product SET price = price * 2, stock = stock + 1, name = CONCAT(name, '!')"),
            Other(then),
            Command("UPDATE product SET name = 'y' WHERE id = 2"),
        ],
        // The command's step between is in what they read: they gave 42.
        &[first, "UPDATE product SET stock = 42, price = 3 WHERE id = 1; UPDATE product SET name = 'x' WHERE id = 2"],
    );
}

#[test]
fn a_row_of_the_command_in_which_others_had_a_hand_is_theirs() {
    let sql = "UPDATE product SET stock = 77 WHERE id = 50; DELETE FROM line WHERE n = 1; INSERT INTO line VALUES (1, 2, 'new')";
    stays(
        &[
            Command(
                "INSERT INTO product (id, name, stock) VALUES (50, 'made', 1); UPDATE line SET what = 'z' WHERE n = 1; DELETE FROM line WHERE n = 2",
            ),
            Other(sql),
        ],
        &[
            "INSERT INTO product (id, name, stock) VALUES (50, 'made', 1); UPDATE product SET stock = 77 WHERE id = 50; DELETE FROM line; INSERT INTO line VALUES (1, 2, 'new')",
        ],
    );
}

#[test]
fn they_stay_where_the_command_adds_to_the_table_or_drops_it() {
    let before = "INSERT INTO orders (product, mood) VALUES (3, 'a'); INSERT INTO line VALUES (5, 5, 'five')";
    let after = "INSERT INTO orders (product, mood) VALUES (2, 'b'); UPDATE orders SET mood = 'c' WHERE id = 1";
    stays(
        &[
            Other(before),
            Command(
                "ALTER TABLE orders ADD COLUMN colour varchar(9) DEFAULT 'red'; DROP TABLE line; CREATE TABLE made (id int)",
            ),
            Other(after),
            Command("UPDATE orders SET colour = 'blue' WHERE id = 2; CREATE INDEX c ON orders (colour)"),
        ],
        &[before, after],
    );
}

#[test]
fn what_a_transaction_of_others_came_to_counts() {
    let sql = "BEGIN; UPDATE product SET stock = 0; ROLLBACK; BEGIN; UPDATE product SET stock = 9 WHERE id = 1; SAVEPOINT a;
        UPDATE product SET stock = 8 WHERE id = 1; ROLLBACK TO a; UPDATE product SET code = 'q' WHERE id = 1; DELETE FROM line WHERE n = 1;
        INSERT INTO line VALUES (1, 1, 'again'); COMMIT";
    stays(&[Command("UPDATE product SET price = 1"), Other(sql)], &[sql]);
}

/// The stock client, which was started before and stays connected.
#[test]
fn a_client_that_was_there_is_known() {
    use std::io::{BufRead as _, Write as _};
    let site = shop();
    let acts = [Command("UPDATE product SET price = 1"), Other("UPDATE product SET stock = 0 WHERE id = 2")];
    let mut client = Server::shared().client("mariadb");
    client.args(["-N", "-n", &site.mariadb("main").unwrap().name]);
    let mut client = client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let mut output = std::io::BufReader::new(output);
    let mut run = move |sql: &str| {
        writeln!(input, "{sql}; SELECT 'done';").unwrap();
        output.read_line(&mut String::new()).unwrap();
    };
    run(THEIRS);
    let pooled = Pooled::by(ask(&site), &acts, run);
    site.deploy(&Pkg::new("p").step(step(&site, &acts))).expect(Status::Done);
    drop(pooled);
    assert!(client.wait().unwrap().success());
    let twin = shop();
    execute(&twin, "UPDATE product SET stock = 0 WHERE id = 2");
    site.undo(None).expect(Status::Done);
    assert_eq!(rows(&site), rows(&twin));
}

#[test]
fn numbers_that_others_drew_are_not_given_twice() {
    let site = shop();
    let other = "INSERT INTO orders (product) VALUES (2); DELETE FROM orders WHERE id = 4";
    deploy(&site, &[Command("INSERT INTO orders (product) VALUES (1)"), Other(other)]).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    execute(&site, "INSERT INTO orders (product) VALUES (3)");
    assert_eq!(site.mariadb("main").unwrap().script("SELECT GROUP_CONCAT(id) FROM orders").trim(), "1,2,5");
}

#[test]
fn a_failed_command_takes_nobody_along() {
    let site = shop();
    let insert = "INSERT INTO orders (product) VALUES (3); UPDATE product SET stock = 0";
    let twin = shop();
    execute(&twin, insert);
    deploy(
        &site,
        &[Command("UPDATE product SET price = 1; CREATE TABLE made (id int)"), Other(insert), Command("fail")],
    )
    .expect(Status::Failed);
    assert_eq!(rows(&site), rows(&twin));
    assert_eq!(left(&site), [""; 0]);
}

/// All that the command did went through a session of before, as by a pooler, or it did nothing: nobody could say.
#[test]
fn where_no_later_session_is_seen_all_counts_as_the_commands() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let done = deploy(&site, &[Other("UPDATE product SET stock = 0, at = at")]);
    let said = warnings(&done);
    done.expect(Status::Done);
    assert!(said.contains("no session that began while the command ran") && said.contains("maintenance:"), "{said}");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// What began later may be the command's own client: it counts as that.
#[test]
fn a_session_that_began_later_counts_as_the_commands() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let done =
        deploy(&site, &[Command("UPDATE product SET stock = 0"), Command("INSERT INTO line VALUES (9, 9, 'late')")]);
    assert_eq!(warnings(&done), "");
    done.expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// A row that the command made, others changed, and the command then took away or gave another key.
#[test]
fn no_row_comes_that_was_never_there() {
    for last in ["DELETE FROM line WHERE n = 9", "UPDATE line SET n = 5 WHERE n = 9", "DROP TABLE line"] {
        let site = shop();
        let before = Fingerprint::of(&site);
        let acts = [
            Command("INSERT INTO line VALUES (9, 9, 'made')"),
            Other("UPDATE line SET what = 'theirs' WHERE n = 9"),
            Command(last),
        ];
        let done = deploy(&site, &acts);
        let said = warnings(&done);
        done.expect(Status::Done);
        assert!(said.contains("line: not told apart, for others changed rows"), "{last}: {said}");
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), last);
    }
}

/// A session of the command's is seen whose first write rolled back.
#[test]
fn a_write_that_rolled_back_is_a_write() {
    let sql = "INSERT INTO line VALUES (5, 5, 'five')";
    stays(
        &[Command("BEGIN; UPDATE product SET price = 5; ROLLBACK; UPDATE product SET price = 1"), Other(sql)],
        &[sql],
    );
}

/// It was there before the command, though not before the copying.
#[test]
fn who_connects_while_the_copy_is_made_is_known() {
    let acts = [Command("UPDATE product SET price = 1"), Other("INSERT INTO line VALUES (5, 5, 'five')")];
    let half = "SELECT IFNULL(SUM(TABLE_NAME LIKE 'backout%$t1'), 0) - IFNULL(SUM(TABLE_NAME LIKE 'backout%$t4'), 0)
        FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    for n in 1.. {
        let site = shop();
        let mut conn = site.mariadb("main").unwrap().connect();
        let name = site.mariadb("main").unwrap().name.clone();
        let (tells, told) = std::sync::mpsc::channel();
        let (hands, mut handed) = (tells, None);
        let playing = play_act(n, move || {
            let is_half = conn.query_first::<i64, _>(half).unwrap() == Some(1);
            hands.send((is_half, Server::shared().connect(&name))).unwrap();
        });
        let (reports, reported) = std::sync::mpsc::channel();
        let pooled = Pooled::by(ask(&site), &acts, move |sql| {
            let (is_half, conn) = handed.get_or_insert_with(|| told.recv_timeout(Duration::from_secs(60)).unwrap());
            conn.query_drop(sql).unwrap();
            reports.send(*is_half).unwrap();
        });
        let done = site.deploy(&Pkg::new("p").step(step(&site, &acts)));
        drop((playing, pooled));
        done.expect(Status::Done);
        if !reported.recv().unwrap() {
            continue;
        }
        let twin = shop();
        execute(&twin, "INSERT INTO line VALUES (5, 5, 'five')");
        site.undo(None).expect(Status::Done);
        assert_eq!(rows(&site), rows(&twin), "{n}");
        break;
    }
}

/// Each is named, counts as the command's, and no statement of others fails.
#[test]
fn what_is_not_told_apart_is_named() {
    for (command, other, why) in [
        ("DO 1", "INSERT INTO plain VALUES ('a')", "plain: not told apart, for it has no key"),
        ("DO 1", "INSERT INTO old VALUES (7)", "old: not told apart, for its engine has no transactions"),
        ("DO 1", "DELETE FROM tree WHERE id = 1", "leaf: not told apart, for foreign keys may have taken rows along"),
        (
            "ALTER TABLE line CHANGE what label varchar(9)",
            "INSERT INTO line VALUES (9, 9, 'x')",
            "line: not told apart, for columns of it changed",
        ),
        (
            "CREATE TABLE o LIKE line; DROP TABLE line; RENAME TABLE o TO line",
            "INSERT INTO line VALUES (9, 9, 'x')",
            "line: not told apart, for another table took its place",
        ),
        (
            "UPDATE line SET n = 7 WHERE n = 2",
            "UPDATE line SET what = 'moved' WHERE n = 7",
            "line: not told apart, for others changed rows to which the command may have given another key",
        ),
        (
            "UPDATE line SET n = 7 WHERE n = 2",
            "DELETE FROM line WHERE n = 7",
            "line: not told apart, for others changed rows to which the command may have given another key",
        ),
        (
            "DO 1",
            "INSERT INTO twig VALUES (9, 1); DELETE FROM bare WHERE v = 1",
            "twig: not told apart, for foreign keys may have taken rows along",
        ),
        (
            "UPDATE product SET code = 'z' WHERE id = 1",
            "UPDATE product SET code = 'x' WHERE id = 2",
            "product: not told apart, for what others wrote takes a value",
        ),
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        let done = deploy(&site, &[Command("UPDATE product SET stock = 0, at = at"), Command(command), Other(other)]);
        let said = warnings(&done);
        done.expect(Status::Done);
        assert!(said.contains(why), "{other}: {said}");
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), other);
        assert!(left(&site).iter().all(|name| !name.contains("$l")), "{:?}", left(&site));
    }
}

/// A server that was started again has forgotten who was there; a new session has the number of an old one.
#[test]
fn after_a_restart_of_the_server_nobody_was_there() {
    let site = shop();
    let before = Fingerprint::of(&site);
    // As a server does to a table in memory.
    let forget = "SET @t = (SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE '%$known');
        EXECUTE IMMEDIATE CONCAT('DELETE FROM `', @t, '`')";
    let acts = [
        Command("UPDATE product SET stock = 0, at = at"),
        Other("INSERT INTO line VALUES (9, 9, 'x')"),
        Command(forget),
        Other("INSERT INTO line VALUES (9, 10, 'x')"),
    ];
    let done = deploy(&site, &acts);
    let said = warnings(&done);
    done.expect(Status::Done);
    assert!(said.contains("the server was started again"), "{said}");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn in_the_maintenance_window_all_counts_and_nobody_listens() {
    let site = TestSite::builder().mariadb("main", Server::shared(), SHOP).maintenance("true", "true").build();
    let before = Fingerprint::of(&site);
    let looks =
        "CREATE TABLE seen AS SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()";
    let done = deploy(&site, &[Command(looks), Other("UPDATE product SET stock = 0, at = at")]);
    assert_eq!(warnings(&done), "");
    done.expect(Status::Done);
    assert_eq!(site.mariadb("main").unwrap().script("SELECT COUNT(*) FROM seen").trim(), "0");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// Without PROCESS nobody's sessions are seen but one's own, and none need be; without TRIGGER it is said.
#[test]
fn a_plain_account_tells_apart_what_it_may() {
    for (grant, told) in [
        ("ALL", true),
        (
            "SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE TEMPORARY TABLES, DROP, ALTER, LOCK TABLES, INDEX, REFERENCES",
            false,
        ),
    ] {
        let user = format!("others{}_{told}", std::process::id());
        let site = TestSite::builder().mariadb_as("main", Server::shared(), SHOP, &user).build();
        let name = &site.mariadb("main").unwrap().name;
        execute(&site, &format!("CREATE USER {user}@localhost; GRANT {grant} ON {name}.* TO {user}@localhost"));
        let twin = shop();
        let insert = "INSERT INTO line VALUES (5, 5, 'five')";
        if told {
            execute(&twin, insert);
        }
        let done = deploy(&site, &[Command("UPDATE line SET what = 'q'"), Other(insert)]);
        let said = warnings(&done);
        done.expect(Status::Done);
        assert!(
            said.contains(if told {
                "line: 1 row (orders=5, n=5), by root@localhost"
            } else {
                "may not make triggers"
            }),
            "{said}"
        );
        site.undo(None).expect(Status::Done);
        assert_eq!(rows(&site), rows(&twin), "{grant}");
        execute(&site, &format!("DROP USER {user}@localhost"));
    }
}

/// It dies while the command is at work, or right after what others did was announced: `resume` takes back the command alone.
#[test]
fn a_run_that_dies_takes_nobody_along() {
    let insert = "INSERT INTO orders (product) VALUES (3); UPDATE product SET stock = 0 WHERE id = 2";
    let twin = shop();
    execute(&twin, insert);
    let wanted = rows(&twin);
    let acts = [Command("UPDATE product SET price = 1; ALTER TABLE product ADD COLUMN colour text"), Other(insert)];
    let run = |site: &TestSite| deploy(site, &acts);
    let counted = {
        let site = shop();
        let playing = play(Fault::None, false);
        run(&site).expect(Status::Done);
        playing.seen().len()
    };
    for n in 1..=counted {
        let site = shop();
        let before = rows(&site);
        let playing = play(Fault::CrashAt(n), false);
        drop(run(&site));
        assert!(playing.struck(), "{n} of {counted}");
        drop(playing);
        let wrote = Path::new(&format!("{}.1.done", ask(&site).display())).exists();
        site.bury_the_dead();
        site.resume().result.unwrap();
        let now = rows(&site);
        let colour = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_NAME = 'colour' AND TABLE_NAME = 'product'";
        let stands = site.mariadb("main").unwrap().script(colour).trim() == "1";
        assert!(stands || now == if wrote { wanted.as_str() } else { before.as_str() }, "{n} of {counted}: {now}");
        assert!(left(&site).iter().all(|name| !name.contains("$l")), "{n} of {counted}: {:?}", left(&site));
        if stands {
            site.undo(None).expect(Status::Done);
            assert_eq!(rows(&site), wanted, "{n} of {counted}");
        }
        assert_eq!(left(&site), [""; 0], "{n} of {counted}");
    }
}

/// At whatever moment somebody writes who was there: before the copy, while the command is compared, afterwards.
#[test]
fn no_moment_takes_anybody_along() {
    let insert = "INSERT INTO line VALUES (5, 5, 'five')";
    let package =
        |site: &TestSite| Pkg::new("p").step(step(site, &[Command("UPDATE line SET what = 'q' WHERE n = 1")]));
    let counted = {
        let site = shop();
        let playing = play(Fault::None, false);
        site.deploy(&package(&site)).expect(Status::Done);
        playing.seen().len()
    };
    let mut wrote = 0;
    for n in (1..=counted).step_by(2) {
        let (site, twin) = (shop(), shop());
        let mut conn = site.mariadb("main").unwrap().connect();
        let (tells, told) = std::sync::mpsc::channel();
        let playing = play_act(n, move || {
            // Where the tool has everybody wait, it waits for nobody here: they share a thread.
            conn.query_drop("SET lock_wait_timeout = 1").unwrap();
            tells.send(conn.query_drop(insert).is_ok()).unwrap();
        });
        site.deploy(&package(&site)).expect(Status::Done);
        drop(playing);
        if told.recv().unwrap() {
            execute(&twin, insert);
            wrote += 1;
        }
        site.undo(None).expect(Status::Done);
        assert_eq!(rows(&site), rows(&twin), "{n} of {counted}");
    }
    assert!(wrote > counted / 4, "{wrote} of {counted}");
}
