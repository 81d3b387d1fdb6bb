//! `berthctl watch`: follows the node, across restarts of the daemon, until somebody stops it.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    client::{Client, NodeStream},
    diff::{Change, ChangeKind, Look, changes},
    error::CliError,
    output::{ChangeLine, Output},
    signals::Signals,
};

/// The daemon is on this machine or near it: no use in waiting longer, no harm in asking so often.
const RETRY: Duration = Duration::from_secs(1);

/// # Errors
/// The daemon did not answer when we began, or the output cannot be written. What comes later is told and waited for.
pub(super) async fn watch(client: &Client, output: &Output, signals: &Signals) -> Result<(), CliError> {
    // A person who stops watching is no failure.
    match signals.or(follow(client, output)).await {
        Ok(outcome) => outcome,
        Err(CliError::Stopped(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn follow(client: &Client, output: &Output) -> Result<(), CliError> {
    let (mut stream, mut look) = connect(client).await?;
    tell(output, &look, &Change::new(ChangeKind::Connected, summary(&look)))?;
    loop {
        match next_look(client, &mut stream).await {
            Ok(next) => {
                for change in changes(&look, &next) {
                    tell(output, &next, &change)?;
                }
                look = next;
            }
            Err(why) => {
                tell(output, &look, &Change::new(ChangeKind::Disconnected, why))?;
                let (again, next) = reconnect(client).await;
                tell(output, &next, &Change::new(ChangeKind::Connected, summary(&next)))?;
                for change in changes(&look, &next) {
                    tell(output, &next, &change)?;
                }
                (stream, look) = (again, next);
            }
        }
    }
}

async fn connect(client: &Client) -> Result<(NodeStream, Look), CliError> {
    let mut stream = client.watch().await?;
    let ended = || CliError::NotReady {
        reason: "StreamEnded".to_owned(),
        message: "the daemon is stopping".to_owned(),
    };
    let node = stream.first().await?.ok_or_else(ended)?;
    let book = client.book().await?;
    Ok((stream, Look { node, book }))
}

async fn reconnect(client: &Client) -> (NodeStream, Look) {
    loop {
        sleep(RETRY).await;
        if let Ok(connected) = connect(client).await {
            return connected;
        }
    }
}

/// The next state with the book that belongs to it, or why there is none.
async fn next_look(client: &Client, stream: &mut NodeStream) -> Result<Look, String> {
    let node = match stream.next().await {
        Ok(Some(node)) => node,
        Ok(None) => return Err("the daemon stops".to_owned()),
        Err(error) => return Err(error.sentence()),
    };
    let book = client.book().await.map_err(|error| error.sentence())?;
    Ok(Look { node, book })
}

fn summary(look: &Look) -> String {
    let Look { node, book } = look;
    format!(
        "{}: {} GPUs, {} holders",
        node.name,
        node.devices.len(),
        book.allocations.len()
    )
}

fn tell(output: &Output, look: &Look, change: &Change) -> Result<(), CliError> {
    output.show_line(&ChangeLine {
        unix_ms: output.clock().now_unix_ms(),
        generation: look.node.generation,
        change,
    })
}
