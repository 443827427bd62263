//! TLS as `sslmode` asks for it, by rustls.
//!
//! Never verifies less than asked: `verify-ca` the chain, `verify-full` the name, too; `require` and below neither, as
//! with libpq, unless a root certificate is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conn::ConnError;

/// What the connection must be like.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The chain is verified; the name, too.
    chain: bool,
    name: bool,
    roots: Option<PathBuf>,
    /// Lists of certificates that were revoked.
    revoked: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

/// The versions of TLS between two, which are as libpq has them; an empty one is no bound. None older than 1.2 is known.
fn versions(least: &str, most: &str) -> Result<Vec<&'static SupportedProtocolVersion>, ConnError> {
    const OLDER: [&str; 3] = ["", "TLSv1", "TLSv1.1"];
    let bad = |name: &str| ConnError::Tls(format!("{name} is no version of TLS that can be spoken here"));
    let from = match least {
        "TLSv1.3" => 1,
        "TLSv1.2" => 0,
        old if OLDER.contains(&old) => 0,
        _ => return Err(bad("ssl_min_protocol_version")),
    };
    let to = match most {
        "" | "TLSv1.3" => 2,
        "TLSv1.2" => 1,
        _ => return Err(bad("ssl_max_protocol_version")),
    };
    [&TLS12, &TLS13]
        .get(from..to)
        .filter(|some| !some.is_empty())
        .map(<[_]>::to_vec)
        .ok_or_else(|| ConnError::Tls("ssl_min_protocol_version is above ssl_max_protocol_version".to_owned()))
}

impl Wanted {
    pub fn of(
        params: &BTreeMap<String, String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConnError> {
        let mode = params.get("sslmode").map_or("prefer", String::as_str);
        let only_sockets = params.get("host").is_some_and(|host| host.split(',').all(|one| one.starts_with('/')));
        if mode == "disable" || only_sockets {
            return Ok(None);
        }
        let beside = |name: &str| {
            env("HOME").map(|home| Path::new(&home).join(".postgresql").join(name)).filter(|path| path.is_file())
        };
        let named = |name: &str| params.get(name).map(PathBuf::from);
        let text = |name: &str| params.get(name).map_or("", String::as_str);
        let system = params.get("sslrootcert").is_some_and(|value| value == "system");
        let roots = if system { None } else { named("sslrootcert").or_else(|| beside("root.crt")) };
        let certificate = named("sslcert").or_else(|| beside("postgresql.crt"));
        let key = named("sslkey").or_else(|| beside("postgresql.key"));
        Ok(Some(Self {
            chain: matches!(mode, "verify-ca" | "verify-full") || mode == "require" && roots.is_some(),
            name: mode == "verify-full",
            roots,
            revoked: named("sslcrl").or_else(|| beside("root.crl")),
            certificate: certificate.zip(key),
            versions: versions(text("ssl_min_protocol_version"), text("ssl_max_protocol_version"))?,
        }))
    }

    pub fn connector(&self) -> Result<MakeRustlsConnect, ConnError> {
        let failed = |error: &dyn std::fmt::Display| ConnError::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            Arc::new(Verifier { inner: self.inner(&provider)?, name: self.name, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| ConnError::Tls(format!("{}: {error}", key.display())))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| failed(&error))?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }

    fn inner(&self, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>, ConnError> {
        if !self.chain {
            return Ok(None);
        }
        let mut store = RootCertStore::empty();
        match &self.roots {
            Some(path) => {
                store.add_parsable_certificates(certificates(path)?);
            }
            None => {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let mut verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
        if let Some(path) = &self.revoked {
            let failed = |error: rustls::pki_types::pem::Error| ConnError::Tls(format!("{}: {error}", path.display()));
            let lists = CertificateRevocationListDer::pem_file_iter(path).map_err(failed)?;
            verifier = verifier.with_crls(lists.collect::<Result<Vec<_>, _>>().map_err(failed)?);
            verifier = verifier.enforce_revocation_expiration();
        }
        verifier.build().map(Some).map_err(|error| ConnError::Tls(error.to_string()))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnError> {
    let failed = |error: rustls::pki_types::pem::Error| ConnError::Tls(format!("{}: {error}", path.display()));
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Verifies as much as was asked for.
#[derive(Debug)]
struct Verifier {
    /// `None`: whoever answers is taken for the server.
    inner: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end, between, name, ocsp, now) {
            // The name is looked at after the chain, so that only it can be wrong here.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
