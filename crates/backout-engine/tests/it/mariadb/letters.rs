//! A server that has the names of tables in small letters, however a script writes them.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::go_there_and_back_on;

const BASE: &str = "CREATE TABLE Shop (Id int AUTO_INCREMENT PRIMARY KEY, B varchar(40)) ENGINE=InnoDB; INSERT INTO shop (b) VALUES ('x'), ('y');
    CREATE TABLE CHILD (id int PRIMARY KEY, s int, FOREIGN KEY (s) REFERENCES SHOP (id) ON DELETE CASCADE) ENGINE=InnoDB; INSERT INTO child VALUES (1, 1);
    CREATE TABLE Lg (a int) ENGINE=InnoDB; CREATE TRIGGER Tr AFTER INSERT ON Shop FOR EACH ROW INSERT INTO LG VALUES (NEW.id);
    CREATE VIEW Vw AS SELECT id, b FROM SHOP; CREATE PROCEDURE Pp() UPDATE SHOP SET b = 'p'; CREATE SEQUENCE Sq;
    CREATE TABLE Pt (a int PRIMARY KEY) ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION P0 VALUES LESS THAN (10), PARTITION P1 VALUES LESS THAN MAXVALUE); INSERT INTO PT VALUES (1), (20);";

const SCRIPTS: &[&str] = &[
    "UPDATE SHOP SET b = 'q' WHERE id = 1; DELETE FROM Shop WHERE ID = 1;",
    "INSERT INTO sHOP (B) VALUES ('new'); CALL PP();",
    "UPDATE VW SET b = 'k'; EXECUTE IMMEDIATE 'DELETE FROM SHOP WHERE id = 2';",
    "TRUNCATE LG; INSERT INTO Lg VALUES (1); TRUNCATE PT; CREATE OR REPLACE TABLE LG (a int, b int);",
    "ALTER TABLE PT DROP PARTITION p0; RENAME TABLE CHILD TO Kid; INSERT INTO KID VALUES (9, 2);",
    "CREATE TABLE NewOne (A int PRIMARY KEY); INSERT INTO newone VALUES (1); ALTER TABLE NEWONE ADD B int DEFAULT 5; DROP TABLE NewONE;",
    "CREATE TABLE Cp LIKE SHOP; INSERT INTO CP SELECT * FROM Shop; CREATE OR REPLACE VIEW VW AS SELECT id FROM sHop; CREATE INDEX I ON SHOP (b);",
    "DROP SEQUENCE SQ; CREATE SEQUENCE SQ START WITH 5; INSERT INTO lg VALUES (NEXTVAL(sQ));",
    "SET foreign_key_checks = 0; DROP TABLE SHOP; CREATE TABLE SHOP (id int PRIMARY KEY, b int); INSERT INTO Shop VALUES (1, 2);",
    "CREATE TEMPORARY TABLE Tmp (a int); INSERT INTO TMP VALUES (1); INSERT INTO LG SELECT a FROM tMP; ALTER TABLE SHOP RENAME TO SHOP2;",
];

#[test]
fn names_in_other_letters_are_the_same_where_the_server_says_so() {
    let server: &'static Server = Box::leak(Box::new(Server::with(&["--lower-case-table-names=1"])));
    go_there_and_back_on(server, BASE, SCRIPTS);
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let before = Fingerprint::of(&site);
    let here = site.mariadb("main").unwrap().name.to_uppercase();
    let script =
        format!("UPDATE {here}.SHOP SET b = 'd'; USE {here}; DELETE FROM SHOP; ALTER TABLE {here}.Child ADD x int;");
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}
