//! What strikes a PostgreSQL server, or the way to it, while the tool lives: its sessions are ended, the server is killed
//! or stopped at once, the connection is cut in three ways; before every statement and commit of a deployment, an undo
//! and a redo. Each time the command says what became of it, the site is exactly that, and goes on working.
//!
//! `BACKOUT_POINT=N` plays one point only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_model::fault::Point;
use backout_testkit::every;
use backout_testkit::faults::play_act;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::postgres::Server;
use backout_testkit::proxy::Proxy;
use backout_testkit::stage::{Act, Cast};

use crate::crash::{count, server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// `pg_terminate_backend` on all sessions of the tool.
    Terminate,
    /// SIGKILL of the postmaster, and a start.
    Kill,
    /// An immediate shutdown, and a start.
    StopAtOnce,
    /// Both sides notice that the connections are gone.
    Cut,
    /// The server does not notice.
    Sever,
    /// The server does what it was asked, and nobody hears the answer.
    Swallow,
}

/// A server and the way to it, of one thread.
struct Place {
    server: &'static Server,
    proxy: &'static Proxy,
    twin: Fingerprint,
}

impl Place {
    fn new() -> Self {
        let server = server();
        let proxy = Box::leak(Box::new(Proxy::before(server)));
        let twin = Act::twin(Cast::Through(server, proxy));
        Self { server, proxy, twin }
    }

    fn cast(&self) -> Cast {
        Cast::Through(self.server, self.proxy)
    }
}

fn strike(blow: Blow, server: &Server, proxy: &Proxy) {
    match blow {
        Blow::Terminate => {
            let mut client = server.connect("postgres");
            let sessions = "FROM pg_stat_activity WHERE application_name = 'backout'";
            client.batch_execute(&format!("SELECT pg_terminate_backend(pid) {sessions}")).unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while client.query_opt(&format!("SELECT 1 {sessions} LIMIT 1"), &[]).unwrap().is_some() {
                assert!(Instant::now() < deadline, "sessions do not end");
                std::thread::yield_now();
            }
        }
        Blow::Kill => {
            server.kill();
            server.start();
        }
        Blow::StopAtOnce => {
            server.stop_at_once();
            server.start();
        }
        Blow::Cut => proxy.cut(),
        Blow::Sever => proxy.sever(),
        Blow::Swallow => proxy.swallow_answers(),
    }
}

fn struck(place: &Place, act: Act, blow: Blow, n: usize) -> Result<(), String> {
    let stage = act.stage(place.cast());
    let (server, proxy) = (place.server, place.proxy);
    let playing = play_act(n, move || strike(blow, server, proxy));
    let done = act.play(&stage);
    let passed = playing.seen().len() >= n;
    drop(playing);
    if !passed {
        return Err("the point was not passed: the run is not the same every time".to_owned());
    }
    if matches!(blow, Blow::Sever) {
        // A server that heard nothing ends such a session once its keepalive does; until then it has the lock.
        strike(Blow::Terminate, server, proxy);
    }
    // What was lost with the connection is the tool's own, too: its lock may still name it.
    stage.site.bury_the_dead();
    let state = stage.state(&place.twin).map_err(|what| format!("{what}\n  it said: {done:?}"))?;
    let (begin, end) = act.ends();
    let told = match done.status() {
        Status::Done => end,
        Status::Failed | Status::Refused => begin,
        other => return Err(format!("{other:?}, {state:?}: {done:?}")),
    };
    if state != told {
        return Err(format!("the site is {state:?}, but it was told: {done:?}"));
    }
    if let Ok(outcome) = &done.result {
        let undone = ["Everything was undone and verified.", NOTHING_CHANGED];
        let stands = outcome.status == Status::Failed && act != Act::Deploy;
        if outcome.status == Status::Failed && !undone.contains(&outcome.closing.as_str()) && !stands {
            return Err(format!("the closing line does not say what was left: {done:?}"));
        }
    }
    stage.goes_on(state, &place.twin)
}

/// Strikes before each act on the database that `strikes` wants.
fn before_each(act: Act, blow: Blow, strikes: fn(Point) -> bool) {
    let here = Place::new();
    let seen = count(here.cast(), act);
    let points: Vec<usize> = (1..=seen.len()).filter(|n| strikes(seen[n - 1])).collect();
    println!("{act:?}, {blow:?}: {} of {} points", points.len(), seen.len());
    let seen = Arc::new(seen);
    every::point(&format!("{act:?}, {blow:?}"), &points, here.cast().stride(), Place::new, |place, n| {
        struck(place, act, blow, n).map_err(|what| format!("{:?}: {what}", seen[n - 1]))
    });
}

fn in_database(point: Point) -> bool {
    matches!(point, Point::Statement | Point::Commit | Point::Committed)
}

fn at_a_commit(point: Point) -> bool {
    matches!(point, Point::Commit | Point::Committed)
}

#[test]
fn sessions_that_are_ended_during_a_deployment() {
    before_each(Act::Deploy, Blow::Terminate, in_database);
}

#[test]
fn sessions_that_are_ended_during_an_undo_and_a_redo() {
    before_each(Act::Undo, Blow::Terminate, in_database);
    before_each(Act::Redo, Blow::Terminate, in_database);
}

#[test]
fn a_server_that_is_killed_during_a_deployment() {
    before_each(Act::Deploy, Blow::Kill, in_database);
}

#[test]
fn a_server_that_is_killed_during_an_undo_and_a_redo() {
    before_each(Act::Undo, Blow::Kill, in_database);
    before_each(Act::Redo, Blow::Kill, in_database);
}

#[test]
fn a_server_that_is_stopped_at_once() {
    Act::ALL.into_iter().for_each(|act| before_each(act, Blow::StopAtOnce, at_a_commit));
}

#[test]
fn a_connection_that_is_cut() {
    Act::ALL.into_iter().for_each(|act| before_each(act, Blow::Cut, in_database));
}

#[test]
fn a_connection_that_only_the_tool_sees_cut() {
    Act::ALL.into_iter().for_each(|act| before_each(act, Blow::Sever, in_database));
}

#[test]
fn an_answer_that_nobody_hears() {
    Act::ALL.into_iter().for_each(|act| before_each(act, Blow::Swallow, in_database));
}
