//! What a token must be like for the calls it is for, and what is wrong with one that is not. Pure.

use std::path::PathBuf;

use berth_runtime::secret_file::SecretFileError;

use super::Claims;
use crate::ClusterId;

/// The service refuses longer ones with 431.
const LONGEST: usize = 2048;
/// What the service forgives: seconds past the expiry, and ahead of the start.
const LEEWAY: i64 = 60;
/// Before the name of a cluster in the audience of its own tokens.
const CLUSTER_AUDIENCE: &str = "nvcf-icms:";

/// What is demanded of a token before it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// Empty: any.
    pub issuers: Vec<String>,
    /// Empty: none is looked for.
    pub scope: String,
    pub audience: Audience,
}

/// Whom a token must be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audience {
    #[default]
    Any,
    /// A token of OpenBao's should be for one of these. The service does not look at it, so another one is told and sent.
    Usual(Vec<String>),
    /// A token of the cluster itself must be for this cluster.
    Cluster(ClusterId),
}

/// The token would be refused. No variant holds it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("there is no token yet: OpenBao's agent has not written it")]
    Missing {
        #[source]
        source: SecretFileError,
    },
    #[error(
        "{path} holds no token for SIS at kv.tokens.icms (or kv.tokens.sis): look at the template of OpenBao's agent"
    )]
    NotInFile { path: PathBuf },
    #[error("what the token file holds is no JSON Web Token")]
    Malformed,
    #[error("the token has {length} bytes, and the service takes at most {LONGEST}: mint it with fewer claims")]
    TooLong { length: usize },
    #[error("the token expired {seconds} s ago: OpenBao's agent has not renewed it")]
    Expired { seconds: i64 },
    #[error("the token is valid only in {seconds} s: the clocks of this machine and of OpenBao differ")]
    NotYet { seconds: i64 },
    #[error("the token was issued by {issuer:?}, and the service trusts {trusted:?}: another signing role made it")]
    Issuer { issuer: String, trusted: Vec<String> },
    #[error("the token has the scopes {scopes:?} and needs {needed:?}: its signing role in OpenBao must grant it")]
    Scope { scopes: Vec<String>, needed: String },
    #[error("the token is for {audiences:?} and must be for {expected:?}: the registered cluster is another one")]
    Audience { audiences: Vec<String>, expected: String },
    #[error(
        "the token's subject {subject:?} may not act for the cluster {cluster}: the cluster was registered with another client id"
    )]
    Subject { subject: String, cluster: ClusterId },
}

/// The token will do, but is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenWarning {
    #[error(
        "the token is for {audiences:?}, not for one of {usual:?}: the service takes it today; look at its signing role"
    )]
    Audience { audiences: Vec<String>, usual: Vec<String> },
}

// === impl TokenRules ===

impl TokenRules {
    /// SIS's own issuer, as OpenBao signs for it.
    pub const SIS_ISSUER: &str = "http://api.sis.svc.cluster.local";
    /// The administrator's issuer.
    pub const NVCF_ISSUER: &str = "http://api.nvcf.svc.cluster.local";

    /// For cluster management, as the operator does it.
    pub fn cluster_management() -> Self {
        Self {
            issuers: vec![Self::SIS_ISSUER.to_owned(), Self::NVCF_ISSUER.to_owned()],
            scope: "cluster-management".to_owned(),
            audience: Audience::Usual(vec!["nvca-operator".to_owned(), "s:api".to_owned()]),
        }
    }

    /// For the agent with a token that OpenBao signed.
    pub fn agent() -> Self {
        Self {
            issuers: vec![Self::SIS_ISSUER.to_owned(), Self::NVCF_ISSUER.to_owned()],
            scope: "nvca-cluster".to_owned(),
            audience: Audience::Usual(vec!["nvca".to_owned(), "s:api".to_owned()]),
        }
    }

    /// For the agent with a token that its own cluster signed.
    pub const fn cluster_token(cluster: ClusterId) -> Self {
        Self {
            issuers: Vec::new(),
            scope: String::new(),
            audience: Audience::Cluster(cluster),
        }
    }

    /// Looks at a token as the service will.
    ///
    /// # Errors
    /// The first thing for which the service would refuse it.
    pub fn check(&self, token: &str, now_unix_s: i64) -> Result<(Claims, Option<TokenWarning>), TokenError> {
        if token.len() > LONGEST {
            let length = token.len();
            return Err(TokenError::TooLong { length });
        }
        let claims = Claims::of(token).ok_or(TokenError::Malformed)?;
        let trusted = claims
            .issuer
            .as_ref()
            .is_some_and(|issuer| self.issuers.contains(issuer));
        if !self.issuers.is_empty() && !trusted {
            let (issuer, trusted) = (claims.issuer.unwrap_or_default(), self.issuers.clone());
            return Err(TokenError::Issuer { issuer, trusted });
        }
        if let Some(over) = claims
            .expires_at
            .map(|at| now_unix_s - at)
            .filter(|over| *over > LEEWAY)
        {
            return Err(TokenError::Expired { seconds: over });
        }
        if let Some(early) = claims
            .not_before
            .map(|at| at - now_unix_s)
            .filter(|early| *early > LEEWAY)
        {
            return Err(TokenError::NotYet { seconds: early });
        }
        if !self.scope.is_empty() && !claims.scopes.contains(&self.scope) {
            let needed = self.scope.clone();
            let scopes = claims.scopes;
            return Err(TokenError::Scope { scopes, needed });
        }
        let warning = match &self.audience {
            Audience::Any => None,
            Audience::Usual(usual) if usual.iter().any(|audience| claims.audiences.contains(audience)) => None,
            Audience::Usual(usual) => Some(TokenWarning::Audience {
                audiences: claims.audiences.clone(),
                usual: usual.clone(),
            }),
            Audience::Cluster(cluster) => {
                let expected = format!("{CLUSTER_AUDIENCE}{cluster}");
                let mut named = claims
                    .audiences
                    .iter()
                    .filter(|audience| audience.starts_with(CLUSTER_AUDIENCE));
                if named.next() != Some(&expected) || named.next().is_some() {
                    let audiences = claims.audiences;
                    return Err(TokenError::Audience { audiences, expected });
                }
                None
            }
        };
        Ok((claims, warning))
    }

    /// For a call that names a cluster: whether the token is that cluster's.
    pub fn check_subject(&self, claims: &Claims, cluster: &ClusterId) -> Result<(), TokenError> {
        let subject = claims.subject.clone().unwrap_or_default();
        if matches!(self.audience, Audience::Cluster(_)) || cluster.is_identity_of(&subject) {
            return Ok(());
        }
        let cluster = cluster.clone();
        Err(TokenError::Subject { subject, cluster })
    }
}

// === impl TokenError ===

impl TokenError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "TokenMissing",
            Self::NotInFile { .. } => "TokenNotInFile",
            Self::Malformed => "TokenMalformed",
            Self::TooLong { .. } => "TokenTooLong",
            Self::Expired { .. } => "TokenExpired",
            Self::NotYet { .. } => "TokenNotYetValid",
            Self::Issuer { .. } => "TokenIssuer",
            Self::Scope { .. } => "TokenScope",
            Self::Audience { .. } => "TokenAudience",
            Self::Subject { .. } => "TokenSubject",
        }
    }
}

// === impl TokenWarning ===

impl TokenWarning {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Audience { .. } => "TokenAudience",
        }
    }
}
