//! From nothing to a first deployment: `init`, `new`, `doctor`.

use crate::scene::Scene;

#[test]
fn a_site_and_a_package_from_nothing() {
    let scene = Scene::new();
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene
        .run(&["init", "--name", "shop", "--database", "shop.sqlite", "--root", "web"])
        .exits(0)
        .answers("site.yaml")
        .says("backout doctor");
    let password = scene.path("backup-password");
    let mode = std::os::unix::fs::PermissionsExt::mode(&password.metadata().unwrap().permissions());
    assert_eq!((mode & 0o777, scene.read("backup-password").trim().len()), (0o600, 48));
    scene.run(&["doctor"]).exits(0).answers("shop is fit for deployments").answers("none was taken yet");
    scene.run(&["new", "spring"]).exits(0).answers("spring/package.yaml").says("backout plan spring");
    scene.run(&["inspect", "spring"]).exits(0).answers("spring");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["status"]).exits(0).answers("last backup: ");
    scene.run(&["show"]).exits(0).answers("backup: ");
    scene.run(&["undo"]).exits(0);
}

#[test]
fn init_never_overwrites_and_leaves_nothing_bad() {
    let scene = Scene::new();
    scene.refused(&["init", "--root", "web"], 2).says("site.yaml is there already");
    assert_eq!(scene.read("site.yaml"), crate::scene::SITE);
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.refused(&["init"], 2).says("--database");
    scene.refused(&["init", "--name", "Shop!", "--root", "web"], 2).says("Shop!").says("--name");
    scene.refused(&["init", "--root", "web", "--state", "web/state"], 2).says("root `web`");
    scene.refused(&["init", "web", "--root", "."], 2).says("root `web`");
    assert!(!scene.path("site.yaml").exists() && !scene.path("web/site.yaml").exists());
    scene.refused(&["init", "nowhere", "--root", "web"], 4).says("nowhere/site.yaml");
}

#[test]
fn init_takes_paths_of_any_kind() {
    let scene = Scene::new();
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    std::fs::rename(scene.path("shop.sqlite"), scene.path("a #1 \"shop\" 100%.db")).unwrap();
    scene.run(&["init", "--name", "shop", "--database", "a #1 \"shop\" 100%.db", "--root", "./web/"]).exits(0);
    scene.run(&["doctor"]).exits(0);
}

#[test]
fn new_never_overwrites() {
    let scene = Scene::with_good_package();
    scene.refused(&["new", "winter"], 2).says("winter is there already");
    scene.refused(&["new", "a b"], 2).says("a b");
    scene.refused(&["new", ".."], 2);
    assert_eq!(scene.read("winter/package.yaml"), crate::scene::GOOD);
}

/// A mask that takes the owner's own rights away would leave a state directory that nobody can use.
#[test]
fn state_and_holds_are_the_owner_s_whatever_the_umask() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::with_good_package();
    let binary = env!("CARGO_BIN_EXE_backout");
    let ran = std::process::Command::new("sh")
        .args(["-c", "umask 0777; exec \"$0\" deploy winter", binary])
        .current_dir(scene.path(""))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    for directory in [".backout", ".backout/packages", ".backout/images"] {
        assert_eq!(mode(&scene.path(directory)), 0o700, "{directory}");
    }
    assert_eq!(mode(&scene.path(".backout/journal.db")), 0o600);
    let holds = std::fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().path());
    let holds: Vec<_> =
        holds.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".backout-")).collect();
    assert_eq!(holds.len(), 1);
    assert_eq!(mode(&holds[0]), 0o700);
}

/// An empty directory to put an application into.
fn nothing() -> Scene {
    let scene = Scene::new();
    for name in ["site.yaml", "shop.sqlite"] {
        std::fs::remove_file(scene.path(name)).unwrap();
    }
    std::fs::remove_dir_all(scene.path("web")).unwrap();
    scene
}

fn executable(scene: &Scene, path: &str) {
    scene.write(path, "#!/bin/sh\n");
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scene.path(path), rights).unwrap();
}

