//! What NVCF's migrations set up in OpenBao for a GPU cluster's operator and agent: mounts, policies and roles.
//!
//! Names and bodies are those of the project's NVCF notes, section 5.

use serde_json::json;

use super::{BaoClient, ClientError};

/// NATS' account of the agent.
pub const NATS_CREDS: &str = "services/all/kv/data/nats/creds";

/// The key-value store, its policy, and the roles of `nvca` and `nvca-operator` at `auth/jwt`, which must be mounted.
/// `audience`: what their service-account tokens must be for.
pub async fn seed(root: &BaoClient, audience: &str) -> Result<(), ClientError> {
    let kv = json!({"type": "kv", "options": {"version": "2"}});
    root.write("sys/mounts/services/all/kv", kv).await?;
    policy(root, "services-all-kv-ro", "services/all/kv/*", &["read", "list"]).await?;
    let roles = [
        ("nvca", "nvca-system", &["sis-api", "reval"][..]),
        ("nvca-operator", "nvca-operator", &["sis-api"][..]),
    ];
    for (role, namespace, services) in roles {
        let mut policies = vec!["services-all-kv-ro".to_owned()];
        for service in services {
            let name = format!("services-{service}-jwt-sign-{role}-rw");
            let path = format!("services/{service}/jwt/sign/{role}");
            policy(root, &name, &path, &["create", "update", "read"]).await?;
            policies.push(name);
        }
        let body = json!({
            "role_type": "jwt", "bound_audiences": [audience], "user_claim": "sub",
            "bound_claims": {"/kubernetes.io/namespace": namespace, "/kubernetes.io/serviceaccount/name": role},
            "claim_mappings": {"/kubernetes.io/namespace": "service_account_namespace",
                "/kubernetes.io/serviceaccount/name": "service_name"},
            "token_policies": policies, "token_period": 43200, "token_type": "service",
            "clock_skew_leeway": 60, "expiration_leeway": 60, "not_before_leeway": 60,
        });
        root.write(&format!("auth/jwt/role/{role}"), body).await?;
    }
    Ok(())
}

/// The signing engines of SIS and ReVal. Real OpenBao has them only with NVCF's plugin.
pub async fn seed_signing(root: &BaoClient) -> Result<(), ClientError> {
    let services = [
        (
            "sis-api",
            "http://api.sis.svc.cluster.local",
            vec![
                ("nvca", json!(["nvca-cluster", "instance_request_update"])),
                ("nvca-operator", json!(["cluster-management"])),
            ],
        ),
        (
            "reval",
            "http://reval.nvcf.svc.cluster.local",
            vec![("nvca", json!(["helmreval:render"]))],
        ),
    ];
    for (service, issuer, roles) in services {
        let mount = format!("services/{service}/jwt");
        let kind = json!({"type": "vault-plugin-secrets-jwt"});
        root.write(&format!("sys/mounts/{mount}"), kind).await?;
        let config = json!({"sig_alg": "ES256", "jwt_ttl": "12h", "key_ttl": "87660h"});
        root.write(&format!("{mount}/config"), config).await?;
        for (role, scopes) in roles {
            let claims = json!({"azp": role, "sub": role, "aud": [role, "s:api"], "scopes": scopes});
            let body = json!({"issuer": issuer, "claims": claims});
            root.write(&format!("{mount}/roles/{role}"), body).await?;
        }
    }
    Ok(())
}

async fn policy(root: &BaoClient, name: &str, path: &str, capabilities: &[&str]) -> Result<(), ClientError> {
    let text = format!("path {path:?} {{ capabilities = {capabilities:?} }}");
    let path = format!("sys/policies/acl/{name}");
    root.write(&path, json!({ "policy": text })).await.map(drop)
}
