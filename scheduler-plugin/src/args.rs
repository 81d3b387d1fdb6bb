//! The command line of berth-scheduler. Every flag is also a `BERTH_SCHEDULER_…` variable.

use std::{net::SocketAddr, path::PathBuf};

use berth_kube_api::Quantity;
use berth_placement::PolicyName;
use berth_runtime::{
    args::{AdminArgs, HumanDuration, TelemetryArgs, TlsArgs},
    dial::Target,
    identity::IdentityRule,
    kubernetes::KubernetesArgs,
};
use clap::Parser;

use crate::{kai::Mode, source::Simulated, webhook::Reached};

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "BERTH_SCHEDULER";

/// Turns the nodes' books into placements, as an extender of kube-scheduler.
#[derive(Debug, Clone, Parser)]
#[command(name = "berth-scheduler", version, mut_arg("admin", |arg| arg.default_value("127.0.0.1:9452")))]
pub struct Args {
    /// Place on the nodes of these daemons, without Kubernetes: http://HOST:PORT, https://HOST:PORT or unix:///PATH,
    /// separated by commas
    #[arg(long, value_name = "TARGET,…", value_delimiter = ',', conflicts_with_all = ["cluster", "kubeconfig"])]
    pub nodes: Vec<Target>,

    /// Place on a cluster that is not there, to try things: simulated:1000xdgx-h100; also several groups, separated by
    /// commas
    #[arg(long, value_name = "simulated:COUNTxPROFILE", conflicts_with = "kubeconfig")]
    pub cluster: Option<Simulated>,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub kai: KaiArgs,

    /// Serve kube-scheduler here; anything but loopback needs --tls-cert, --tls-key and --tls-client-ca
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9450")]
    pub listen: SocketAddr,

    /// Serve berth.scheduler.v1 here, with reflection; anything but loopback needs --tls-cert, --tls-key and --tls-client-ca
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9451")]
    pub grpc: SocketAddr,

    /// Let this client reserve over gRPC: cn:NAME, san:NAME or loopback. Repeatable. Everybody who gets in may read
    #[arg(long = "allow", value_name = "WHO", value_delimiter = ',')]
    pub allow: Vec<IdentityRule>,

    #[command(flatten)]
    pub admin: AdminArgs,

    /// How to rank nodes: fragmentation, fgd, binpack, spread or random
    #[arg(long, value_name = "NAME", default_value = "fragmentation")]
    pub policy: PolicyName,

    /// A node takes no more pods when its daemon could not be reached for this long. A daemon that says nothing for as long
    /// is asked whether it is still there
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub unreachable_after: HumanDuration,

    /// Give up a bind after this long; less than httpTimeout in kube-scheduler's configuration (5s if not set)
    #[arg(long, value_name = "TIME", default_value = "4s")]
    pub bind_timeout: HumanDuration,

    /// The largest body of a request
    #[arg(long, value_name = "SIZE", default_value = "64Mi")]
    pub max_body: Quantity,

    /// Requests served at a time; more are refused
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub max_requests: u16,

    /// Of the nodes that take a pod, leave kube-scheduler only so many, the best ones, to save both the rest of the work.
    /// 0: all, for where other plugins shall have a say against Berth (a low `weight`), or another extender comes after it.
    /// A request may say itself: `filterVerb: filter?top=1` in kube-scheduler's configuration
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub filter_top: u16,

    #[command(flatten)]
    pub tls: TlsArgs,

    #[command(flatten)]
    pub node_tls: NodeTlsArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Feeding KAI Scheduler.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "KAI Scheduler")]
pub struct KaiArgs {
    /// Feed KAI: `hint` tells it the node that a pod should get, `bind` binds pods in its place and lets it account them
    #[arg(long, value_name = "hint|bind")]
    pub kai: Option<Mode>,

    /// A pod for which nothing is decided in this time from its sight is left to KAI
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    pub kai_deadline: HumanDuration,

    /// In hint mode: hold pods to that many of the best nodes (0: to none, KAI may take any)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub kai_require_top: u8,

    /// Serve the admission webhook here, with certificates of its own making
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9453")]
    pub webhook: SocketAddr,

    /// The Service through which the API server reaches the webhook; without it the API server is told the address itself
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    pub webhook_service: Option<Reached>,

    /// Keep the webhook's serving certificate here; it may be lost at any time
    #[arg(long, value_name = "DIR", default_value = "/run/berth/webhook")]
    pub webhook_certs: PathBuf,

    /// The namespace of the Secret with the webhook's authority, and of the Lease that says which scheduler feeds KAI [default: that of --webhook-service, else default]
    #[arg(long, value_name = "NAMESPACE")]
    pub webhook_namespace: Option<String>,
}

/// The certificates for talking to daemons. All files are re-read when a connection is made.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS towards the nodes")]
pub struct NodeTlsArgs {
    /// Trust daemons signed by one of these authorities, PEM (needed for https)
    #[arg(long, value_name = "FILE")]
    pub node_ca: Option<PathBuf>,

    /// Certificate chain to show to daemons, PEM
    #[arg(long, value_name = "FILE", requires = "node_key", requires = "node_ca")]
    pub node_cert: Option<PathBuf>,

    /// Private key of --node-cert, PEM
    #[arg(long, value_name = "FILE", requires = "node_cert")]
    pub node_key: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;
    use clap::CommandFactory as _;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let args = std::iter::once("berth-scheduler")
            .chain(args.iter().copied())
            .map(Into::into);
        parse_args_from(ENV_PREFIX, args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_fixed_names_of_the_design() {
        let args = parse(&["--nodes", "http://a:9440,unix:///run/berth/berthd.sock"]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:9450");
        assert_eq!(args.grpc.to_string(), "127.0.0.1:9451");
        assert_eq!(args.admin.admin.to_string(), "127.0.0.1:9452");
        assert_eq!(args.policy, PolicyName::Fragmentation);
        assert_eq!(args.nodes.len(), 2);
    }

    #[test]
    fn garbage_is_refused_with_what_would_do() {
        for (args, tells) in [
            (&["--cluster", "real:1xl40s"][..], "simulated:1000xdgx-h100"),
            (
                &["--cluster", "simulated:1xl40s", "--nodes", "http://a"],
                "cannot be used with",
            ),
            (&["--nodes", "a:9440"], "http://HOST:PORT"),
            (&["--nodes", "http://a", "--listen", "everywhere"], "--listen"),
            (&["--nodes", "http://a", "--policy", "best"], "fragmentation, fgd"),
            (&["--nodes", "http://a", "--max-body", "much"], "starts with a number"),
            (&["--nodes", "http://a", "--bind-timeout", "soon"], "e.g. 500ms"),
            (&["--nodes", "http://a", "--node-cert", "c"], "--node-key"),
            (&["--nodes", "http://a", "--nonsense"], "--nonsense"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(tells), "{args:?}: {error}");
        }
    }
}
