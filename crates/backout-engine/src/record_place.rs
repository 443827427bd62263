//! Where a record may be written to.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use backout_package::site::Site;

use crate::error::EngineError;

/// A record goes over nothing but another record, and into nothing that is the site's: it holds people's data, and a root is
/// what a web server shows.
pub(crate) fn is_free(site: &Site, kept: &Path, to: &Path) -> Result<(), EngineError> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let refused = |what: String| EngineError::Usage { what, hint: Some("name another place".to_owned()) };
    if to.exists() && !to.is_dir() {
        let mut begin = [0; ZSTD.len()];
        let read = File::open(to).and_then(|mut file| file.read_exact(&mut begin));
        if !to.is_file() || read.is_err() || begin != ZSTD {
            return Err(refused(format!("{} is there already and is no record", to.display())));
        }
    }
    let parent = to.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let place = if to.is_dir() { to } else { parent };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let place = real(place);
    if let Some(root) = site.roots.iter().find(|root| place.starts_with(real(&root.path))) {
        return Err(refused(format!("{} lies in the root {}, which the site shows", to.display(), root.name)));
    }
    if place.starts_with(real(&site.state)) && !place.starts_with(real(kept)) {
        return Err(refused(format!("{} lies in the state directory", to.display())));
    }
    Ok(())
}
