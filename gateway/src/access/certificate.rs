//! Who a client certificate says its owner is. The TLS library has verified it before anybody asks here.

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{Identity, Means};

/// The longest name of an identity, in bytes; a SPIFFE ID has at most 2048, of which nobody uses a quarter.
pub const NAME_LIMIT: usize = 512;

/// Why a certificate names nobody.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoName {
    /// It is no certificate that can be read.
    #[error("the client certificate can not be read")]
    Unreadable,
    /// A certificate for a workload has one SPIFFE ID; which of several would count would be chance.
    #[error("the client certificate has more than one SPIFFE ID")]
    Ambiguous,
    /// No name of a kind that counts.
    #[error("the client certificate has no SPIFFE ID, no URI, DNS or mail name, and no common name")]
    Missing,
    /// A name is empty, too long, holds control characters, or is written like a URI and is none.
    #[error(
        "the client certificate's name is empty, longer than {NAME_LIMIT} bytes, not plain text, or a URI that is written as another kind \
         of name"
    )]
    Bad,
}

/// The identity that a certificate (in DER) shows: its SPIFFE ID, else its first alternative name that is a URI, DNS or mail name, else
/// its common name.
///
/// # Errors
/// It has none of these, or one that can not be a name.
pub fn identity(certificate: &[u8]) -> Result<Identity, NoName> {
    let certificate = Certificate::from_der(certificate).map_err(|_| NoName::Unreadable)?;
    let content = certificate.tbs_certificate();
    let alternatives =
        content.get_extension::<SubjectAltName>().map_err(|_| NoName::Unreadable)?.map(|(_, names)| names.0);
    let mut spiffe = alternatives.iter().flatten().filter_map(uri).filter(|uri| uri.starts_with("spiffe://"));
    let name = match (spiffe.next(), spiffe.next()) {
        (Some(_), Some(_)) => return Err(NoName::Ambiguous),
        (Some(name), None) => name.to_owned(),
        (None, _) => match alternatives.iter().flatten().find_map(|name| uri(name).or_else(|| other_text(name))) {
            Some(name) => name.to_owned(),
            None => {
                content.subject().common_name().map_err(|_| NoName::Bad)?.ok_or(NoName::Missing)?.value().into_owned()
            }
        },
    };
    // An authority that looks well at the URIs that it signs may not look at what else could be written like one.
    let is_uri = alternatives.iter().flatten().filter_map(uri).any(|uri| uri == name);
    if name.contains("://") && !is_uri {
        return Err(NoName::Bad);
    }
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(NoName::Bad);
    }
    Ok(Identity::new(&name, Vec::new(), Means::Certificate))
}

fn uri(name: &GeneralName) -> Option<&str> {
    if let GeneralName::UniformResourceIdentifier(uri) = name { Some(uri.as_str()) } else { None }
}

fn other_text(name: &GeneralName) -> Option<&str> {
    if let GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) = name { Some(text.as_str()) } else { None }
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: Option<&str>, alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    fn ia5(text: &str) -> Ia5String {
        text.try_into().expect("plain")
    }

    #[test]
    fn the_most_specific_name_counts() {
        let spiffe = || SanType::URI(ia5("spiffe://bank.example/pay"));
        let uri = || SanType::URI(ia5("urn:uuid:1"));
        let dns = || SanType::DnsName(ia5("pay.bank.example"));
        let address = || SanType::IpAddress([10, 0, 0, 1].into());
        for (common_name, alternatives, name) in [
            (Some("pay"), vec![dns(), spiffe()], Ok("spiffe://bank.example/pay")),
            (Some("pay"), vec![address(), dns(), uri()], Ok("pay.bank.example")),
            (None, vec![uri(), dns()], Ok("urn:uuid:1")),
            (Some("pay"), vec![address()], Ok("pay")),
            (Some("pay"), vec![], Ok("pay")),
            (None, vec![address()], Err(NoName::Missing)),
            (Some("pay\nadmin"), vec![], Err(NoName::Bad)),
            (Some(""), vec![], Err(NoName::Bad)),
            (Some("spiffe://bank.example/pay"), vec![], Err(NoName::Bad)),
            (None, vec![SanType::DnsName(ia5("spiffe://bank.example/pay"))], Err(NoName::Bad)),
            (
                Some("pay"),
                vec![SanType::Rfc822Name(ia5("spiffe://bank.example/pay")), spiffe()],
                Ok("spiffe://bank.example/pay"),
            ),
            (Some("pay"), vec![spiffe(), SanType::URI(ia5("spiffe://other.example/pay"))], Err(NoName::Ambiguous)),
        ] {
            let found = identity(&certificate(common_name, alternatives));
            assert_eq!(found.as_ref().map(Identity::name), name.as_ref().copied());
        }
        assert_eq!(identity(b"0\x80not a certificate").expect_err("garbage"), NoName::Unreadable);
    }

    #[test]
    fn the_longest_name_and_one_past_it() {
        let named = |length: usize| identity(&certificate(None, vec![SanType::URI(ia5(&"u".repeat(length)))]));
        assert_eq!(named(NAME_LIMIT).expect("a name").name().len(), NAME_LIMIT);
        assert_eq!(named(NAME_LIMIT + 1).expect_err("too long"), NoName::Bad);
    }
}
