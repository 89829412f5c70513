//! TLS by rustls. Certificates and keys are read at each connection: they are renewed while the agent runs.

use std::{fs, io, path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::config::Tls;

/// Files of certificates have some kilobytes, a system's bundle some hundreds.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// Speaks TLS over `stream`, with a server that must be `host`.
pub async fn connect(
    tls: &Tls,
    host: &str,
    alpn: &[&str],
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let mut config = client_config(tls)?;
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(match &tls.ca {
            Some(path) => format!("{}: there is no certificate in it", path.display()),
            None => "the system has no certificates of authorities; name a file in `ca`".to_owned(),
        });
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let bytes = read(key)?;
            let secret = PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|_| format!("{}: no private key", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, secret)
                .map_err(|error| format!("{}: {error}", cert.display()))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{}: no certificates in PEM", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_PEM_BYTES), &mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes)
}
