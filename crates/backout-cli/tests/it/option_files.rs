//! MariaDB's option files: the URL names the database, and `~/.my.cnf` how to get in.

use backout_testkit::mariadb::{self, Queryable as _};

use crate::scene::Scene;

#[test]
fn a_password_may_stay_in_the_user_s_option_file() {
    let server = mariadb::Server::shared();
    let database = server.database();
    let mut session = database.connect();
    let user = format!("u{}", database.name);
    session.query_drop("CREATE TABLE product (id INT PRIMARY KEY, name TEXT)").unwrap();
    session.query_drop(format!("CREATE USER {user}@localhost IDENTIFIED BY 's3cret \"word'")).unwrap();
    for (right, on) in [("ALL PRIVILEGES", format!("{}.*", database.name)), ("RELOAD, PROCESS", "*.*".to_owned())] {
        session.query_drop(format!("GRANT {right} ON {on} TO {user}@localhost")).unwrap();
    }
    let scene = Scene::new();
    scene.write("site.yaml", format!("site: s\ndatabases:\n  main: {{url: \"mariadb:///{}\"}}\n", database.name));
    let files = |password: &str| {
        scene.write(
            "home/.my.cnf",
            format!(
                "[client]\nuser={user}\npassword = '{password}'\nsocket={}\n[mysqldump]\npassword=no\n",
                server.socket().display()
            ),
        );
    };
    scene.write("p/package.yaml", "package: p\nversion: 1\nsteps: [{sql: 1.sql}]\n");
    scene.write("p/1.sql", "INSERT INTO product VALUES (1, 'glove');");
    files("wrong");
    let refused = scene.run(&["deploy", "p"]).exits(4);
    assert!(!refused.stderr.contains("wrong'"), "{refused}");
    files("s3cret \"word");
    scene.run(&["deploy", "p"]).exits(0);
    let count = || database.connect().query_first::<u64, _>("SELECT count(*) FROM product").unwrap();
    assert_eq!(count(), Some(1));
    scene.run(&["undo"]).exits(0);
    assert_eq!(count(), Some(0));
    // Everything that a command of a package gets, the client in it as well.
    scene.write("q/package.yaml", "package: q\nversion: 1\nsteps: [{run: [sh, ask.sh], undo: [\"true\"]}]\n");
    scene.write("q/ask.sh", "echo \"$BACKOUT_DATABASE_MAIN\" > ../asked\n");
    let ran = scene.run(&["deploy", "q"]).exits(0);
    assert!(!ran.stdout.contains("s3cret") && !ran.stderr.contains("s3cret"), "{ran}");
    session.query_drop(format!("DROP USER {user}@localhost")).unwrap();
}
