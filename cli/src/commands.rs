//! One function for each command: ask the daemon, show the answer.

mod watch;

use std::process::ExitCode;

use crate::{
    args::{
        AckArgs, Action, Cli, CordonArgs, ExplainArgs, ExplainWhat, ReleaseArgs, ReserveArgs, SimulateArgs,
        UncordonArgs,
    },
    client::Client,
    error::{CliError, exit},
    output::{Allocations, DeviceChanged, DeviceList, Explanation, Output, ReleaseAnswer, ReserveAnswer, Simulated},
    run,
    scheduler::{Scheduler, Subject},
    selector::DeviceSelector,
    signals::Signals,
    view::Device,
};

/// Does what the command line says; the exit code where that worked.
pub(crate) async fn run(cli: &Cli, output: &Output) -> Result<ExitCode, CliError> {
    let client = Client::new(&cli.global)?;
    match &cli.action {
        Action::Node => output.show(&client.node().await?)?,
        Action::Devices => {
            let (node, book) = tokio::try_join!(client.node(), client.book())?;
            output.show(&DeviceList::new(node, &book))?;
        }
        Action::Allocations => {
            let (node, book) = tokio::try_join!(client.node(), client.book())?;
            output.show(&Allocations { book, node })?;
        }
        Action::Reserve(args) => reserve(args, &client, output).await?,
        Action::Release(args) => release(args, &client, output).await?,
        Action::Explain(args) => return explain(args, cli, output).await,
        Action::Cluster => output.show(&Scheduler::new(&cli.global)?.cluster().await?)?,
        Action::Simulate(args) => return simulate(args, cli, output).await,
        Action::Cordon(args) => cordon(args, &client, output).await?,
        Action::Uncordon(args) => uncordon(args, &client, output).await?,
        Action::Ack(args) => acknowledge(args, &client, output).await?,
        Action::Watch => watch::watch(&client, output, &Signals::take()?).await?,
        Action::Run(args) => return run::run(args, &client, output, &Signals::take()?).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn reserve(args: &ReserveArgs, client: &Client, output: &Output) -> Result<(), CliError> {
    let shape = args.shape.shape()?;
    let (allocation, existing, generation) = client.reserve(args.pod(), &shape, args.ttl).await?;
    output.show(&ReserveAnswer {
        allocation,
        existing,
        generation,
    })
}

async fn release(args: &ReleaseArgs, client: &Client, output: &Output) -> Result<(), CliError> {
    // clap lets exactly one of the two through.
    let (holder, (released, generation)) = match (&args.uid, &args.lease) {
        (Some(uid), _) => (format!("Pod {uid}"), client.release_pod(uid.clone()).await?),
        (None, Some(lease)) => (format!("Lease {lease}"), client.release_lease(lease.clone()).await?),
        (None, None) => return Ok(()),
    };
    output.show(&ReleaseAnswer {
        released,
        generation,
        holder,
    })
}

async fn explain(args: &ExplainArgs, cli: &Cli, output: &Output) -> Result<ExitCode, CliError> {
    if let Some(what) = &args.what {
        return explain_on_cluster(what, cli, output).await;
    }
    let client = Client::new(&cli.global)?;
    let shape = args.shape.shape()?;
    let (node, verdict) = tokio::try_join!(client.node(), client.explain(&shape))?;
    let code = fits(verdict.fits);
    output.show(&Explanation {
        asked: shape.to_string(),
        verdict,
        node,
    })?;
    Ok(code)
}

async fn explain_on_cluster(what: &ExplainWhat, cli: &Cli, output: &Output) -> Result<ExitCode, CliError> {
    let scheduler = Scheduler::new(&cli.global)?;
    let explained = match what {
        ExplainWhat::Pod { pod, limit } => scheduler.explain(Subject::Pod(pod), limit.limit).await?,
        ExplainWhat::Shape { shape, limit } => scheduler.explain(Subject::Shape(&shape.shape()?), limit.limit).await?,
    };
    output.show(&explained)?;
    Ok(fits(explained.fitting > 0))
}

async fn simulate(args: &SimulateArgs, cli: &Cli, output: &Output) -> Result<ExitCode, CliError> {
    let result = Scheduler::new(&cli.global)?.simulate(&args.pods).await?;
    let all = result.placed as usize == result.pods.len();
    output.show(&Simulated {
        asked: args.pods.iter().map(|it| it.shape.to_string()).collect(),
        result,
    })?;
    Ok(fits(all))
}

fn fits(fits: bool) -> ExitCode {
    if fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::REFUSED)
    }
}

async fn cordon(args: &CordonArgs, client: &Client, output: &Output) -> Result<(), CliError> {
    let device = find(&args.device, client).await?;
    let device = client.set_schedulable(device.uuid, false, args.message.clone()).await?;
    output.show(&DeviceChanged {
        device,
        done: "is out of scheduling; what runs on it stays".to_owned(),
    })
}

async fn uncordon(args: &UncordonArgs, client: &Client, output: &Output) -> Result<(), CliError> {
    let device = find(&args.device, client).await?;
    let device = client.set_schedulable(device.uuid, true, String::new()).await?;
    output.show(&DeviceChanged {
        device,
        done: "is back in scheduling".to_owned(),
    })
}

async fn acknowledge(args: &AckArgs, client: &Client, output: &Output) -> Result<(), CliError> {
    let device = find(&args.device, client).await?;
    let device = client.acknowledge(device.uuid, args.message.clone()).await?;
    let done = format!("is acknowledged; its health is now {}", device.health.state.as_str());
    output.show(&DeviceChanged { device, done })
}

async fn find(selector: &DeviceSelector, client: &Client) -> Result<Device, CliError> {
    let node = client.node().await?;
    Ok(selector.find(&node.devices)?.clone())
}
