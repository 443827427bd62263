//! Signatures of packages and records, as `ssh-keygen -Y sign` makes them and `ssh-keygen -Y verify` checks them.
//!
//! What is signed is a line of text with the digest of all that lies in the package's directory but the signature
//! itself, so that a directory and its bundle have the same one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::error::PackageError;
use crate::package::Package;
use crate::tree::{self, Descend, TreeHasher};

/// Where a package has its signature.
pub const SIGNATURE_FILE: &str = "package.sig";
/// What keeps a signature from being taken for one of something else (`ssh-keygen -n`).
pub const NAMESPACE: &str = "backout-package";

/// A public key that packages may be signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The file that it stands in.
    pub file: PathBuf,
    key: PublicKey,
}

/// Reads the public keys of a file: a line each, as in `id_ed25519.pub`; comments and empty lines pass.
pub fn read_keys(file: &Path) -> Result<Vec<TrustedKey>, PackageError> {
    let text = fs::read_to_string(file).map_err(|e| PackageError::read(file, e))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<TrustedKey> = lines
        .map(|line| match PublicKey::from_openssh(line) {
            Ok(key) => Ok(TrustedKey { file: file.to_owned(), key }),
            Err(error) => Err(PackageError::unusable(file, format!("holds a line that is no public SSH key: {error}"))),
        })
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(PackageError::unusable(file, "holds no public SSH key"));
    }
    Ok(keys)
}

/// What a signature is of.
pub fn signed_text(package: &Package) -> Result<String, PackageError> {
    let mut hasher = TreeHasher::new();
    tree::walk(&package.dir, &mut |entry| {
        if entry.relative != Path::new(SIGNATURE_FILE) {
            tree::hash_entry(&mut hasher, entry, &mut io::sink())?;
        }
        Ok(Descend::Yes)
    })?;
    let digest: String = hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("backout package {} {} blake3:{digest}\n", package.name, package.version))
}

/// Signs a package with a private key in OpenSSH's format, in place of the signature that it has.
pub fn sign(package: &Package, key_file: &Path) -> Result<PathBuf, PackageError> {
    let by_ssh_keygen = format!(
        "backout sign PACKAGE --text | ssh-keygen -Y sign -f {} -n {NAMESPACE} > PACKAGE/{SIGNATURE_FILE}",
        key_file.display()
    );
    let signed = sign_text(key_file, NAMESPACE, signed_text(package)?.as_bytes(), Some(by_ssh_keygen))?;
    let file = package.dir.join(SIGNATURE_FILE);
    let mut out = tempfile::NamedTempFile::new_in(&package.dir).map_err(|e| PackageError::write(&file, e))?;
    out.write_all(signed.as_bytes()).map_err(|e| PackageError::write(&file, e))?;
    out.persist(&file).map_err(|e| PackageError::write(&file, e.error))?;
    Ok(file)
}

/// Signs a text with a private key in OpenSSH's format, as `ssh-keygen -Y sign -n NAMESPACE` does. `otherwise` is what to
/// do with a key that can't be used here.
pub fn sign_text(
    key_file: &Path,
    namespace: &str,
    text: &[u8],
    otherwise: Option<String>,
) -> Result<String, PackageError> {
    let key = fs::read_to_string(key_file).map_err(|e| PackageError::read(key_file, e))?;
    let unusable = |error: ssh_key::Error| PackageError::unusable(key_file, format!("is no private SSH key: {error}"));
    let key = PrivateKey::from_openssh(key).map_err(unusable)?;
    let not_here = |what: String| PackageError::Unusable { path: key_file.to_owned(), what, hint: otherwise.clone() };
    if key.is_encrypted() {
        return Err(not_here("is locked by a passphrase".to_owned()));
    }
    key.sign(namespace, HashAlg::Sha512, text)
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .map_err(|error| not_here(format!("cannot sign here: {error}")))
}

/// What became of a package's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By this key, `SHA256:…`, of this file.
    By { fingerprint: String, file: PathBuf },
    /// It has none.
    Not,
    /// It has one that does not count, and why.
    Badly(String),
}

/// Looks at a package's signature.
pub fn verify(package: &Package, keys: &[TrustedKey]) -> Result<Signed, PackageError> {
    let file = package.dir.join(SIGNATURE_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Signed::Not),
        Err(error) => return Err(PackageError::read(&file, error)),
    };
    Ok(verify_text(&text, NAMESPACE, signed_text(package)?.as_bytes(), keys))
}

/// Looks at the signature of a text.
pub fn verify_text(signature: &str, namespace: &str, text: &[u8], keys: &[TrustedKey]) -> Signed {
    let signature = match SshSig::from_pem(signature) {
        Ok(signature) => signature,
        Err(error) => return Signed::Badly(format!("its signature cannot be read: {error}")),
    };
    let by = PublicKey::from(signature.public_key().clone());
    let fingerprint = by.fingerprint(HashAlg::Sha256).to_string();
    let Some(key) = keys.iter().find(|key| key.key.key_data() == by.key_data()) else {
        return Signed::Badly(format!("it is signed with {fingerprint}, which the site does not trust"));
    };
    match key.key.verify(namespace, text, &signature) {
        Ok(()) => Signed::By { fingerprint, file: key.file.clone() },
        Err(_) => {
            Signed::Badly("it is not what was signed: it was changed since, or the signature is of another".to_owned())
        }
    }
}
