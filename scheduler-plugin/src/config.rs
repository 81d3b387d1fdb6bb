//! From flags to a configuration in which nothing is left to check.

use std::{net::SocketAddr, time::Duration};

use berth_placement::PolicyName;
use berth_runtime::{
    args::HumanDuration,
    dial::Target,
    identity::IdentityRules,
    tls::{ClientTlsFiles, ServerTlsFiles},
};
use serde::Serialize;
use thiserror::Error;

pub use crate::extender::Limits;
use crate::{
    args::{Args, KaiArgs},
    kai::Mode,
    source::Source,
    webhook::{Reached, WebhookConfig},
};

/// What berth-scheduler does.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub source: Source,
    pub listen: SocketAddr,
    pub grpc: SocketAddr,
    /// Who may reserve over gRPC.
    pub may_reserve: IdentityRules,
    pub admin: SocketAddr,
    pub policy: PolicyName,
    pub kai: Option<KaiConfig>,
    pub unreachable_after: HumanDuration,
    pub bind_timeout: HumanDuration,
    pub limits: Limits,
    /// Paths, no secrets; told by the flags.
    #[serde(skip)]
    pub tls: Option<ServerTlsFiles>,
    #[serde(skip)]
    pub node_tls: Option<ClientTlsFiles>,
}

/// How KAI Scheduler is fed.
#[derive(Debug, Clone, Serialize)]
pub struct KaiConfig {
    pub mode: Mode,
    pub deadline: HumanDuration,
    pub require_top: usize,
    pub webhook: WebhookConfig,
}

/// Flags that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("where are the nodes? Give --nodes, --kubeconfig or --cluster simulated:COUNTxPROFILE, or run in a pod")]
    NoSource,
    #[error("--nodes names {0} twice")]
    Twice(Target),
    #[error("--nodes names {0}: give --node-ca to trust it")]
    NoAuthority(Target),
    #[error("--kai needs a Kubernetes cluster: give --kubeconfig, or run in a pod")]
    KaiWithoutCluster,
    #[error("--max-body must be from 1Ki to 1Gi")]
    MaxBody,
    #[error("--max-requests must be above 0")]
    MaxRequests,
    #[error(
        "--tls-cert without --tls-client-ca would let everybody reserve: give the authority of kube-scheduler's certificate"
    )]
    NoClientCa,
}

impl Config {
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let source = source(&args)?;
        let kai = kai(&args.kai);
        if kai.is_some() && !matches!(source, Source::Kubernetes(_)) {
            return Err(ConfigError::KaiWithoutCluster);
        }
        let node_tls = args.node_tls;
        let node_tls = node_tls.node_ca.map(|ca| ClientTlsFiles {
            ca,
            identity: node_tls.node_cert.zip(node_tls.node_key),
        });
        for (at, target) in args.nodes.iter().enumerate() {
            if args.nodes[..at].contains(target) {
                return Err(ConfigError::Twice(target.clone()));
            }
            if matches!(target, Target::Https(_)) && node_tls.is_none() {
                return Err(ConfigError::NoAuthority(target.clone()));
            }
        }
        let tls = args.tls.files();
        if tls.as_ref().is_some_and(|files| files.client_ca.is_none()) {
            return Err(ConfigError::NoClientCa);
        }
        let max_body = args.max_body.value();
        let max_body_bytes = usize::try_from(max_body)
            .ok()
            .filter(|bytes| (1 << 10..=1 << 30).contains(bytes));
        if args.max_requests == 0 {
            return Err(ConfigError::MaxRequests);
        }
        Ok(Self {
            source,
            listen: args.listen,
            grpc: args.grpc,
            may_reserve: IdentityRules::nobody().with(args.allow),
            admin: args.admin.admin,
            policy: args.policy,
            kai,
            unreachable_after: args.unreachable_after,
            bind_timeout: args.bind_timeout,
            limits: Limits {
                max_body_bytes: max_body_bytes.ok_or(ConfigError::MaxBody)?,
                max_requests: args.max_requests.into(),
                filter_top: args.filter_top.into(),
                body_deadline: Duration::from_secs(10),
            },
            tls,
            node_tls,
        })
    }
}

fn kai(args: &KaiArgs) -> Option<KaiConfig> {
    let reached = args.webhook_service.clone().unwrap_or(Reached::Direct);
    let namespace = args.webhook_namespace.clone().unwrap_or_else(|| match &reached {
        Reached::Service { namespace, .. } => namespace.clone(),
        Reached::Direct => "default".to_owned(),
    });
    Some(KaiConfig {
        mode: args.kai?,
        deadline: args.kai_deadline,
        require_top: args.kai_require_top.into(),
        webhook: WebhookConfig {
            listen: args.webhook,
            reached,
            certificates: args.webhook_certs.clone(),
            namespace,
        },
    })
}

fn source(args: &Args) -> Result<Source, ConfigError> {
    if let Some(simulated) = &args.cluster {
        return Ok(Source::Simulated(simulated.clone()));
    }
    if !args.nodes.is_empty() {
        return Ok(Source::Daemons(args.nodes.clone()));
    }
    args.kubernetes
        .access()
        .map(Source::Kubernetes)
        .ok_or(ConfigError::NoSource)
}

impl ConfigError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoSource => "NoSource",
            Self::Twice(_) => "NodeNamedTwice",
            Self::NoAuthority(_) => "NoAuthority",
            Self::KaiWithoutCluster => "KaiWithoutCluster",
            Self::MaxBody => "InvalidMaxBody",
            Self::MaxRequests => "InvalidMaxRequests",
            Self::NoClientCa => "NoClientAuthority",
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;

    use super::*;
    use crate::args::ENV_PREFIX;

    fn flags(args: &[&str]) -> Args {
        let args = std::iter::once("berth-scheduler")
            .chain(args.iter().copied())
            .map(Into::into);
        parse_args_from(ENV_PREFIX, args).unwrap()
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for (args, reason) in [
            (&["--nodes", "http://a:1,http://b:1,http://a:1"][..], "NodeNamedTwice"),
            (&["--nodes", "https://a:1"], "NoAuthority"),
            (&["--nodes", "http://a:1", "--kai", "hint"], "KaiWithoutCluster"),
            (&["--nodes", "http://a:1", "--max-body", "0"], "InvalidMaxBody"),
            (&["--nodes", "http://a:1", "--max-body", "2Gi"], "InvalidMaxBody"),
            (&["--nodes", "http://a:1", "--max-requests", "0"], "InvalidMaxRequests"),
            (
                &["--nodes", "http://a:1", "--tls-cert", "c", "--tls-key", "k"],
                "NoClientAuthority",
            ),
        ] {
            let error = Config::from_args(flags(args)).unwrap_err();
            assert_eq!(error.reason(), reason, "{error}");
        }
    }

    #[test]
    fn what_is_shown_holds_the_flags() {
        let config = Config::from_args(flags(&["--nodes", "http://a:1", "--bind-timeout", "1500ms"])).unwrap();
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(shown["source"]["daemons"][0], "http://a:1");
        assert_eq!(shown["bind_timeout"], "1.5s");
        assert_eq!(shown["limits"]["max_body_bytes"], 64 << 20);
    }
}
