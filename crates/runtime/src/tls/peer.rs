//! Who a verified client certificate says the client is.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::identity::ClientIdentity;

/// The identity in the first certificate of a chain that TLS has verified. No certificate, or one without a name, is
/// anonymous.
pub(crate) fn client_identity(verified: Option<&[CertificateDer<'_>]>) -> ClientIdentity {
    let leaf = verified.and_then(|chain| X509Certificate::from_der(chain.first()?).ok());
    let Some((_, leaf)) = leaf else {
        return ClientIdentity::Anonymous;
    };
    let common_name = leaf
        .subject()
        .iter_common_name()
        .find_map(|name| name.as_str().ok().map(str::to_owned));
    let sans: Vec<_> = match leaf.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(text).collect(),
        _ => Vec::new(),
    };
    if common_name.is_none() && sans.is_empty() {
        return ClientIdentity::Anonymous;
    }
    ClientIdentity::Tls { common_name, sans }
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}
