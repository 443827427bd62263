//! Signatures: made here and by ssh-keygen, checked here and by ssh-keygen; what was changed since is refused.

use std::fs;
use std::process::{Command, Stdio};

use crate::scene::{SITE, Scene};

/// A scene whose site trusts the key `release`, beside another key `other`.
fn trusting(require: bool) -> Scene {
    let scene = Scene::with_good_package();
    for (name, kind) in [("release", "ed25519"), ("other", "ecdsa")] {
        let key = scene.path(name);
        let words = ["-q", "-t", kind, "-N", "", "-C", name, "-f", key.to_str().unwrap()];
        assert!(Command::new("ssh-keygen").args(words).status().unwrap().success());
    }
    let trust = format!("trust: {{require-signature: {require}, keys: [release.pub]}}\n");
    scene.write("site.yaml", format!("{SITE}{trust}"));
    scene
}

#[test]
fn a_package_must_be_signed_where_the_site_says_so() {
    let scene = trusting(true);
    scene.refused(&["deploy", "winter"], 4).says("winter 2026.11.1 is not trusted: it is not signed");
    scene.refused(&["plan", "winter"], 4).says("is not trusted");
    scene.run(&["sign", "winter", "--key", "other"]).exits(0);
    scene.refused(&["deploy", "winter"], 4).says("which the site does not trust");
    scene.run(&["sign", "winter", "--key", "release"]).exits(0).answers("winter/package.sig");
    scene.run(&["plan", "winter"]).exits(0);
    scene.run(&["pack", "winter"]).exits(0);
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["deploy", "winter-2026.11.1.backout.tar.zst"]).exits(0);
    scene.run(&["undo"]).exits(0);
    for (file, text) in [("sql/010.sql", "SELECT 1;"), ("docroot/more.html", ""), ("package.sig", "x")] {
        scene.run(&["sign", "winter", "--key", "release"]).exits(0);
        scene.write(&format!("winter/{file}"), text);
        scene.refused(&["deploy", "winter"], 4).says("is not trusted");
    }
    scene.write("release.pub", "nonsense");
    scene.refused(&["deploy", "winter"], 2).says("holds a line that is no public SSH key");
}

#[test]
fn without_that_only_a_bad_signature_is_refused() {
    let scene = trusting(false);
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["sign", "winter", "--key", "release"]).exits(0);
    scene.write("winter/docroot/index.html", "changed since");
    scene.refused(&["deploy", "winter"], 4).says("it is not what was signed");
}

/// What ssh-keygen says of the package's signature by `ops` over `text`.
fn verified(scene: &Scene) -> bool {
    let words = ["-Y", "verify", "-f", "signers", "-I", "ops", "-n", "backout-package", "-s", "winter/package.sig"];
    let text = fs::File::open(scene.path("text")).unwrap();
    let ran =
        Command::new("ssh-keygen").args(words).current_dir(scene.path(".")).stdin(text).stdout(Stdio::null()).status();
    ran.unwrap().success()
}

#[test]
fn signatures_are_those_of_ssh_keygen() {
    let scene = trusting(true);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = scene.path(kind);
        let words = ["-q", "-t", kind, "-N", "", "-f", key.to_str().unwrap()];
        assert!(Command::new("ssh-keygen").args(words).status().unwrap().success());
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        scene.write("release.pub", &public);
        scene.write("signers", format!("ops {public}"));
        // Made here, checked there. RSA keys are for ssh-keygen alone.
        let text = scene.run(&["sign", "winter", "--text"]).exits(0).stdout;
        scene.write("text", &text);
        if kind == "rsa" {
            scene.refused(&["sign", "winter", "--key", kind], 2).says("ssh-keygen -Y sign -f rsa");
        } else {
            scene.run(&["sign", "winter", "--key", kind]).exits(0);
            assert!(verified(&scene), "{kind}");
        }
        // Made there, checked here.
        let signature = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "backout-package", "-f"])
            .arg(&key)
            .stdin(fs::File::open(scene.path("text")).unwrap())
            .output()
            .unwrap();
        assert!(signature.status.success(), "{kind}");
        fs::write(scene.path("winter/package.sig"), &signature.stdout).unwrap();
        scene.run(&["plan", "winter"]).exits(0);
    }
}

#[test]
fn a_locked_key_is_for_ssh_keygen() {
    let scene = trusting(true);
    let key = scene.path("locked");
    let words = ["-q", "-t", "ed25519", "-N", "secret", "-f", key.to_str().unwrap()];
    assert!(Command::new("ssh-keygen").args(words).status().unwrap().success());
    scene
        .refused(&["sign", "winter", "--key", "locked"], 2)
        .says("is locked by a passphrase")
        .says("ssh-keygen -Y sign");
    scene.refused(&["sign", "winter", "--key", "release.pub"], 2).says("is no private SSH key");
    scene.refused(&["sign", "winter"], 2).says("--key");
}
