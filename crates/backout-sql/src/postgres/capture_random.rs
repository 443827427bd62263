//! Random statements while others write, lock and vacuum the same rows: what is captured is what row triggers saw, no
//! row more and no row less.
//!
//! Which ones, and how to play others: `backout_testkit::seeds`.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backout_testkit::postgres::{Database, Server};
use backout_testkit::seeds::seeds;
use fastrand::Rng;
use postgres::Client;

use super::by_key::ByKey;
use super::capture::{Capture, Sessions};
use super::session::Session;
use super::stream::{Event, Reader, StreamError};

const SETUP: &str = "
    CREATE SCHEMA app; CREATE SCHEMA cap; CREATE SEQUENCE cap.uid;
    CREATE TABLE app.p (id int PRIMARY KEY, v int, uid bigint DEFAULT nextval('cap.uid'));
    CREATE TABLE app.c (id int PRIMARY KEY, pid int REFERENCES app.p ON DELETE CASCADE ON UPDATE CASCADE, v int, uid bigint DEFAULT nextval('cap.uid'));
    CREATE TABLE app.pt (id int, k int, v int, uid bigint DEFAULT nextval('cap.uid'), PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
    CREATE TABLE app.pt1 PARTITION OF app.pt FOR VALUES FROM (0) TO (40);
    CREATE TABLE app.pt2 PARTITION OF app.pt FOR VALUES FROM (40) TO (100);
    CREATE TABLE app.par (id int, v int, uid bigint DEFAULT nextval('cap.uid'));
    CREATE TABLE app.kid (extra text) INHERITS (app.par);
    CREATE TABLE app.nopk (a int, b int, uid bigint DEFAULT nextval('cap.uid'));
    CREATE TABLE cap.log (seq bigserial PRIMARY KEY, tx xid8 DEFAULT pg_current_xact_id(), rel text, uid bigint, o text, n text);
    CREATE INDEX ON cap.log (tx);
    CREATE FUNCTION cap.line(json) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT string_agg(coalesce(value, '\\N'), E'\\t' ORDER BY ordinality) FROM json_each_text($1) WITH ORDINALITY $$;
    CREATE FUNCTION cap.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF tg_op = 'INSERT' THEN INSERT INTO cap.log (rel, uid, n) VALUES (tg_table_name, new.uid, cap.line(row_to_json(new)));
        ELSIF tg_op = 'DELETE' THEN INSERT INTO cap.log (rel, uid, o) VALUES (tg_table_name, old.uid, cap.line(row_to_json(old)));
        ELSE INSERT INTO cap.log (rel, uid, o, n) VALUES (tg_table_name, new.uid, cap.line(row_to_json(old)), cap.line(row_to_json(new)));
        END IF; RETURN NULL; END $$;
    INSERT INTO app.p SELECT g, 0 FROM generate_series(1, 240) AS g;
    INSERT INTO app.c SELECT g, 1 + g % 240, 0 FROM generate_series(1, 400) AS g;
    INSERT INTO app.pt SELECT g, g % 100, 0 FROM generate_series(1, 240) AS g;
    INSERT INTO app.par SELECT g, 0 FROM generate_series(1, 240) AS g;
    INSERT INTO app.kid SELECT g, 0, nextval('cap.uid'), 'e' FROM generate_series(1, 240) AS g;
    INSERT INTO app.nopk SELECT g % 50, g FROM generate_series(1, 300) AS g;
    DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['p', 'c', 'pt1', 'pt2', 'par', 'kid', 'nopk'] LOOP
        EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON app.%I FOR EACH ROW EXECUTE FUNCTION cap.note()', t);
        EXECUTE format('ALTER TABLE app.%I SET (autovacuum_enabled = off)', t); END LOOP; END $$;";

fn statement(rng: &mut Rng, span: u32) -> String {
    let low = rng.u32(1..=200);
    let high = low + rng.u32(0..=span);
    let (x, k) = (rng.u32(1..=240), rng.u32(..100));
    let range = format!("id BETWEEN {low} AND {high}");
    if rng.u8(..4) == 0 {
        return match rng.u8(..5) {
            0 => format!("SELECT 1 FROM app.p WHERE {range} FOR KEY SHARE"),
            1 => format!("SELECT 1 FROM app.p WHERE id = {x} FOR UPDATE"),
            2 => format!("SELECT 1 FROM app.pt WHERE {range} FOR SHARE"),
            3 => format!("SELECT 1 FROM app.nopk WHERE a = {} FOR NO KEY UPDATE", x % 50),
            _ => format!("SELECT 1 FROM app.c WHERE {range} FOR KEY SHARE"),
        };
    }
    match rng.u8(..23) {
        0 => format!("UPDATE app.p SET v = v + 1 WHERE {range}"),
        1 => format!("UPDATE app.p SET id = id + 1000 WHERE id = {x}"),
        2 => format!("UPDATE app.p SET id = id - 1000 WHERE id = 1000 + {x}"),
        3 => format!("DELETE FROM app.p WHERE id = {x}"),
        4 => format!("INSERT INTO app.p VALUES ({x}, 0) ON CONFLICT (id) DO UPDATE SET v = app.p.v + 10"),
        5 => format!("INSERT INTO app.p VALUES ({x}, 0) ON CONFLICT DO NOTHING"),
        6 => format!(
            "INSERT INTO app.c SELECT {x} + g * 300, (SELECT id FROM app.p ORDER BY random() LIMIT 1), 1
             FROM generate_series(0, 2) AS g ON CONFLICT (id) DO UPDATE SET v = app.c.v + 1"
        ),
        7 => format!("UPDATE app.c SET v = v + 1 WHERE {range}"),
        8 => format!("DELETE FROM app.c WHERE id = {x}"),
        9 => format!("UPDATE app.c SET pid = (SELECT id FROM app.p ORDER BY random() LIMIT 1) WHERE id = {x}"),
        10 => format!("UPDATE app.pt SET k = (k + 37) % 100 WHERE id = {x}"),
        11 => format!("UPDATE app.pt SET v = v + 1 WHERE {range}"),
        12 => format!("DELETE FROM app.pt WHERE id = {x}"),
        13 => format!(
            "INSERT INTO app.pt (id, k, v) VALUES ({x}, {k}, 0) ON CONFLICT (id, k) DO UPDATE SET v = app.pt.v + 5"
        ),
        14 => format!("UPDATE app.par SET v = v + 1 WHERE {range}"),
        15 => format!("DELETE FROM app.par WHERE id = {x}"),
        16 => format!("INSERT INTO app.par (id, v) VALUES ({x}, 1)"),
        17 => format!("INSERT INTO app.kid (id, v, extra) VALUES ({x}, 1, 'e')"),
        18 => format!("UPDATE app.kid SET extra = extra || 'x' WHERE id = {x}"),
        19 => format!("UPDATE app.nopk SET b = b + 1 WHERE a = {}", x % 50),
        20 => format!("DELETE FROM app.nopk WHERE b % 97 = {}", x % 97),
        21 => format!("INSERT INTO app.nopk SELECT {}, g FROM generate_series(1, 3) AS g", x % 50),
        _ => format!("UPDATE app.nopk SET b = b WHERE a = {}", x % 50),
    }
}

/// Writes, locks and vacuums until it is told to stop; how many transactions it committed.
fn meddle(mut client: Client, seed: u64, stop: &AtomicBool, committed: &AtomicU64) {
    let mut rng = Rng::with_seed(seed);
    client.batch_execute("SET lock_timeout = '150ms'; SET statement_timeout = '3s'").unwrap();
    while !stop.load(Ordering::Relaxed) {
        let done = if rng.u8(..30) == 0 {
            let table = ["app.p", "app.pt1", "app.nopk", "app.c", "app.kid"][rng.usize(..5)];
            client.batch_execute(&format!("VACUUM (FREEZE) {table}"))
        } else {
            let mut sql = vec!["BEGIN".to_owned()];
            for _ in 0..rng.u8(1..=4) {
                if rng.u8(..3) == 0 {
                    sql.push("SAVEPOINT s".to_owned());
                }
                sql.push(statement(&mut rng, 3));
                if rng.u8(..10) == 0 {
                    sql.push("SELECT pg_sleep(0.01)".to_owned());
                }
            }
            sql.push(if rng.u8(..7) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
            client.batch_execute(&sql.join(";")).inspect(|()| {
                committed.fetch_add(1, Ordering::Relaxed);
            })
        };
        if done.is_err() {
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

/// Runs one statement and notes the keys of what it changes; false where it failed, and all was rolled back.
fn run_by_key(a: &mut Session, by_key: &mut ByKey, sql: &str) -> bool {
    match by_key.run(a, sql) {
        Ok(Some(_)) => true,
        Ok(None) => a.run(sql).is_ok(),
        Err(_) => false,
    }
}

/// A few plain statements, among them such as change the same rows and such as are taken back.
fn deploy_by_key(a: &mut Session, rng: &mut Rng, by_key: &mut ByKey) -> bool {
    for _ in 0..rng.u8(1..5) {
        let way = rng.u8(..8);
        if way < 2 {
            a.run("SAVEPOINT q").unwrap();
        }
        let done = run_by_key(a, by_key, &statement(rng, 6));
        match (way < 2, done && way > 0) {
            (true, true) => a.run("RELEASE q").unwrap(),
            (true, false) => a.run("ROLLBACK TO q; RELEASE q").unwrap(),
            (false, _) if !done => return false,
            _ => {}
        }
    }
    a.run("SET CONSTRAINTS ALL IMMEDIATE").is_ok()
}

/// Runs the statements of one deployment; false where one of them failed for good.
fn deploy(a: &mut Session, rng: &mut Rng) -> bool {
    let plain = rng.u8(..3) == 0;
    for _ in 0..rng.u8(5..30) {
        let (one, two) = (statement(rng, 12), statement(rng, 6));
        let within = |sql: &str| {
            if let Some(rest) = sql.strip_prefix("SELECT") { format!("PERFORM{rest}") } else { sql.to_owned() }
        };
        let way = rng.u8(..10);
        let sql = if plain && way < 5 {
            one
        } else if way < 7 {
            // In a savepoint that is released or rolled back, with another in it.
            let inner = if rng.u8(..3) == 0 {
                format!("SAVEPOINT r; {two}; {} r;", ["RELEASE", "ROLLBACK TO"][rng.usize(..2)])
            } else {
                String::new()
            };
            let end = ["RELEASE q", "ROLLBACK TO q; RELEASE q"][usize::from(rng.u8(..5) == 0)];
            let failed = a.run(&format!("SAVEPOINT q; {one}; {inner} {end}")).is_err();
            if failed {
                a.run("ROLLBACK TO q; RELEASE q").unwrap();
            }
            continue;
        } else if way == 9 {
            // More subtransactions than a backend keeps in shared memory.
            "DO $$ BEGIN FOR i IN 1..90 LOOP BEGIN UPDATE app.nopk SET b = b + 1 WHERE a = i % 50 AND b % 7 = i % 7;
             EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$"
                .to_owned()
        } else {
            let boom = ["", "PERFORM 1 / 0;"][rng.usize(..2)];
            format!(
                "DO $$ BEGIN BEGIN {}; {boom} EXCEPTION WHEN OTHERS THEN BEGIN {}; EXCEPTION WHEN OTHERS THEN NULL; END; END; END $$",
                within(&one),
                within(&two)
            )
        };
        if a.run(&sql).is_err() {
            return false;
        }
    }
    a.run("SET CONSTRAINTS ALL IMMEDIATE").is_ok()
}

type Rows = BTreeMap<String, u64>;

/// What the triggers saw: each row's first image of before and last of after.
fn seen(a: &mut Session) -> (Rows, Rows) {
    let rows =
        a.rows("SELECT rel, uid, o, n FROM cap.log WHERE tx = pg_catalog.pg_current_xact_id() ORDER BY seq").unwrap();
    let mut all: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    for mut row in rows {
        let rel = row[0].take().unwrap();
        let image = |text: Option<String>| text.map(|text| format!("{rel}: {text}"));
        let (old, new) = (image(row[2].take()), image(row[3].take()));
        all.entry(row[1].take().unwrap()).and_modify(|both| both.1 = new.clone()).or_insert((old, new));
    }
    let count = |images: Vec<String>| {
        let mut rows = Rows::new();
        images.into_iter().for_each(|image| *rows.entry(image).or_default() += 1);
        rows
    };
    let (before, after): (Vec<_>, Vec<_>) = all.into_values().unzip();
    (count(before.into_iter().flatten().collect()), count(after.into_iter().flatten().collect()))
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the images hold.
fn held(bytes: Vec<u8>) -> (Rows, Rows) {
    let mut images = Cursor::new(bytes);
    let mut reader = Reader::open(&mut images).unwrap();
    let (mut all_before, mut all_after) = (Rows::new(), Rows::new());
    for event in reader.index.events.clone() {
        let Event::Rows { table, before, after } = event else { continue };
        let table = reader.index.tables[table as usize].clone();
        if table.schema != "app" {
            continue;
        }
        for (span, rows) in [(before, &mut all_before), (after, &mut all_after)] {
            reader
                .rows::<StreamError>(span, &mut |line| {
                    let image = format!("{}: {}", table.name, String::from_utf8_lossy(line));
                    *rows.entry(image).or_default() += 1;
                    Ok(())
                })
                .unwrap();
        }
    }
    (all_before, all_after)
}

/// One deployment; how many rows were captured, or none where it failed by itself. `enough` counts as [`ByKey::enough`].
fn run(a: &mut Session, b: &mut Session, seed: u64, enough: &mut [u64; 2]) -> Option<u64> {
    let mut rng = Rng::with_seed(seed);
    let out = Shared::default();
    let mut capture = Capture::new(Box::new(out.clone()), None).unwrap();
    a.run(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"][usize::from(rng.u8(..8) == 0)]).unwrap();
    capture.begin(a).unwrap();
    capture.by_key.any = rng.bool();
    let done = if capture.by_key.any { deploy_by_key(a, &mut rng, &mut capture.by_key) } else { deploy(a, &mut rng) };
    if !done {
        a.roll_back().unwrap();
        return None;
    }
    capture.flush(&mut Sessions { a, b }, None).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    if capture.by_key.any {
        enough.iter_mut().zip(capture.by_key.enough).for_each(|(all, one)| *all += one);
    }
    let expected = seen(a);
    a.run(if rng.u8(..8) == 0 { "ROLLBACK" } else { "COMMIT" }).unwrap();
    let unsealed = capture.unsealed().unwrap();
    let index = unsealed.index.clone();
    unsealed.seal().unwrap();
    let bytes = out.0.lock().unwrap().clone();
    let found = held(bytes);
    for (found, expected, side) in [(found.0, expected.0, "before"), (found.1, expected.1, "after")] {
        let missed: Vec<_> = expected.iter().filter(|(image, count)| found.get(*image) != Some(*count)).collect();
        let spurious: Vec<_> = found.iter().filter(|(image, count)| expected.get(*image) != Some(*count)).collect();
        assert!(
            missed.is_empty() && spurious.is_empty(),
            "BACKOUT_SEED={seed} {side}: missed {missed:#?}, spurious {spurious:#?}"
        );
    }
    Some(index.rows)
}

#[test]
fn what_is_captured_is_what_row_triggers_saw() {
    let database: Database<'_> = Server::shared().database();
    database.connect().batch_execute(SETUP).unwrap();
    let (stop, committed) = (AtomicBool::new(false), AtomicU64::new(0));
    let seeds = seeds(60);
    let (first, runs) = (seeds.start, seeds.end - seeds.start);
    let captured = std::thread::scope(|scope| {
        for writer in 0..3 {
            let (client, stop, committed) = (database.connect(), &stop, &committed);
            scope.spawn(move || meddle(client, first.wrapping_add(writer), stop, committed));
        }
        let done = std::panic::catch_unwind(|| {
            let session = || {
                let mut session = Session::new(database.connect()).unwrap();
                session.stay_neutral().unwrap();
                session
            };
            let (mut a, mut b) = (session(), session());
            let (mut good, mut captured, mut seed, mut enough) = (0, 0, first, [0, 0]);
            while good < runs {
                if let Some(rows) = run(&mut a, &mut b, seed, &mut enough) {
                    good += 1;
                    captured += rows;
                }
                seed = seed.wrapping_add(1);
            }
            assert!(
                enough.iter().all(|times| times * 10 > runs),
                "by keys: enough {}, not enough {}",
                enough[0],
                enough[1]
            );
            captured
        });
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let committed = committed.load(Ordering::Relaxed);
    assert!(captured > runs && committed > runs, "{captured} rows beside {committed} transactions prove nothing");
}
