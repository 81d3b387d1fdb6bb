//! Waiting for a condition, and tasks for tests.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Between two looks at the condition.
const STEP: Duration = Duration::from_millis(10);
/// The same, where a condition must hold for long.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `probe` until it succeeds and returns what it gave: level-triggered, so an event that came early is not missed.
///
/// # Errors
/// `deadline` has passed; the error holds the probe's last one.
pub async fn eventually<T>(deadline: Duration, mut probe: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut last = anyhow::anyhow!("the condition was never looked at to the end");
    let success = timeout(deadline, async {
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(error) => last = error,
            }
            sleep(STEP).await;
        }
    })
    .await;
    match success {
        Ok(value) => Ok(value),
        Err(_) => Err(last).with_context(|| format!("not within {deadline:?}")),
    }
}

/// Lets so much time pass, all the while looking that `probe` succeeds: an outage is a duration, and what happens during it is
/// the test.
///
/// # Errors
/// The first of the probe.
pub async fn throughout(duration: Duration, mut probe: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut over = std::pin::pin!(sleep(duration));
    while !over.is_elapsed() {
        probe().await?;
        let _either = timeout(LOOK, over.as_mut()).await;
    }
    Ok(())
}

/// `tokio::spawn` for tests, whose end of the process is the end of its tasks.
#[expect(clippy::disallowed_methods, reason = "a test's tasks need neither name nor drain")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn eventually_returns_the_first_success() {
        let looks = Cell::new(0);
        let value = eventually(Duration::from_secs(5), async || {
            looks.set(looks.get() + 1);
            ensure!(looks.get() == 3, "only {} looks", looks.get());
            Ok(looks.get())
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn throughout_lasts_its_time_and_ends_where_it_is_not_well() {
        let looks = Cell::new(0);
        let well = throughout(Duration::from_millis(20), async || {
            looks.set(looks.get() + 1);
            Ok(())
        });
        let in_time = timeout(Duration::from_millis(10), well).await;
        assert!(in_time.is_err() && looks.get() == 1, "{} looks", looks.get());
        let gone = throughout(Duration::from_mins(1), async || anyhow::bail!("gone"));
        assert_eq!(gone.await.unwrap_err().to_string(), "gone");
        throughout(Duration::from_millis(1), async || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn eventually_gives_up_with_the_last_error() {
        let never = eventually::<()>(Duration::from_millis(30), async || anyhow::bail!("still closed"));
        let error = format!("{:#}", never.await.unwrap_err());
        assert_eq!(error, "not within 30ms: still closed");
    }
}
