//! What `backout new` and `backout init` write: files that load as they are, with the rest of the keys in comments.

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
    /// An SQLite file; none: the site has no database.
    pub database: Option<String>,
    /// A directory; none: the site has no root.
    pub root: Option<String>,
    /// Where the state lies; none: `.backout` beside the file.
    pub state: Option<String>,
    /// The file of the backup's password; none: no backups are taken.
    pub password_file: Option<String>,
}

/// The text of a `site.yaml`. An error says what is wrong with the name.
pub fn site_yaml(site: &NewSite) -> Result<String, String> {
    check_word("site", &site.name)?;
    let databases = match &site.database {
        Some(path) => format!("databases:\n  main:\n    url: {}\n", quoted(&format!("sqlite:{}", in_url(path)))),
        None => "# databases:\n#   main:\n#     url: \"sqlite:shop.sqlite\"\n".to_owned(),
    };
    let roots = match &site.root {
        Some(path) => format!("roots:\n  web:\n    path: {}\n    keep: []\n", quoted(path)),
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
    Ok(include_str!("template/site.yaml")
        .replace("@NAME@", &quoted(&site.name))
        .replace("@DATABASES@\n", &databases)
        .replace("@ROOTS@\n", &roots)
        .replace("@STATE@\n", &state)
        .replace("@BACKUP@\n", &backup))
}

/// A text as YAML takes it whatever it holds: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path as it stands in a URL.
fn in_url(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace("${", "%24{")
}
