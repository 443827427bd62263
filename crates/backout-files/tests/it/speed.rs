//! How long a step takes against what a user would run instead. By hand:
//! `cargo test -p backout-files --release --test it speed -- --ignored --nocapture`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::*;

const TREE: usize = 30_000;
const CHANGED: usize = 3_000;

fn body(i: usize, generation: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed((i * 7 + generation) as u64);
    let length = random.usize(500..16_000);
    (0..length).map(|_| random.alphanumeric() as u8).collect()
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn sh(script: String) {
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success(), "{script}");
}

#[test]
#[ignore = "a benchmark, by hand"]
fn speed_against_rsync() {
    let world = World::on_disk();
    let (root, package) = (world.root(), world.package());
    for i in 0..TREE {
        write(&root, format!("d{}/e{}/f{i}.php", i % 30, i % 300), body(i, 0));
        if i % (TREE / CHANGED) == 0 {
            write(&package, format!("d{}/e{}/f{i}.php", i % 30, i % 300), body(i, 1));
        }
    }
    let dir = world.dir.path().display();
    let (mut rsyncs, mut applies, mut undos) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        sh(format!("rm -rf {dir}/copy {dir}/backup; cp -a {dir}/root {dir}/copy; sync -f {dir}"));
        rsyncs.push(timed(|| {
            sh(format!("rsync -a --backup --backup-dir={dir}/backup {dir}/package/ {dir}/copy/ && sync -f {dir}/copy"));
        }));
        sh(format!("sync -f {dir}"));
        let mut images = Vec::new();
        applies.push(timed(|| images = world.apply(&world.overlay()).0));
        undos.push(timed(|| drop(world.undo(&images, STOP).unwrap())));
        sh(format!("rm -rf {}", world.hold().display()));
    }
    let median = |all: &mut Vec<Duration>| {
        all.sort();
        all[all.len() / 2]
    };
    let (rsync, apply, undo) = (median(&mut rsyncs), median(&mut applies), median(&mut undos));
    let ratio = |time: Duration| time.as_secs_f64() / rsync.as_secs_f64();
    println!("rsync {rsync:?}, apply {apply:?} ({:.2} x), undo {undo:?} ({:.2} x)", ratio(apply), ratio(undo));
}
