//! What the crash suites play on: a site and a package with every kind of step, statement and file; a deployment, an
//! undo and a redo of it; and the judge of what a death or a fault left of them.

use backout_engine::outcome::Status;
use backout_model::state::DeploymentState;
use serde_json::json;

use crate::database::integrity;
use crate::faults::{Fault, play};
use crate::fingerprint::Fingerprint;
use crate::package::{Pkg, child, delete, files, run, sql, sql_is};
use crate::site::{Done, TestSite, memory};
use crate::tree::{Node, Tree};

const MAIN: &str = "
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT UNIQUE, price INTEGER NOT NULL, stock INTEGER);
    CREATE INDEX by_price ON product (price);
    INSERT INTO product VALUES (1, 'coat', 100, 5), (2, 'hat', 20, 9), (3, 'scarf', 15, NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, product INTEGER REFERENCES product (id), amount INTEGER);
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    INSERT INTO settings VALUES ('schema', '41'), ('theme', 'autumn');
    CREATE TABLE audit (what, price);
    CREATE TRIGGER watch AFTER UPDATE ON product BEGIN INSERT INTO audit VALUES (new.name, new.price); END;
    INSERT INTO audit VALUES ('coat', 90), ('coat', 90);
    CREATE TABLE gone (a INTEGER UNIQUE, b TEXT);
    CREATE INDEX gone_b ON gone (b);
    INSERT INTO gone VALUES (1, 'one'), (2, x'0102'), (NULL, 3.5);
    CREATE TABLE rebuilt (id INTEGER PRIMARY KEY, title TEXT, worn);
    CREATE INDEX rebuilt_title ON rebuilt (title);
    CREATE TRIGGER rebuilt_watch AFTER DELETE ON rebuilt BEGIN INSERT INTO audit VALUES ('rebuilt', old.id); END;
    INSERT INTO rebuilt VALUES (3, 'three', 1), (7, 'seven', NULL);
    CREATE TABLE wide (id INTEGER PRIMARY KEY, keep_me, drop_me TEXT);
    INSERT INTO wide VALUES (1, 'a', 'x'), (2, 'b', 'y');
    CREATE TABLE bulk (n INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 60)
        INSERT INTO bulk SELECT n, 'row ' || n FROM counted;
    CREATE VIEW cheap AS SELECT * FROM product WHERE price < 50;
";
const LOG: &str = "CREATE TABLE line (text); INSERT INTO line VALUES ('first');";

/// Two databases and two roots with what a real site has.
pub fn site() -> TestSite {
    let web = Tree::new()
        .file("index.php", "<?php // autumn")
        .file("theme/style.css", "body {}")
        .file("theme/old.css", "old {}")
        .node("bin/tool", Node::File { content: b"#!/bin/sh".to_vec(), mode: 0o755 })
        .same("theme/twin.css", "theme/style.css")
        .link("current", "theme")
        .link("stale", "nowhere")
        .dir("empty")
        .file("old/a.txt", "a")
        .file("old/deep/b.txt", "b")
        .file("uploads/photo.jpg", "a photo");
    let assets = Tree::new().file("one.js", "1").file("two.js", "2").file("lib/three.js", "3").dir("lib/empty");
    TestSite::builder()
        .database("main", MAIN)
        .database("log", LOG)
        .root("web", web)
        .keep(&["uploads"])
        .root("assets", assets)
        .maintenance("touch closed", "rm -f closed")
        .below(memory())
        .build()
}

