//! Crash safety: the process dies at every point of the fault seam that a deployment, an undo and a redo pass, and
//! every one of those calls fails once on a full and once on a broken disk. Each time the site is exactly as before
//! or exactly as after, and goes on working. Nothing ever needs a hand.
//!
//! Here a death is played within the process; that of the binary plays real ones. `BACKOUT_POINT=N` plays one point
//! only; `BACKOUT_KEEP=1` leaves the sites and says where they are.

use std::collections::BTreeMap;

use backout_engine::outcome::Status;
use backout_model::fault::Point;
use backout_testkit::every;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::postgres::{Server, Setup};
use backout_testkit::stage::{Act, Cast};

/// Plays one fault and judges what is left.
fn play_one(cast: Cast, act: Act, fault: Fault, twin: &Fingerprint, deaths: &[usize]) -> Result<(), String> {
    let stage = act.stage(cast);
    let playing = play(fault, false);
    let done = act.play(&stage);
    let struck = playing.struck();
    drop(playing);
    if !struck {
        return Err("the point was not passed: the run is not the same every time".to_owned());
    }
    let (begin, end) = act.ends();
    let state = if let Fault::CrashAt(_) = fault {
        stage.resume(deaths)?;
        stage.state(twin)?
    } else {
        stage.site.bury_the_dead();
        let state = stage.state(twin).map_err(|what| format!("{what}\n  it said: {done:?}"))?;
        let told = match done.status() {
            Status::Done => end,
            Status::Failed | Status::Refused => begin,
            other => return Err(format!("{other:?}, {state:?}: {done:?}")),
        };
        if state != told {
            return Err(format!("the site is {state:?}, but it was told: {done:?}"));
        }
        state
    };
    stage.goes_on(state, twin)
}

/// The points that the act passes.
pub fn count(cast: Cast, act: Act) -> Vec<Point> {
    let stage = act.stage(cast);
    let playing = play(Fault::None, false);
    act.play(&stage).expect(Status::Done);
    playing.seen()
}

/// Plays the fault at every point of the act, on as many threads as there are processors.
fn at_every_point(cast: Cast, act: Act, fault: fn(usize) -> Fault, deaths: fn(usize) -> Vec<usize>) {
    let (seen, twin) = (count(cast, act), Act::twin(cast));
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    seen.iter().for_each(|point| *kinds.entry(format!("{point:?}")).or_default() += 1);
    println!("{act:?}: {} points: {kinds:?}", seen.len());
    let points: Vec<usize> = (1..=seen.len()).collect();
    every::point(
        &format!("{act:?}"),
        &points,
        cast.stride(),
        || (),
        |(), n| {
            play_one(cast, act, fault(n), &twin, &deaths(n)).map_err(|what| {
                format!("{:?} ({:?}), deaths of the recovery at {:?}: {what}", fault(n), seen[n - 1], deaths(n))
            })
        },
    );
}

fn none(_: usize) -> Vec<usize> {
    Vec::new()
}

/// The recovery dies too, at a point that wanders with `n`, and the recovery of the recovery.
fn twice(n: usize) -> Vec<usize> {
    vec![n * 37 % 97 + 1, n * 53 % 61 + 1]
}

/// A server of the test's own, whose syncs are left out: no power is lost here.
pub fn server() -> &'static Server {
    Box::leak(Box::new(Server::with(&Setup::default())))
}

#[test]
fn a_deployment_that_dies_anywhere() {
    at_every_point(Cast::Sqlite, Act::Deploy, Fault::CrashAt, none);
}

#[test]
fn an_undo_that_dies_anywhere() {
    at_every_point(Cast::Sqlite, Act::Undo, Fault::CrashAt, none);
}

#[test]
fn a_redo_that_dies_anywhere() {
    at_every_point(Cast::Sqlite, Act::Redo, Fault::CrashAt, none);
}

