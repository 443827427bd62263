//! What `backout new` and `backout init` write: files that load as they are, with the rest of the keys in comments.

use crate::application::in_url;
use crate::words::{check_name, check_word};

/// One file to be written, relative to the new package's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    pub path: &'static str,
    pub content: String,
}

/// The files of a package to start from. An error says what is wrong with the name.
pub fn new_package(name: &str) -> Result<Vec<TemplateFile>, String> {
    check_name("package's name", name)?;
    let manifest = include_str!("template/package.yaml").replace("@NAME@", name);
    Ok(vec![
        TemplateFile { path: "package.yaml", content: manifest },
        TemplateFile { path: "sql/010-change.sql", content: include_str!("template/change.sql").to_owned() },
    ])
}

/// What a new site is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSite {
    pub name: String,
    /// Where its database is; none: the site has none.
    pub url: Option<String>,
    /// A directory; none: the site has no root.
    pub root: Option<String>,
    /// Paths in it that deployments leave alone.
    pub keep: Vec<String>,
    /// Where the state lies; none: `.backout` beside the file.
    pub state: Option<String>,
    /// The file of the backup's password; none: no backups are taken.
    pub password_file: Option<String>,
    /// The commands that close the site and open it again.
    pub maintenance: Option<[Vec<String>; 2]>,
    /// Commands that packages of this site do well to end with.
    pub finally: Vec<Vec<String>>,
}

/// The URL of an SQLite file.
pub fn sqlite_url(path: &str) -> String {
    format!("sqlite:{}", in_url(path))
}

/// The text of a `site.yaml`. An error says what is wrong with the name.
pub fn site_yaml(site: &NewSite) -> Result<String, String> {
    check_word("site", &site.name)?;
    let databases = match &site.url {
        Some(url) => format!("databases:\n  main:\n    url: {}\n", quoted(url)),
        None => "# databases:\n#   main:\n#     url: \"sqlite:shop.sqlite\"\n".to_owned(),
    };
    let roots = match &site.root {
        Some(path) => format!("roots:\n  web:\n    path: {}\n    keep: {}\n", quoted(path), list(&site.keep)),
        None => "# roots:\n#   web:\n#     path: \"htdocs\"\n#     keep: [\"uploads\"]\n".to_owned(),
    };
    let state = match &site.state {
        Some(path) => format!("state: {}\n", quoted(path)),
        None => "# state: \"/var/lib/backout/shop\"\n".to_owned(),
    };
    let backup = match &site.password_file {
        Some(path) => {
            format!("backup:\n  password-file: {}\n  keep: {{last: 10, daily: 7, weekly: 4}}\n", quoted(path))
        }
        None => "# backup:\n#   password-file: /etc/backout/password\n#   keep: {last: 10, daily: 7, weekly: 4}\n"
            .to_owned(),
    };
    let maintenance = match &site.maintenance {
        Some([enter, leave]) => format!("maintenance:\n  enter: {}\n  leave: {}\n", list(enter), list(leave)),
        None => {
            "# maintenance:\n#   enter: [touch, maintenance.flag]\n#   leave: [rm, -f, maintenance.flag]\n".to_owned()
        }
    };
    let finally: String = site.finally.iter().map(|command| format!("#   - run: {}\n", list(command))).collect();
    let finally = match finally.as_str() {
        "" => finally,
        _ => {
            format!("\n# What packages do well to end with, however they end, in package.yaml:\n# finally:\n{finally}")
        }
    };
    Ok(include_str!("template/site.yaml")
        .replace("@NAME@", &quoted(&site.name))
        .replace("@DATABASES@\n", &databases)
        .replace("@ROOTS@\n", &roots)
        .replace("@STATE@\n", &state)
        .replace("@BACKUP@\n", &backup)
        .replace("@MAINTENANCE@\n", &maintenance)
        .replace("@FINALLY@\n", &finally))
}

/// A list of texts on one line.
fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// A text as YAML takes it whatever it holds: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
