//! A certificate authority of our own, for servers that only the API server has to trust: webhooks.
//!
//! Owns how it is made, replaced and used to sign; where it is kept is its users' business. Pure: the time is passed in.
//! A replaced authority stays trusted until the next one, so that nobody meets a server that it does not know.

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Why a certificate cannot be made. Never with a byte of a key.
pub use rcgen::Error as AuthorityError;

const DAY_MS: u64 = 86_400_000;
/// An authority is valid for two years and replaced after one; the one before stays trusted meanwhile.
const AUTHORITY_DAYS: u64 = 730;
const REPLACED_AFTER_DAYS: u64 = 365;

/// The authority that signs, and all that are trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    key: String,
    trusted: String,
}

/// What a server shows, PEM.
#[derive(Clone)]
pub struct Serving {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// `before` stays trusted; the one before that does not.
    ///
    /// # Errors
    /// The crypto provider makes no key.
    pub fn new(subject: &str, now_unix_ms: u64, before: Option<&Self>) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut trusted = params(subject, now_unix_ms).self_signed(&key)?.pem();
        let newest = before.and_then(|before| before.trusted.split_inclusive("-----END CERTIFICATE-----").next());
        trusted.extend(newest.map(|pem| format!("{}\n", pem.trim())));
        Ok(Self {
            key: key.serialize_pem(),
            trusted,
        })
    }

    /// As it was kept; `None` where the key is none.
    pub fn of_parts(key: String, trusted: String) -> Option<Self> {
        KeyPair::from_pem(&key).is_ok().then_some(Self { key, trusted })
    }

    /// The signing key, PEM. To be kept where only its owner reads it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// All that are trusted, PEM, newest first.
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    /// A server's certificate for these names, valid for so many days.
    ///
    /// # Errors
    /// A name cannot be one, or the crypto provider makes no key.
    pub fn serving(
        &self,
        subject: &str,
        names: Vec<String>,
        now_unix_ms: u64,
        days: u64,
    ) -> Result<Serving, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params_of_server = CertificateParams::new(names)?;
        valid(&mut params_of_server, now_unix_ms, days);
        params_of_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::new(params(subject, now_unix_ms), KeyPair::from_pem(&self.key)?);
        Ok(Serving {
            certificate: params_of_server.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Whether an authority of that age is to be replaced. Without a word on its age it is old.
pub fn is_old(made_unix_ms: Option<u64>, now_unix_ms: u64) -> bool {
    made_unix_ms.is_none_or(|made| now_unix_ms.saturating_sub(made) > REPLACED_AFTER_DAYS * DAY_MS)
}

fn params(subject: &str, now: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, now, AUTHORITY_DAYS);
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// From yesterday, since clocks differ.
fn valid(params: &mut CertificateParams, now: u64, days: u64) {
    let (year, month, day) = date(now.saturating_sub(DAY_MS));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(now + days * DAY_MS);
    params.not_after = date_time_ymd(year, month, day);
}

fn date(unix_ms: u64) -> (i32, u8, u8) {
    let date = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let date = date.unwrap_or_default().to_zoned(TimeZone::UTC).date();
    let positive = |number: i8| u8::try_from(number).unwrap_or(1);
    (date.year().into(), positive(date.month()), positive(date.day()))
}

// So that no derived `Debug` of a holder can show a key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(not shown)")
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn a_replaced_authority_stays_trusted_once() {
        let first = Authority::new("a", NOW, None).unwrap();
        let second = Authority::new("a", NOW, Some(&first)).unwrap();
        let third = Authority::new("a", NOW, Some(&second)).unwrap();
        let count = |authority: &Authority| authority.trusted().matches("BEGIN CERTIFICATE").count();
        assert_eq!((count(&first), count(&second), count(&third)), (1, 2, 2));
        assert!(second.trusted().contains(first.trusted().trim()) && !third.trusted().contains(first.trusted().trim()));
        let kept = Authority::of_parts(second.key().to_owned(), second.trusted().to_owned()).unwrap();
        assert_eq!(kept, second);
        assert!(Authority::of_parts("no key".to_owned(), String::new()).is_none());
        let shown = format!(
            "{second:?} {:?}",
            second.serving("a", vec!["b.svc".to_owned()], NOW, 7).unwrap()
        );
        assert!(!shown.contains("KEY"), "{shown}");
    }

    #[test]
    fn an_authority_is_old_after_a_year_and_where_nobody_knows() {
        assert!(!is_old(Some(NOW), NOW) && is_old(Some(NOW), NOW + 366 * DAY_MS) && is_old(None, NOW));
    }
}
