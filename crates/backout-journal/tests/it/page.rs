//! `docs/journal.md` shows the state tables and the tables of the database: from the code, never by hand.

use std::fmt::Write as _;
use std::path::Path;

use backout_model::state::{self, DeploymentState, Event, FrameState, Scope, StepState};
use serde::Serialize;

fn name<T: Serialize>(word: T) -> String {
    serde_json::to_value(word).unwrap().as_str().unwrap().to_owned()
}

/// One line an event: from which states it leads where.
fn table<S: Copy + PartialEq + Serialize>(
    scope: Scope,
    all: &[S],
    next: impl Fn(Option<S>, Event) -> Option<S>,
) -> String {
    let mut text = String::from("| event | from | to |\n| --- | --- | --- |\n");
    for event in Event::ALL.iter().copied().filter(|event| event.scope() == scope) {
        let mut ends: Vec<(S, Vec<String>)> = Vec::new();
        let starts = std::iter::once(None).chain(all.iter().copied().map(Some));
        for from in starts {
            let Some(to) = next(from, event) else { continue };
            let from = from.map_or_else(|| "*nothing yet*".to_owned(), name);
            match ends.iter_mut().find(|(end, _)| *end == to) {
                Some((_, starts)) => starts.push(from),
                None => ends.push((to, vec![from])),
            }
        }
        for (to, starts) in ends {
            writeln!(text, "| `{}` | {} | {} |", name(event), starts.join(", "), name(to)).unwrap();
        }
    }
    text
}

fn list(which: impl Fn(DeploymentState) -> bool) -> String {
    let names: Vec<_> = DeploymentState::ALL.iter().copied().filter(|state| which(*state)).map(name).collect();
    names.join(", ")
}

fn events(scope: Scope) -> String {
    let names: Vec<_> = Event::ALL
        .iter()
        .copied()
        .filter(|event| event.scope() == scope)
        .map(|event| format!("`{}`", name(event)))
        .collect();
    names.join(", ")
}

fn states() -> String {
    format!(
        "### Deployment\n\n{}\nUnder way (after a crash: to be resumed): {}.\n\nIts changes are on the site: {}.\n\n\
         ### Frame\n\n{}\n### Step\n\n{}\n### Others\n\nNotes within a deployment, which move no state: {}.\n\n\
         Of the site as a whole: {}.\n",
        table(Scope::Deployment, DeploymentState::ALL, state::deployment),
        list(DeploymentState::is_underway),
        list(DeploymentState::is_on_site),
        table(Scope::Frame, FrameState::ALL, state::frame),
        table(Scope::Step, StepState::ALL, state::step),
        events(Scope::Note),
        events(Scope::Site),
    )
}

/// Puts `text` between the two comments that name `part`.
fn with_part(page: &str, part: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {part}: made by a test -->\n"), format!("<!-- {part}: end -->"));
    let (head, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no beginning of {part}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("no end of {part}"));
    format!("{head}{begin}\n{text}\n{end}{tail}")
}

#[test]
fn the_page_shows_the_tables_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/journal.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let schema = format!("```sql\n{}```\n", include_str!("../../src/schema.sql"));
    let fresh = with_part(&with_part(&page, "states", &states()), "tables", &schema);
    if std::env::var_os("BACKOUT_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(
        page == fresh || std::env::var_os("BACKOUT_BLESS").is_some(),
        "docs/journal.md is stale: run this test with BACKOUT_BLESS=1"
    );
}