/// Two levels of children; every kind of step, of statement and of change of a file.
pub fn package() -> Pkg {
    let flag = |name: &str| {
        run(&format!("touch \"$BACKOUT_ROOT_WEB/../{name}\""), Some(&format!("rm -f \"$BACKOUT_ROOT_WEB/../{name}\"")))
    };
    let images = Pkg::new("images")
        .step(
            sql("CREATE TABLE rebuilt_new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, size INTEGER DEFAULT 1);
                 INSERT INTO rebuilt_new (id, title) SELECT id, title FROM rebuilt;
                 DROP TABLE rebuilt;
                 ALTER TABLE rebuilt_new RENAME TO rebuilt;
                 CREATE INDEX rebuilt_title ON rebuilt (title);
                 UPDATE rebuilt SET size = id * 2;")
            .with("database", "main"),
        )
        .step(flag("flag-images"))
        .step(delete(["theme/old.css", "old/"]).with("root", "web"));
    let content = Pkg::new("content")
        .before(json!({ "sql": "SELECT count(*) FROM extra", "database": "main", "equals": "1" }))
        .step(
            sql(
                "UPDATE product SET price = price + 1;
                 INSERT INTO product VALUES (4, 'sledge', 80, 2);
                 INSERT INTO orders (product, amount) SELECT id, 1 FROM product;
                 DELETE FROM audit WHERE price = 90;
                 REPLACE INTO settings VALUES ('theme', 'winter');
                 INSERT INTO settings VALUES ('schema', '42') ON CONFLICT (name) DO UPDATE SET value = excluded.value;",
            )
            .with("database", "main"),
        )
        .step(
            files(Tree::new().file("one.js", "one").file("lib/four.js", "4").dir("made"))
                .with("root", "assets")
                .with("exact", true),
        )
        .step(child(images))
        .step(sql("INSERT INTO line VALUES ('content')").with("database", "log"));
    let page = Tree::new()
        .file("index.php", "<?php // winter")
        .node("bin/tool", Node::File { content: b"#!/bin/bash".to_vec(), mode: 0o700 })
        .file("winter/a.txt", "a")
        .file("winter/deep/b.txt", "b")
        .same("winter/deep/c.txt", "winter/deep/b.txt")
        .link("current", "winter")
        .dir("winter/empty");
    Pkg::new("all")
        .step(
            sql("CREATE TABLE extra (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
                 INSERT INTO extra (note) VALUES ('made');
                 CREATE INDEX extra_note ON extra (note);
                 ALTER TABLE wide ADD COLUMN added INTEGER DEFAULT 7;
                 UPDATE wide SET added = 8 WHERE id = 2;
                 CREATE TRIGGER extra_watch AFTER INSERT ON extra BEGIN UPDATE wide SET added = new.id; END;
                 INSERT INTO extra (note) VALUES ('again');
                 DELETE FROM extra WHERE id = 1;")
            .with("database", "main"),
        )
        .step(files(page).with("root", "web"))
        .step(child(content))
        .step(
            sql("DROP TABLE gone; DROP VIEW cheap; DROP INDEX by_price; DELETE FROM bulk;
                 ALTER TABLE wide DROP COLUMN drop_me; DROP TRIGGER watch; PRAGMA user_version = 42;")
            .with("database", "main"),
        )
        .step(flag("flag-all"))
        .step(sql("UPDATE line SET text = 'last' WHERE text = 'first'").with("database", "log"))
        .step(delete(["stale", "empty/"]).with("root", "web"))
        .after(with_database(sql_is("SELECT count(*) FROM bulk", 0)))
        .after(json!({ "file": "winter/a.txt", "root": "web", "contains": "a" }))
        .finally("touch \"$BACKOUT_ROOT_WEB/../cache\"")
}

fn with_database(mut check: serde_json::Value) -> serde_json::Value {
    check["database"] = "main".into();
    check
}

/// What is played; all three begin with a site that is ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Deploy,
    Undo,
    Redo,
}

/// A site ready for the act, and its two states; that after the deployment is known only once it was there.
pub struct Stage {
    pub site: TestSite,
    pub original: Fingerprint,
    pub deployed: Option<Fingerprint>,
}

impl Act {
    pub const ALL: [Act; 3] = [Act::Deploy, Act::Undo, Act::Redo];

    /// A site that is ready for the act.
    pub fn stage(self) -> Stage {
        let playing = play(Fault::None, false);
        let site = site();
        let original = Fingerprint::of(&site);
        let mut deployed = None;
        if self != Act::Deploy {
            site.deploy(&package()).expect(Status::Done);
            deployed = Some(Fingerprint::of(&site));
        }
        if self == Act::Redo {
            site.undo(None).expect(Status::Done);
            original.assert_same(&Fingerprint::of(&site), "undone");
        }
        drop(playing);
        Stage { site, original, deployed }
    }

    pub fn play(self, site: &TestSite) -> Done {
        match self {
            Act::Deploy => site.deploy(&package()),
            Act::Undo => site.undo(None),
            Act::Redo => site.redo(),
        }
    }
}

/// Which of its two states a site is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Original,
    Deployed,
}

impl Stage {
    /// The state of the site, exactly, or what is wrong with it.
    pub fn state(&self, twin: &Fingerprint) -> Result<State, String> {
        let now = Fingerprint::of(&self.site);
        let original = self.original.differences(&now);
        let deployed = match &self.deployed {
            Some(deployed) => deployed.differences(&now),
            None => twin.differences(&now.without_directory_times()),
        };
        let state = match (original.is_empty(), deployed.is_empty()) {
            (true, _) => State::Original,
            (_, true) => State::Deployed,
            _ => {
                let fewer = if original.len() <= deployed.len() { original } else { deployed };
                return Err(format!("neither as before nor as after:\n    {}", fewer.join("\n    ")));
            }
        };
        for name in ["flag-all", "flag-images"] {
            if self.site.dir().join(name).exists() != (state == State::Deployed) {
                return Err(format!("{state:?}, but {name} is as in the other state"));
            }
        }
        if self.site.dir().join("closed").exists() {
            return Err("the site is still in maintenance mode".to_owned());
        }
        Ok(state)
    }

    /// Nothing is in doubt, the journal holds together, and the site can go on from where it is, there and back.
    pub fn goes_on(&self, state: State, twin: &Fingerprint) -> Result<(), String> {
        let playing = play(Fault::None, false);
        let result = self.goes_on_now(state, twin);
        drop(playing);
        result
    }

    fn goes_on_now(&self, state: State, twin: &Fingerprint) -> Result<(), String> {
        let open: Vec<DeploymentState> =
            self.site.journal().deployments().unwrap().iter().map(|row| row.state).collect();
        if open.iter().any(|state| state.is_underway() || *state == DeploymentState::NeedsHand) {
            return Err(format!("the history says {open:?}"));
        }
        if let Some(finding) = self.site.grave().into_iter().next() {
            return Err(format!("verify: {}: {}", finding.target, finding.what));
        }
        for name in ["main", "log"] {
            if let Some(line) = integrity(&self.site.database(name)).first() {
                return Err(format!("integrity of {name}: {line}"));
            }
        }
        let steps: [(&str, State); 2] = match state {
            State::Original if self.deployed.is_none() => [("deploy", State::Deployed), ("undo", State::Original)],
            State::Original => [("redo", State::Deployed), ("undo", State::Original)],
            State::Deployed => [("undo", State::Original), ("redo", State::Deployed)],
        };
        for (command, expected) in steps {
            let done = match command {
                "deploy" => self.site.deploy(&package()),
                "undo" => self.site.undo(None),
                _ => self.site.redo(),
            };
            if done.status() != Status::Done {
                return Err(format!("afterwards, {command}: {done:?}"));
            }
            let came = self.state(twin).map_err(|what| format!("afterwards, {command}: {what}"))?;
            if came != expected {
                return Err(format!("afterwards, {command}: {came:?}"));
            }
        }
        Ok(())
    }

    /// Lets a later session resume, as often as the recovery itself dies.
    pub fn resume(&self, deaths: &[usize]) -> Result<(), String> {
        for death in deaths {
            self.site.bury_the_dead();
            let playing = play(Fault::CrashAt(*death), false);
            let done = self.site.resume();
            let struck = playing.struck();
            drop(playing);
            if !struck {
                return no_hand(&done);
            }
        }
        self.site.bury_the_dead();
        let playing = play(Fault::None, false);
        let done = self.site.resume();
        drop(playing);
        no_hand(&done)
    }
}

fn no_hand(done: &Done<Option<backout_engine::outcome::Outcome>>) -> Result<(), String> {
    match &done.result {
        Ok(None) => Ok(()),
        Ok(Some(outcome)) if outcome.status != Status::NeedsHand => Ok(()),
        Ok(Some(outcome)) => Err(format!("resume: {outcome:?}")),
        Err(error) => Err(format!("resume: {}", error.causes().join(": "))),
    }
}

impl Act {
    /// The states before and after it.
    pub fn ends(self) -> (State, State) {
        match self {
            Act::Undo => (State::Deployed, State::Original),
            Act::Deploy | Act::Redo => (State::Original, State::Deployed),
        }
    }

    /// The site after a deployment, without the times of its directories: what [`Stage::state`] compares with where
    /// the stage itself was never deployed to.
    pub fn twin() -> Fingerprint {
        let stage = Act::Undo.stage();
        stage.deployed.unwrap_or(stage.original).without_directory_times()
    }
}
