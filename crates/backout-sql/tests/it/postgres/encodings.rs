//! Databases that keep their text in another encoding than UTF-8.

use backout_model::conflict::OnConflict;
use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;

#[test]
fn long_values_of_a_conflict_are_cut_in_whatever_encoding() {
    let live = Server::shared().database_in("LATIN1");
    let mut setup = live.connect();
    setup.batch_execute("CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT g, repeat('é', 99) FROM generate_series(1, 3) g").unwrap();
    let url = live.url();
    let mut stage = Stage::over(live, &url);
    let images = stage.apply("UPDATE b SET v = 'A' WHERE id = 1;");
    let later = stage.apply("UPDATE b SET v = 'A' WHERE id = 2;");
    stage.others("UPDATE b SET v = 'B' WHERE id = 1");
    let conflicts = stage.conflicts(&images);
    assert_eq!(conflicts.listed[0].before, format!("'{}...'", "é".repeat(60)));
    stage.undo(&later);
    stage.try_undo(&images, OnConflict::Overwrite).unwrap();
    assert_eq!(stage.ask("SELECT count(*) FROM b WHERE v = repeat('é', 99)"), "3");
}
