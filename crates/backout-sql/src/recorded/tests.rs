//! Statements, conditions and what a reviewer is told, of a dialect without any server.

use super::*;

struct Plain;

impl Dialect for Plain {
    fn same(&self, table: &Table, column: usize, value: &str) -> String {
        format!("{} IS {value}", table.columns[column])
    }

    fn delete_one(&self, table: &Table, holds: &str) -> String {
        format!("DELETE FROM {} WHERE {holds} LIMIT 1", table.name)
    }
}

fn table(name: &str) -> Table {
    let columns = ["id", "title", "user_pass"].map(str::to_owned).to_vec();
    let (shown, name) = (name.to_owned(), name.to_owned());
    Table { shown, name, columns, key: vec![0], is_counted: true, ..Table::default() }
}

fn row(values: [&str; 3]) -> Vec<String> {
    values.map(str::to_owned).to_vec()
}

#[test]
fn statements_conditions_and_what_to_look_at() {
    let (mut out, mut review, mut drafted) = (Vec::new(), Review::default(), Drafted::default());
    let places = ["/var/www/staging".to_owned()];
    let mut aside = Vec::new();
    let mut drafting = Drafting {
        out: &mut out,
        review: &mut review,
        leave_out: &|_| false,
        leave_out_row: &|table, values| table == "posts" && values[1].starts_with("'_transient_"),
        aside: &mut aside,
        places: &places,
    };
    let mut rows = Rows::new(&mut drafting, &mut drafted, Plain);
    let posts = table("posts");
    rows.insert(&posts, &row(["7", "'see https://staging.example:8080/x'", "'$2y$10$abc'"])).unwrap();
    rows.insert(&posts, &row(["8", "'a:1:{s:3:\"/var/www/staging\";}'", "NULL"])).unwrap();
    rows.update(&posts, &row(["1", "'old'", "NULL"]), &row(["1", "'new'", "NULL"])).unwrap();
    rows.delete(&posts, &row(["2", "'two'", "NULL"])).unwrap();
    rows.insert(&posts, &row(["9", "'_transient_x'", "NULL"])).unwrap();
    rows.update(&posts, &row(["4", "'_transient_y'", "NULL"]), &row(["4", "'_transient_z'", "NULL"])).unwrap();
    rows.delete(&posts, &row(["5", "'_transient_y'", "NULL"])).unwrap();
    let altered = Table { new_columns: vec![1], ..table("altered") };
    rows.update(&altered, &row(["1", "NULL", "NULL"]), &row(["1", "'x'", "NULL"])).unwrap();
    rows.insert(&Table { is_new: true, is_counted: false, ..table("made") }, &row(["1", "NULL", "NULL"])).unwrap();
    rows.delete(&Table { key: Vec::new(), ..table("log") }, &row(["1", "NULL", "NULL"])).unwrap();
    rows.end().unwrap();
    assert_eq!(
        String::from_utf8(aside).unwrap(),
        "INSERT INTO posts (id, title, user_pass) VALUES (9, '_transient_x', NULL);
UPDATE posts SET title = '_transient_z' WHERE id = 4;
DELETE FROM posts WHERE id = 5;\n"
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "INSERT INTO posts (id, title, user_pass) VALUES
  (7, 'see https://staging.example:8080/x', '$2y$10$abc'),
  (8, 'a:1:{s:3:\"/var/www/staging\";}', NULL);
UPDATE posts SET title = 'new' WHERE id = 1;
DELETE FROM posts WHERE id = 2;
UPDATE altered SET title = 'x' WHERE id = 1;
INSERT INTO made (id, title, user_pass) VALUES
  (1, NULL, NULL);
DELETE FROM log WHERE id IS 1 AND title IS NULL AND user_pass IS NULL LIMIT 1;\n"
    );
    let told: Vec<(String, &str)> =
        drafted.conditions.iter().map(|one| (one.sql.clone(), one.equals.as_str())).collect();
    let wanted = [
        (
            "SELECT count(*) FROM posts WHERE (id = 1 AND title IS 'old') OR (id = 2 AND title IS 'two' AND user_pass IS NULL)",
            "2",
        ),
        ("SELECT count(*) FROM posts WHERE (id = 7) OR (id = 8)", "0"),
        ("SELECT count(*) FROM altered WHERE (id = 1)", "1"),
    ];
    assert_eq!(told, wanted.map(|(sql, equals)| (sql.to_owned(), equals)));
    assert_eq!(drafted.statements, 6);
    let noted: Vec<(Concern, &str)> = review.all().map(|(concern, place, _)| (concern, place)).collect();
    assert_eq!(
        noted,
        [
            (Concern::LeftOut, "rows of posts"),
            (Concern::Counted, "table posts"),
            (Concern::Address, "/var/www/staging"),
            (Concern::Address, "https://staging.example:8080"),
            (Concern::Secret, "posts.user_pass"),
            (Concern::Serialized, "posts.title"),
            (Concern::Unchecked, "column altered.title"),
            (Concern::Unchecked, "table log"),
        ]
    );
}