#[test]
fn a_recovery_that_dies_too() {
    for act in Act::ALL {
        at_every_point(Cast::Sqlite, act, Fault::CrashAt, twice);
    }
}

#[test]
fn a_full_disk_anywhere() {
    for act in Act::ALL {
        at_every_point(Cast::Sqlite, act, Fault::NoSpaceAt, none);
    }
}

#[test]
fn a_broken_disk_anywhere() {
    for act in Act::ALL {
        at_every_point(Cast::Sqlite, act, Fault::BrokenAt, none);
    }
}

#[test]
fn captured_commands_in_a_run_that_dies_anywhere() {
    Act::ALL.into_iter().for_each(|act| at_every_point(Cast::Captured, act, Fault::CrashAt, none));
}

#[test]
fn captured_commands_and_a_recovery_that_dies_too() {
    at_every_point(Cast::Captured, Act::Deploy, Fault::CrashAt, twice);
}

#[test]
fn captured_commands_on_a_full_and_a_broken_disk() {
    at_every_point(Cast::Captured, Act::Deploy, Fault::NoSpaceAt, none);
    at_every_point(Cast::Captured, Act::Deploy, Fault::BrokenAt, none);
}

#[test]
fn captured_commands_on_postgres_in_a_run_that_dies_anywhere() {
    let cast = Cast::CapturedPostgres(server());
    Act::ALL.into_iter().for_each(|act| at_every_point(cast, act, Fault::CrashAt, none));
}

#[test]
fn captured_commands_on_postgres_and_a_recovery_that_dies_too() {
    at_every_point(Cast::CapturedPostgres(server()), Act::Deploy, Fault::CrashAt, twice);
}

#[test]
fn captured_commands_on_postgres_on_a_full_and_a_broken_disk() {
    let cast = Cast::CapturedPostgres(server());
    at_every_point(cast, Act::Deploy, Fault::NoSpaceAt, none);
    at_every_point(cast, Act::Deploy, Fault::BrokenAt, none);
}

fn captured_mariadb() -> Cast {
    Cast::CapturedMariadb(backout_testkit::mariadb::Server::shared())
}

#[test]
fn captured_commands_on_mariadb_in_a_run_that_dies_anywhere() {
    Act::ALL.into_iter().for_each(|act| at_every_point(captured_mariadb(), act, Fault::CrashAt, none));
}

#[test]
fn captured_commands_on_mariadb_and_a_recovery_that_dies_too() {
    at_every_point(captured_mariadb(), Act::Deploy, Fault::CrashAt, twice);
}

#[test]
fn captured_commands_on_mariadb_on_a_full_and_a_broken_disk() {
    at_every_point(captured_mariadb(), Act::Deploy, Fault::NoSpaceAt, none);
    at_every_point(captured_mariadb(), Act::Deploy, Fault::BrokenAt, none);
}

#[test]
fn a_deployment_on_postgres_that_dies_anywhere() {
    at_every_point(Cast::Postgres(server()), Act::Deploy, Fault::CrashAt, none);
}

#[test]
fn an_undo_on_postgres_that_dies_anywhere() {
    at_every_point(Cast::Postgres(server()), Act::Undo, Fault::CrashAt, none);
}

#[test]
fn a_redo_on_postgres_that_dies_anywhere() {
    at_every_point(Cast::Postgres(server()), Act::Redo, Fault::CrashAt, none);
}

#[test]
fn a_recovery_on_postgres_that_dies_too() {
    let cast = Cast::Postgres(server());
    Act::ALL.into_iter().for_each(|act| at_every_point(cast, act, Fault::CrashAt, twice));
}

/// The full disk is that of the tool; the server's own is another suite's.
#[test]
fn a_full_disk_anywhere_beside_postgres() {
    let cast = Cast::Postgres(server());
    Act::ALL.into_iter().for_each(|act| at_every_point(cast, act, Fault::NoSpaceAt, none));
}
