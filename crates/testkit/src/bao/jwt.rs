//! JSON Web Tokens (RFC 7519) and key sets (RFC 7517): ES256 to sign, ES256 and RS256 to verify.
//!
//! Owns signatures. It looks at no claim: who accepts a token decides that.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// An uncompressed P-256 point in a SubjectPublicKeyInfo is always preceded by these bytes (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Signs with ES256.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
    kid: String,
}

/// Verifies what was signed with the other half.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kid: Option<String>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The uncompressed point.
    Es256(Vec<u8>),
    Rs256 {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// As in a PEM file.
    Rs256Der(Vec<u8>),
}

/// Why there is no key, or no verified token. Never holds a token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwtError {
    #[error("token must be signed")]
    Malformed,
    #[error("no known key successfully validated the token signature")]
    BadSignature,
    #[error("the key cannot be used: {0}")]
    BadKey(&'static str),
}

// === impl Signer ===

impl Signer {
    /// A new key.
    pub fn generate(kid: impl Into<String>) -> Result<Self, JwtError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| JwtError::BadKey("P-256"))?;
        Ok(Self { key, kid: kid.into() })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The compact form: header, claims and signature.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, JwtError> {
        let header = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"}).to_string();
        let claims = Value::Object(claims.clone()).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| JwtError::BadKey("P-256"))?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// The public half, as a member of a key set.
    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        // 0x04, then the coordinates.
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": encode(x), "y": encode(y)})
    }

    /// The public half, PEM.
    pub fn public_pem(&self) -> String {
        let mut der = P256_SPKI.to_vec();
        der.extend_from_slice(self.key.public_key().as_ref());
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<String> = body
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// From a SubjectPublicKeyInfo in PEM: `-----BEGIN PUBLIC KEY-----`.
    pub fn from_pem(pem: &str) -> Result<Self, JwtError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| JwtError::BadKey("no PEM public key"))?;
        let kind = match der.strip_prefix(&P256_SPKI) {
            Some(point) => Kind::Es256(point.to_vec()),
            None => Kind::Rs256Der(der.to_vec()),
        };
        Ok(Self { kid: None, kind })
    }

    /// The keys of a set that can be used here; others are passed over, as RFC 7517 section 5 asks.
    pub fn from_jwks(set: &Value) -> Vec<Self> {
        set["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Self::from_jwk)
            .collect()
    }

    fn from_jwk(jwk: &Value) -> Option<Self> {
        let part = |name: &str| decode(jwk[name].as_str()?);
        let kind = match (jwk["kty"].as_str()?, jwk["crv"].as_str()) {
            ("EC", Some("P-256")) => {
                let mut point = vec![4];
                point.extend(part("x")?);
                point.extend(part("y")?);
                Kind::Es256(point)
            }
            ("RSA", _) => Kind::Rs256 {
                n: part("n")?,
                e: part("e")?,
            },
            _ => return None,
        };
        let kid = jwk["kid"].as_str().map(str::to_owned);
        Some(Self { kid, kind })
    }

    fn verifies(&self, alg: &str, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match (&self.kind, alg) {
            (Kind::Es256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            (Kind::Rs256 { n, e }, "RS256") => {
                rsa::PublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
            (Kind::Rs256Der(der), "RS256") => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(signed, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// The claims of a token that one of the keys signed. With a `kid` on both sides, they must agree.
pub fn verify(token: &str, keys: &[PublicKey]) -> Result<Map<String, Value>, JwtError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
    let header = object(header)?;
    let claims = object(claims)?;
    let signature = decode(signature).ok_or(JwtError::Malformed)?;
    let alg = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Malformed)?;
    let kid = header.get("kid").and_then(Value::as_str);
    let mut candidates = keys
        .iter()
        .filter(|key| key.kid.is_none() || kid.is_none() || key.kid.as_deref() == kid);
    candidates
        .any(|key| key.verifies(alg, signed.as_bytes(), &signature))
        .then_some(claims)
        .ok_or(JwtError::BadSignature)
}

fn object(part: &str) -> Result<Map<String, Value>, JwtError> {
    decode(part)
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or(JwtError::Malformed)
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map<String, Value> {
        json!({"sub": "nvca", "exp": 1}).as_object().unwrap().clone()
    }

    #[test]
    fn a_token_verifies_by_key_set_and_by_pem_and_by_no_other_key() {
        let signer = Signer::generate("k1").unwrap();
        let other = Signer::generate("k1").unwrap();
        let token = signer.sign(&claims()).unwrap();
        let set = PublicKey::from_jwks(&json!({"keys": [signer.jwk(), {"kty": "OKP"}]}));
        assert_eq!(set.len(), 1);
        assert_eq!(verify(&token, &set), Ok(claims()));
        let pem = PublicKey::from_pem(&signer.public_pem()).unwrap();
        assert_eq!(verify(&token, &[pem]), Ok(claims()));
        let stranger = PublicKey::from_pem(&other.public_pem()).unwrap();
        assert_eq!(verify(&token, &[stranger]), Err(JwtError::BadSignature));
        assert_eq!(verify(&token, &[]), Err(JwtError::BadSignature));
    }

    #[test]
    fn a_changed_token_does_not_verify() {
        let signer = Signer::generate("k1").unwrap();
        let keys = PublicKey::from_jwks(&json!({"keys": [signer.jwk()]}));
        let token = signer.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], encode(br#"{"sub":"root"}"#), parts[2]);
        assert_eq!(verify(&forged, &keys), Err(JwtError::BadSignature));
        let none = format!("{}.{}.", encode(br#"{"alg":"none"}"#), parts[1]);
        assert_eq!(verify(&none, &keys), Err(JwtError::BadSignature));
        for malformed in ["", "a.b", "a.b.c", "..."] {
            assert_eq!(verify(malformed, &keys), Err(JwtError::Malformed), "{malformed}");
        }
    }

    /// Signed by another implementation: the first example of RFC 7515, appendix A.2 (RS256) and A.3 (ES256).
    #[test]
    fn tokens_of_the_standard_verify() {
        let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let rs256 = format!(
            "eyJhbGciOiJSUzI1NiJ9.{claims}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        );
        let es256 = format!(
            "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        );
        let keys = PublicKey::from_jwks(&json!({"keys": [rsa, ec]}));
        assert_eq!(verify(&rs256, &keys).unwrap()["iss"], "joe");
        assert_eq!(verify(&es256, &keys).unwrap()["iss"], "joe");
    }
}
