//! The stage on MariaDB: one database with what a live one has, and a root.

use backout_servers::mariadb::Server;

use super::{flag, with_database};
use crate::package::{Pkg, child, delete, files, sql, sql_is};
use crate::site::{TestSite, memory};
use crate::tree::Tree;

const MAIN: &str = "
    CREATE TABLE product (id int PRIMARY KEY, name varchar(20) UNIQUE, price decimal(9,2) NOT NULL, mood enum('sad', 'well')) ENGINE=InnoDB;
    CREATE INDEX by_price ON product (price);
    INSERT INTO product VALUES (1, 'coat', 100.50, 'sad'), (2, 'hat', 20, 'well'), (3, 'scarf', 15, NULL);
    CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, product int, amount int, FOREIGN KEY (product) REFERENCES product (id) ON DELETE CASCADE) ENGINE=InnoDB;
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3), (3, 9);
    CREATE TABLE settings (name varchar(20) PRIMARY KEY, value json) ENGINE=InnoDB;
    INSERT INTO settings VALUES ('schema', '41'), ('theme', '{\"a\": 1.50}');
    CREATE TABLE gone (a int UNIQUE, b blob) ENGINE=InnoDB;
    INSERT INTO gone VALUES (1, 'one'), (2, x'0102'), (NULL, NULL);
    CREATE TABLE wide (id int PRIMARY KEY, keep_me text, drop_me text, n int) ENGINE=InnoDB;
    INSERT INTO wide VALUES (1, 'a', 'x', 1), (2, 'b', 'y', NULL);
    CREATE TABLE bulk (n int PRIMARY KEY, t text) ENGINE=InnoDB;
    INSERT INTO bulk SELECT seq, REPEAT(CONCAT('row ', seq), 10) FROM seq_1_to_60;
    CREATE TABLE maker (id int PRIMARY KEY) ENGINE=InnoDB;
    CREATE TABLE goods (id int PRIMARY KEY, maker int, CONSTRAINT of_maker FOREIGN KEY (maker) REFERENCES maker (id)) ENGINE=InnoDB;
    INSERT INTO maker VALUES (1), (2); INSERT INTO goods VALUES (1, 1), (2, NULL);
    SET foreign_key_checks = 0;
    CREATE TABLE early (id int PRIMARY KEY, extra int, CONSTRAINT early_extra FOREIGN KEY (extra) REFERENCES extra (id)) ENGINE=InnoDB;
    SET foreign_key_checks = 1;
    CREATE TABLE pins (id int AUTO_INCREMENT PRIMARY KEY, up int, CONSTRAINT above FOREIGN KEY (up) REFERENCES pins (id)) ENGINE=InnoDB;
    INSERT INTO pins VALUES (1, NULL), (2, 1), (9, 2); DELETE FROM pins WHERE id = 9;
    CREATE TRIGGER pinned BEFORE INSERT ON pins FOR EACH ROW SET @pinned = 1;
    CREATE TABLE yearly (id int PRIMARY KEY) ENGINE=InnoDB PARTITION BY RANGE (id) (PARTITION y1 VALUES LESS THAN (10), PARTITION y2 VALUES LESS THAN (20));
    INSERT INTO yearly VALUES (1), (11), (12);
    CREATE TABLE heard (what varchar(20), n int) ENGINE=InnoDB;
    INSERT INTO heard VALUES ('a', 1), ('a', 1), ('a', 1), ('b', 2), ('b', 2), (NULL, NULL);
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 50;
";

pub fn site(server: &'static Server) -> TestSite {
    let web =
        Tree::new().file("index.php", "<?php // autumn").file("old/a.txt", "a").file("uploads/photo.jpg", "a photo");
    let builder = TestSite::builder().root("web", web).keep(&["uploads"]).maintenance("touch closed", "rm -f closed");
    builder.mariadb("main", server, MAIN).below(memory()).build()
}

/// Two levels of children; rows, whatever changes them, and definitions, in one segment and in several.
pub fn package() -> Pkg {
    let images = Pkg::new("images")
        .step(sql("ALTER TABLE wide MODIFY n bigint; ALTER TABLE wide DROP COLUMN drop_me;"))
        .step(flag("flag-images"));
    let content = Pkg::new("content")
        .before(with_database(sql_is("SELECT count(*) FROM extra", 1)))
        .step(sql("UPDATE product SET price = price + 1;
             DELETE FROM product WHERE id = 3;
             INSERT INTO product VALUES (4, 'sledge', 80, 'well');
             INSERT INTO orders (product, amount) SELECT id, 1 FROM product;
             UPDATE heard SET n = n + 1 WHERE what = 'a' LIMIT 2;
             DELETE FROM heard WHERE what = 'b' LIMIT 1;
             INSERT INTO heard SELECT name, 3 FROM product;
             REPLACE INTO settings VALUES ('schema', '42');"))
        .step(child(images));
    Pkg::new("all")
        .step(sql("CREATE TABLE extra (id int AUTO_INCREMENT PRIMARY KEY, note varchar(20)) ENGINE=InnoDB;
             INSERT INTO extra (id, note) VALUES (7, 'made');
             CREATE INDEX extra_note ON extra (note);
             ALTER TABLE wide ADD COLUMN added int DEFAULT 7;
             UPDATE wide SET added = 8 WHERE id = 2;"))
        .step(files(Tree::new().file("index.php", "<?php // winter").file("winter/a.txt", "a")).with("root", "web"))
        .step(child(content))
        .step(sql("DROP TABLE gone; DROP VIEW cheap; DROP INDEX by_price ON product; TRUNCATE bulk; TRUNCATE pins; ALTER TABLE yearly DROP PARTITION y2; RENAME TABLE settings TO options;
             CREATE SEQUENCE numbers START WITH 10; ALTER SEQUENCE numbers RESTART 500; SET foreign_key_checks = 0; DROP TABLE maker; SET foreign_key_checks = 1;"))
        .step(flag("flag-all"))
        .step(delete(["old/"]).with("root", "web"))
        .after(with_database(sql_is("SELECT count(*) FROM bulk", 0)))
        .finally("touch \"$BACKOUT_ROOT_WEB/../cache\"")
}
