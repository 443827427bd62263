//! What an undo or a redo runs comes from the kept copy of the package: one that is not what was deployed runs nothing.

use std::fs;

use crate::scene::Scene;

const STEPS: &str = "steps:
  - run: [sh, do.sh]
    undo: [sh, undo.sh]
  - sql: a.sql
    undo: a.undo.sql
";

fn scene() -> Scene {
    let scene = Scene::new();
    scene.write("change/do.sh", "echo done >> $BACKOUT_ROOT_WEB/log");
    scene.write("change/undo.sh", "rm $BACKOUT_ROOT_WEB/log; : > beside");
    scene.write("change/a.sql", "INSERT INTO product VALUES (3, 'scarf', 1900);");
    scene.write("change/a.undo.sql", "DELETE FROM product WHERE id = 3;");
    scene.package("change", STEPS);
    scene
}

/// Where the copy of the latest package lies.
fn copy(scene: &Scene, file: &str) -> String {
    format!(".backout/packages/{}/package/{file}", scene.latest())
}

#[test]
fn an_altered_copy_is_neither_undone_by_nor_redone_by() {
    let scene = scene();
    scene.run(&["deploy", "change"]).exits(0);
    fs::remove_dir_all(scene.path("change")).unwrap();
    let left = scene.fingerprint();
    let was = scene.read(&copy(&scene, "undo.sh"));
    scene.write(&copy(&scene, "undo.sh"), "DELETE FROM product;");
    scene.refused(&["undo"], 4).says("not what was deployed").says("undo.sh").says("hint: ");
    scene.run(&["record", "--output", "rec"]).exits(0).says("it was changed since");
    scene.run(&["verify"]).exits(3).answers("not what was deployed");
    scene.write(&copy(&scene, "undo.sh"), was);
    assert_eq!(scene.fingerprint(), left);
    scene.run(&["verify"]).exits(0);
    scene.run(&["undo"]).exits(0);
    for file in ["do.sh", "a.sql", "a.undo.sql"] {
        let was = scene.read(&copy(&scene, file));
        fs::remove_file(scene.path(copy(&scene, file))).unwrap();
        scene.refused(&["redo"], 4).says("the kept copy of the package").says(file);
        scene.write(&copy(&scene, file), was);
    }
    scene.run(&["redo"]).exits(0);
    scene.run(&["record", "--output", "rec"]).exits(0);
}

/// What a package's own commands write into files that it brought is theirs.
#[test]
fn a_command_may_write_into_a_file_of_its_package() {
    let scene = Scene::new();
    scene.write("change/log.txt", "");
    scene.write("change/do.sh", "echo up >> log.txt; touch $BACKOUT_ROOT_WEB/made");
    scene.write("change/undo.sh", "echo down >> log.txt; rm $BACKOUT_ROOT_WEB/made");
    scene.package("change", "steps:\n  - run: [sh, do.sh]\n    undo: [sh, undo.sh]\n");
    let before = scene.fingerprint();
    scene.run(&["deploy", "change"]).exits(0);
    for _ in 0..2 {
        scene.run(&["undo"]).exits(0);
        assert_eq!(scene.fingerprint(), before);
        scene.run(&["verify"]).exits(0);
        scene.run(&["redo"]).exits(0);
        scene.run(&["record", "--output", "rec"]).exits(0);
    }
}

/// Where nothing of it would be run, nobody asks for it.
#[test]
fn an_undo_from_images_does_without_the_copy() {
    let scene = Scene::with_good_package();
    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    fs::remove_dir_all(scene.path(".backout/packages")).unwrap();
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}