#[test]
fn init_finds_a_wordpress() {
    let scene = nothing();
    scene.write("html/wp-includes/version.php", "<?php\n$wp_version = '6.4.3';\n");
    scene.write("html/wp-settings.php", "<?php\n");
    scene.write(
        "html/wp-config.php",
        "<?php\n/** The name of the database for WordPress */\ndefine( 'DB_NAME', 'shop' );\n// define( 'DB_USER', 'no' );\n\
         define( 'DB_USER', 'wp@shop' );\ndefine( 'DB_PASSWORD', 'it\\'s secret' );\n\
         define( 'DB_HOST', 'localhost:/run/mysqld/mysqld.sock' );\n$table_prefix = 'wp_';\n",
    );
    executable(&scene, "vendor/bin/wp");
    scene
        .run(&["init", "--name", "my-shop"])
        .exits(0)
        .says("found WordPress 6.4.3 in html")
        .says("set MY_SHOP_DB_PASSWORD, the database's password");
    let site = scene.read("site.yaml");
    for line in [
        "url: \"mariadb://wp%40shop:${MY_SHOP_DB_PASSWORD}@localhost/shop?socket=%2frun%2fmysqld%2fmysqld.sock\"",
        "keep: [\"wp-content/uploads\", \"wp-content/cache\", \"wp-content/upgrade\", \".maintenance\"]",
        "enter: [\"vendor/bin/wp\", \"--path=html\", \"maintenance-mode\", \"activate\"]",
        "leave: [\"vendor/bin/wp\", \"--path=html\", \"maintenance-mode\", \"deactivate\"]",
        "#   - run: [\"vendor/bin/wp\", \"--path=html\", \"cache\", \"flush\"]",
    ] {
        assert!(site.contains(line), "{line}\n{site}");
    }
    assert!(!site.contains("secret"), "{site}");
    // Whatever it includes is a part of it; what depends on something is not taken for certain.
    let again = |config: &str, says: &str| {
        std::fs::remove_file(scene.path("site.yaml")).unwrap();
        scene.write("html/wp-config.php", config);
        scene.run(&["init"]).exits(0).says(says);
        scene.read("site.yaml")
    };
    scene.write(
        "html/local-config.php",
        "<?php define('DB_NAME', 'here'); define('DB_HOST', 'p:db'); define('UPLOADS', 'media/');\n",
    );
    let config = "<?php if (file_exists(__DIR__ . '/local-config.php')) { include __DIR__ . '/local-config.php'; }\n";
    let site = again(config, "says where its database is");
    assert!(site.contains("url: \"mariadb://db/here\"") && site.contains("\"media\""), "{site}");
    let either = format!("{config} else {{ define('DB_NAME', 'there'); }}\n");
    assert!(again(&either, "does not say plainly where its database is").contains("# databases:"));
    // In the image of a container everything comes from the environment, and the file may lie above.
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    std::fs::remove_file(scene.path("html/wp-config.php")).unwrap();
    scene.write(
        "wp-config.php",
        "<?php define('DB_NAME', getenv_docker('WORDPRESS_DB_NAME', 'wordpress')); define('DB_HOST', 'db:3307');
         define('DB_USER', getenv('WP_USER')); define('DB_PASSWORD', $_ENV['WP_PASSWORD']);",
    );
    scene.run(&["init"]).exits(0).says("set WP_USER").says("set WP_PASSWORD").says("set WORDPRESS_DB_NAME");
    let url = "mariadb://${WP_USER}:${WP_PASSWORD}@db:3307/${WORDPRESS_DB_NAME}";
    assert!(scene.read("site.yaml").contains(url), "{}", scene.read("site.yaml"));
}

