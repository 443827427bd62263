//! The stage of captured commands: the site of SQLite, and commands that change rows, definitions and files there, in a
//! package and in a child of it, between steps of other kinds.

use super::flag;
use crate::package::{Kind, Pkg, captured, captured_sql, child, sql};

/// Commands that do everything; with the same times whenever they run.
pub fn package() -> Pkg {
    let files = captured(
        "cd \"$BACKOUT_ROOT_WEB\"; echo more >> index.php; echo x > made.txt; rm -r old current; mkdir -p a/b current
         ln -s ../index.php a/b/link; chmod 700 theme; mv theme/old.css a/
         cd \"$BACKOUT_ROOT_ASSETS\"; printf 1 > one.js; rm two.js; echo 4 > lib/four.js
         find \"$BACKOUT_ROOT_WEB\" \"$BACKOUT_ROOT_ASSETS\" -not -path '*uploads*' -exec touch -h -d 2020-02-02T02:02:02.5 {} +",
    );
    let mut log = captured_sql("INSERT INTO line VALUES ('by a command')");
    if let Kind::Run(argv) = &mut log.kind {
        argv[2] = argv[2].replace("MAIN", "LOG");
    }
    let inner = Pkg::new("inner")
        .step(files)
        .step(flag("flag-images"))
        .step(log.with("capture", serde_json::json!({ "databases": ["log"] })));
    Pkg::new("all")
        .step(sql("UPDATE product SET price = price + 1; DROP TABLE bulk").with("database", "main"))
        .step(captured_sql(
            "UPDATE product SET stock = 1 WHERE id < 3; INSERT INTO orders (product, amount) VALUES (1, 5);
             ALTER TABLE wide DROP COLUMN drop_me; DROP TABLE gone; CREATE TABLE made (id INTEGER PRIMARY KEY AUTOINCREMENT, t UNIQUE);
             INSERT INTO made (t) VALUES ('a'), ('b'); DROP VIEW cheap; CREATE INDEX made_t ON made (t DESC);
             DELETE FROM audit; PRAGMA user_version = 5",
        ))
        .step(flag("flag-all"))
        .step(child(inner))
        .step(sql("INSERT INTO made (t) VALUES ('c'); UPDATE product SET stock = 2").with("database", "main"))
}
