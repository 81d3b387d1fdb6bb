//! `fake-sis` as a process, with an authority that signs its tokens: faults, what was asked, what it holds.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::{Authority, Process, Program, http};

/// The service and who signs for it.
#[derive(Debug)]
pub struct FakeSis {
    pub process: Process,
    pub authority: Authority,
}

impl FakeSis {
    /// On free ports, with its state on disk.
    ///
    /// # Errors
    /// It is not built, or did not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// In a rig, which has a network of its own: a free port may become a client's own while the service is away, and so keep it
    /// from coming back. One below 32768 does not.
    ///
    /// # Errors
    /// It is not built, or did not start.
    pub async fn start_at(address: &str) -> anyhow::Result<Self> {
        let authority = Authority::start().await;
        let process = Self::program(&authority).arg("--listen", address).start().await?;
        Ok(Self { process, authority })
    }

    /// The program as it is started.
    pub fn program(authority: &Authority) -> Program {
        Program::new("fake-sis", "berth-sis")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .arg("--state", "{dir}/state")
            .arg("--issuer", authority.issuer())
    }

    /// Starts it again where it was, with its state.
    ///
    /// # Errors
    /// It did not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let address = self.process.address("http").to_owned();
        self.process.kill();
        let program = Self::program(&self.authority).arg("--listen", address);
        self.process = program.in_dir_of(&self.process).start().await?;
        Ok(())
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.process.address("http"))
    }

    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// What goes wrong from now on; an empty list ends it.
    pub async fn faults(&self, faults: Value) {
        let page = format!("{}/debug/faults", self.process.admin());
        let answer = http::request("PUT", &page, &faults.to_string()).await;
        let answer = answer.expect("an answer of the admin endpoint");
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// How many requests so far have a line that starts so: `METHOD /path`.
    ///
    /// # Errors
    /// The admin endpoint does not answer.
    pub async fn asked(&self, line: &str) -> anyhow::Result<usize> {
        self.asked_at(line).await.map(|times| times.len())
    }

    /// When they were asked, in milliseconds since 1970.
    ///
    /// # Errors
    /// The admin endpoint does not answer.
    pub async fn asked_at(&self, line: &str) -> anyhow::Result<Vec<u64>> {
        let page = http::get(&format!("{}/debug/exchanges", self.process.admin())).await?;
        let exchanges: Vec<Value> = serde_json::from_str(&page.body).context("exchanges")?;
        let is_one = |it: &&Value| it["request"].as_str().is_some_and(|request| request.starts_with(line));
        let time = |it: &Value| it["at_unix_ms"].as_u64().context("an exchange without a time");
        exchanges.iter().filter(is_one).map(time).collect()
    }
}
