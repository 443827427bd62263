//! The stage of captured commands: the sites of SQLite, PostgreSQL and MariaDB, and commands that change rows, definitions and files there, in a
//! package and in a child of it, between steps of other kinds.

use super::flag;
use crate::package::{Kind, Pkg, captured, captured_mariadb, captured_psql, captured_sql, child, sql};

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

/// The same on PostgreSQL: rows, tables made, dropped, altered and made anew, types and counters.
pub fn on_postgres() -> Pkg {
    let inner = Pkg::new("inner")
        .step(captured_psql(
            "ALTER TYPE mood ADD VALUE 'merry'; UPDATE product SET mood = 'merry' WHERE id = 3;
             ALTER TABLE settings ALTER value TYPE text; DELETE FROM bulk WHERE n % 2 = 0; SELECT setval('ticket', 40)",
        ))
        .step(flag("flag-images"))
        .step(captured(
            "echo more >> \"$BACKOUT_ROOT_WEB/index.php\"; touch -d 2020-02-02T02:02:02.5 \"$BACKOUT_ROOT_WEB/index.php\" \"$BACKOUT_ROOT_WEB\"",
        ));
    Pkg::new("all")
        .step(sql("UPDATE product SET price = price + 1 WHERE id = 1; DROP INDEX by_price"))
        .step(captured_psql(
            "UPDATE product SET price = 5 WHERE id < 3; INSERT INTO product VALUES (4, 'sledge', 80, 'well');
             ALTER TABLE wide DROP COLUMN drop_me; ALTER TABLE wide ADD COLUMN added text DEFAULT 'x'; UPDATE wide SET added = 'y' WHERE id = 1;
             DROP TABLE gone; DROP VIEW cheap; CREATE TABLE made (id serial PRIMARY KEY, t text UNIQUE);
             INSERT INTO made (t) VALUES ('a'), ('b'); UPDATE part SET half = 2 WHERE id = 1; TRUNCATE audit",
        ))
        .step(flag("flag-all"))
        .step(child(inner))
        .step(sql("INSERT INTO made VALUES (9, 'c'); UPDATE product SET price = 6 WHERE id = 1"))
}

/// The same on MariaDB: rows, tables made, dropped, altered and emptied, with what points at them, texts and counters.
pub fn on_mariadb() -> Pkg {
    let inner = Pkg::new("inner")
        .step(captured_mariadb(
            "ALTER TABLE made DROP FOREIGN KEY made_ibfk_1; ALTER TABLE orders DROP FOREIGN KEY orders_ibfk_1; ALTER TABLE product MODIFY id bigint NOT NULL; ALTER TABLE orders MODIFY product bigint;
             ALTER TABLE orders ADD FOREIGN KEY (product) REFERENCES product (id); TRUNCATE bulk; UPDATE settings SET value = '42' WHERE name = 'schema'",
        ))
        .step(flag("flag-images"))
        .step(captured(
            "echo more >> \"$BACKOUT_ROOT_WEB/index.php\"; touch -d 2020-02-02T02:02:02.5 \"$BACKOUT_ROOT_WEB/index.php\" \"$BACKOUT_ROOT_WEB\"",
        ));
    Pkg::new("all")
        .step(sql("UPDATE product SET price = price + 1 WHERE id = 1; DROP INDEX by_price ON product;"))
        .step(captured_mariadb(
            "UPDATE product SET price = 5 WHERE id < 3; INSERT INTO product VALUES (4, 'sledge', 80, 'well'); INSERT INTO orders (product, amount) VALUES (4, 1);
             ALTER TABLE wide DROP COLUMN drop_me; ALTER TABLE wide ADD COLUMN added text DEFAULT 'x'; UPDATE wide SET added = 'y' WHERE id = 1;
             DROP TABLE gone; DROP VIEW cheap; CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, t varchar(9) UNIQUE, p int, FOREIGN KEY (p) REFERENCES product (id)) ENGINE=InnoDB;
             INSERT INTO made (t, p) VALUES ('a', 1), ('b', 4); CREATE TRIGGER t BEFORE INSERT ON made FOR EACH ROW SET NEW.t = UPPER(NEW.t);
             UPDATE heard SET n = 7 WHERE what = 'a' LIMIT 2; INSERT INTO heard VALUES ('b', 2);
             CREATE PROCEDURE p() SELECT 1; CREATE VIEW dear AS SELECT id FROM product WHERE price > 50",
        ))
        .step(flag("flag-all"))
        .step(child(inner))
        .step(sql("INSERT INTO made (id, t) VALUES (9, 'c'); UPDATE product SET price = 6 WHERE id = 1;"))
}