#[test]
fn init_finds_a_drupal_and_it_can_be_deployed_to() {
    let scene = nothing();
    scene.write("web/core/lib/Drupal.php", "<?php\nclass Drupal {\n  const VERSION = '10.2.3';\n}\n");
    scene.write(
        "web/sites/default/settings.php",
        "<?php\n/**\n * $databases['default']['default'] = ['database' => 'no'];\n */\n$databases = [];\n\
         $databases['default']['default'] = [\n  'database' => 'sites/default/files/.ht.sqlite',\n  'prefix' => '',\n  'driver' => 'sqlite',\n];\n\
         $settings['file_private_path'] = 'private';\n",
    );
    scene.write("web/sites/shop.example/settings.php", "<?php\n");
    scene.write("web/sites/default/files/upload.txt", "an upload");
    executable(&scene, "vendor/bin/drush");
    rusqlite::Connection::open(scene.path("web/sites/default/files/.ht.sqlite"))
        .unwrap()
        .execute_batch("CREATE TABLE node (nid INTEGER PRIMARY KEY, title TEXT)")
        .unwrap();
    scene.run(&["init", "--name", "shop"]).exits(0).says("found Drupal 10.2.3 in web");
    let site = scene.read("site.yaml");
    for line in [
        "url: \"sqlite:web/sites/default/files/.ht.sqlite\"",
        "keep: [\"sites/default/files\", \"sites/shop.example/files\", \"private\"]",
        "enter: [\"vendor/bin/drush\", \"--root=web\", \"state:set\", \"system.maintenance_mode\", \"1\", \"--input-format=integer\"]",
        "#   - run: [\"vendor/bin/drush\", \"--root=web\", \"cache:rebuild\"]",
    ] {
        assert!(site.contains(line), "{line}\n{site}");
    }
    // Another database by a file beside it, where there is one: nobody knows which.
    let settings = scene.read("web/sites/default/settings.php");
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    let local = "if (file_exists($app_root . '/' . $site_path . '/settings.local.php')) {\n  include $app_root . '/' . $site_path . '/settings.local.php';\n}\n";
    scene.write("web/sites/default/settings.php", format!("{settings}{local}"));
    scene.write(
        "web/sites/default/settings.local.php",
        "<?php\n$databases['default']['default'] = ['database' => 'd', 'username' => 'u', 'host' => '/run/postgresql', 'driver' => 'pgsql'];\n",
    );
    scene.run(&["init", "--name", "shop"]).exits(0).says("does not say plainly where its database is");
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.write("web/sites/default/settings.php", format!("<?php\n{local}"));
    scene.run(&["init", "--name", "shop"]).exits(0).says("says where its database is");
    let url = "postgresql://u:${SHOP_DB_PASSWORD}@/d?host=%2frun%2fpostgresql";
    assert!(scene.read("site.yaml").contains(url), "{}", scene.read("site.yaml"));
    scene.write("web/sites/default/settings.php", &settings);
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.run(&["init", "--name", "shop"]).exits(0);
    scene.write("p/package.yaml", "package: p\nversion: 1\nsteps: [{sql: 1.sql}, {files: web}]\n");
    scene.write("p/1.sql", "INSERT INTO node (title) VALUES ('new');");
    scene.write("p/web/index.php", "<?php\n");
    scene.run(&["deploy", "p"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert!(!scene.path("web/index.php").exists());

    // Drupal 7, on a server.
    let seven = nothing();
    seven.write("docroot/includes/bootstrap.inc", "<?php\ndefine('VERSION', '7.98');\n");
    seven.write("docroot/modules/system/system.module", "<?php\n");
    seven.write(
        "docroot/sites/default/settings.php",
        "<?php\n$databases = array('default' => array('default' => array('driver' => 'pgsql', 'host' => 'db.example', 'port' => '5433',
           'database' => 'shop', 'username' => 'shop', 'password' => 'secret')));\n",
    );
    executable(&seven, "docroot/vendor/bin/drush");
    seven.run(&["init", "--name", "old"]).exits(0).says("found Drupal 7.98 in docroot").says("set OLD_DB_PASSWORD");
    let site = seven.read("site.yaml");
    assert!(site.contains("url: \"postgresql://shop:${OLD_DB_PASSWORD}@db.example:5433/shop\""), "{site}");
    assert!(site.contains("\"variable-set\", \"maintenance_mode\", \"0\"") && !site.contains("secret"), "{site}");
}

#[test]
fn init_says_what_it_does_not_understand_of_an_application() {
    let scene = nothing();
    scene.write("web/wp-includes/version.php", "<?php\n$wp_version = '6.1.1';\n");
    scene.refused(&["init", "web"], 2).says("WordPress 6.1.1 lies in the directory itself");
    scene.run(&["init"]).exits(0).says("it has no settings yet");
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.write("web/wp-config.php", "<?php require('/etc/wordpress/config-' . $host . '.php');\n");
    scene.run(&["init"]).exits(0).says("does not say plainly where its database is");
    assert!(scene.read("site.yaml").contains("# databases:"));
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.write("other/wp-includes/version.php", "<?php\n");
    scene.refused(&["init"], 2).says("several applications: WordPress in other, WordPress 6.1.1 in web").says("--root");
    scene.run(&["init", "--root", "other"]).exits(0).says("found WordPress in other");
}
