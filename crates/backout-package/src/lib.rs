//! Packages and sites: reads `package.yaml` and `site.yaml`, packs and opens bundles, copies a package for a run.
//!
//! Never connects to a database, never touches a root, never journals: it says what is to be done and where.

pub mod alert;
pub mod application;
pub mod bundle;
pub mod capture;
pub mod check;
pub mod duration;
pub mod error;
pub mod fill;
pub mod inspect;
pub mod package;
pub mod percent;
pub mod schema;
pub mod scratch;
pub mod secret;
pub mod signature;
pub mod site;
pub mod snapshot;
pub mod step;
pub mod template;

mod beneath;
mod decode;
mod field;
mod load;
mod load_check;
mod load_step;
mod manifest;
mod nearest;
mod option_files;
mod places;
mod siblings;
mod site_file;
mod tree;
mod url;
pub mod url_mariadb;
pub mod url_postgres;
mod words;
mod yaml;