#[test]
fn no_secret_is_told_or_asked_for() {
    let told = |text: &str| addresses(text).collect::<Vec<_>>();
    assert_eq!(told("https://deploy:s3cret@git.example/x"), ["https://git.example"]);
    assert_eq!(
        told("http://u:p@ss@h.example:8080, https://x.example. and"),
        ["http://h.example:8080", "https://x.example"]
    );
    assert_eq!(
        told("https://medium.example/@user http://[::1]:80/ https://u:s3/x@h https://"),
        ["https://medium.example", "http://[::1]:80", "https://u"]
    );
    let (mut out, mut review, mut drafted) = (Vec::new(), Review::default(), Drafted::default());
    let mut drafting = Drafting {
        out: &mut out,
        review: &mut review,
        leave_out: &|_| false,
        leave_out_row: &|_, _| false,
        aside: &mut io::sink(),
        places: &[],
    };
    let mut rows = Rows::new(&mut drafting, &mut drafted, Plain);
    rows.update(&table("users"), &row(["1", "'a'", "'plain'"]), &row(["1", "'b'", "'other'"])).unwrap();
    rows.delete(&table("users"), &row(["2", "'$2y$10$abc'", "NULL"])).unwrap();
    rows.end().unwrap();
    let told: Vec<_> = drafted.conditions.iter().map(|one| one.sql.as_str()).collect();
    assert_eq!(told, ["SELECT count(*) FROM users WHERE (id = 1 AND title IS 'a') OR (id = 2 AND user_pass IS NULL)"]);
    let unasked: Vec<_> =
        review.all().filter(|(concern, ..)| *concern == Concern::Unchecked).map(|(_, place, _)| place).collect();
    assert_eq!(unasked, ["secrets in users.title", "secrets in users.user_pass"]);
}

#[test]
fn a_condition_is_about_so_many_rows_and_a_table_has_so_many() {
    let (mut out, mut review, mut drafted) = (Vec::new(), Review::default(), Drafted::default());
    let mut drafting = Drafting {
        out: &mut out,
        review: &mut review,
        leave_out: &|_| false,
        leave_out_row: &|_, _| false,
        aside: &mut io::sink(),
        places: &[],
    };
    let mut rows = Rows::new(&mut drafting, &mut drafted, Plain);
    for n in 0..3 * ROWS_CHECKED / 2 {
        rows.insert(&table("t"), &row([&n.to_string(), "'x'", "NULL"])).unwrap();
    }
    rows.end().unwrap();
    assert_eq!(drafted.conditions.len() as u64, ROWS_CHECKED / CONDITION_ROWS);
    assert!(review.all().any(|(concern, place, noted)| {
        concern == Concern::Unchecked && place == "table t" && noted.times == ROWS_CHECKED / 2
    }));
}
