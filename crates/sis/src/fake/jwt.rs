//! Signatures of JSON Web Tokens by keys of a key set (RFC 7515, 7517, 7518). Looks at no claim.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// A token in its parts, unverified.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// A key of that name and kind is there, and it did not make this signature.
    Forged,
    NoKey,
}

impl<'a> Jwt<'a> {
    /// `None`: no JWT.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()? {
            Value::Object(object) => Some(object),
            _ => None,
        };
        Some(Self {
            header: object(header)?,
            claims: object(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    pub(super) fn algorithm(&self) -> &str {
        self.header.get("alg").and_then(Value::as_str).unwrap_or_default()
    }

    /// Texts of a claim that is one text or a list of them.
    pub(super) fn texts(&self, claim: &str) -> Vec<String> {
        match self.claims.get(claim) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Seconds; floats are cut off.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a time in seconds is far below 2^63, and saturates"
    )]
    pub(super) fn time(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64().or_else(|| value.as_f64().map(|float| float as i64))
    }

    /// Whether one of `keys` made it, with one of the `allowed` algorithms.
    pub(super) fn verify(&self, keys: &[Value], allowed: &[&str]) -> Verdict {
        let algorithm = self.algorithm();
        if !allowed.contains(&algorithm) {
            return Verdict::NoKey;
        }
        let kid = self.header.get("kid").and_then(Value::as_str);
        let matching = keys.iter().filter(|key| {
            let is_named = kid.is_none_or(|kid| key["kid"].as_str() == Some(kid));
            let states = key["alg"].as_str();
            is_named && kind_of(algorithm) == key["kty"].as_str() && states.is_none_or(|alg| alg == algorithm)
        });
        let mut verdict = Verdict::NoKey;
        for key in matching {
            if self.is_made_by(key) {
                return Verdict::Good;
            }
            verdict = Verdict::Forged;
        }
        verdict
    }

    fn is_made_by(&self, key: &Value) -> bool {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
        let (message, signature) = (self.signed.as_bytes(), self.signature.as_slice());
        let ec = |algorithm: &'static dyn VerificationAlgorithm| {
            let (Some(x), Some(y)) = (part("x"), part("y")) else {
                return false;
            };
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            UnparsedPublicKey::new(algorithm, point)
                .verify(message, signature)
                .is_ok()
        };
        let rsa = |parameters: &'static RsaParameters| {
            let (Some(n), Some(e)) = (part("n"), part("e")) else {
                return false;
            };
            rsa::PublicKeyComponents { n, e }
                .verify(parameters, message, signature)
                .is_ok()
        };
        match self.algorithm() {
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED),
            "ES512" => ec(&ECDSA_P521_SHA512_FIXED),
            "RS256" => rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&RSA_PKCS1_2048_8192_SHA512),
            _ => false,
        }
    }
}

fn kind_of(algorithm: &str) -> Option<&'static str> {
    match algorithm.get(..2)? {
        "ES" => Some("EC"),
        "RS" => Some("RSA"),
        _ => None,
    }
}

/// What a key set is known by: the sorted thumbprints (RFC 7638) of its keys. `kid` and `use` do not count.
pub(super) fn fingerprint(keys: &[Value]) -> String {
    let mut prints: Vec<String> = keys.iter().map(thumbprint).collect();
    prints.sort();
    hash(&prints.join(","))
}

fn thumbprint(key: &Value) -> String {
    // In the order of their names, which is that of the standard.
    let members: &[&str] = match key["kty"].as_str() {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("RSA") => &["e", "kty", "n"],
        _ => return hash(&key.to_string()),
    };
    let members: Map<String, Value> = members
        .iter()
        .map(|name| ((*name).to_owned(), key[*name].clone()))
        .collect();
    hash(&json!(members).to_string())
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.2 and A.3: tokens and keys of another implementation.
    #[test]
    fn tokens_of_the_standard_verify_and_others_do_not() {
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let es256 = format!(
            "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        );
        let jwt = Jwt::parse(&es256).unwrap();
        assert_eq!((jwt.text("iss"), jwt.time("exp")), (Some("joe"), Some(1_300_819_380)));
        assert_eq!(jwt.verify(std::slice::from_ref(&ec), &["ES256"]), Verdict::Good);
        assert_eq!(jwt.verify(std::slice::from_ref(&ec), &["RS256"]), Verdict::NoKey);
        assert_eq!(jwt.verify(std::slice::from_ref(&rsa), &["ES256"]), Verdict::NoKey);
        let mut other = ec.clone();
        other["y"] = json!("AAAAzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        assert_eq!(jwt.verify(&[other], &["ES256"]), Verdict::Forged);
        let rs256 = format!(
            "eyJhbGciOiJSUzI1NiJ9.{claims}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        );
        assert_eq!(
            Jwt::parse(&rs256).unwrap().verify(&[ec, rsa], &["RS256"]),
            Verdict::Good
        );
    }

    /// RFC 7638, section 3.1.
    #[test]
    fn the_thumbprint_of_the_standard() {
        let key = json!({"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        assert_eq!(thumbprint(&key), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
