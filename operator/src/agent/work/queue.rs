//! The control plane's messages, out of NATS JetStream: one durable consumer for creations and one for terminations, each
//! message handed on as it comes. Knows nothing of what is in them.
//!
//! The key is read from the secrets' file whenever a connection is made; a new one makes a new connection.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Auth, AuthError, Client, ConnectOptions,
    jetstream::{
        self, AckKind,
        consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull},
        message::Acker,
    },
};
use berth_runtime::secret_file::SecretFile;
use berth_sis::{
    ClusterId,
    wire::{CREATION_STREAM, TERMINATION_STREAM, creation_subjects, termination_subject},
};
use futures_util::StreamExt as _;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

/// Between tries.
const RETRY: Duration = Duration::from_secs(2);
/// A server that says nothing for twice as long has forgotten us.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A creation that nobody settled has come again after this, if the stream was heard all the while.
pub(super) const COMES_AGAIN: Duration = Duration::from_mins(7);
/// Messages asked for at a time.
const BATCH: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Creation,
    Termination,
}

/// One message.
pub(super) struct Incoming {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    /// Its subject and number.
    pub(super) receipt: String,
    pub(super) handle: Handle,
}

/// To tell the stream what became of a message.
pub(super) struct Handle(Acker);

/// Where the messages are.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) url: String,
    pub(super) cluster: ClusterId,
    pub(super) secrets: SecretFile,
}

/// The stream did not hear it.
#[derive(Debug, Error)]
#[error("the stream cannot be told")]
pub(super) struct SettleError(#[source] async_nats::Error);

/// Never with a byte of a key.
#[derive(Debug, Error)]
enum KeyError {
    #[error("the NATS key at kv.nats.api-auth.user-seed is none")]
    Seed,
    #[error("the server's challenge cannot be signed")]
    Sign,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Termination => "termination",
        }
    }

    const fn stream(self) -> &'static str {
        match self {
            Self::Creation => CREATION_STREAM,
            Self::Termination => TERMINATION_STREAM,
        }
    }

    fn subject(self, cluster: &ClusterId) -> String {
        match self {
            Self::Creation => creation_subjects(cluster),
            Self::Termination => termination_subject(cluster),
        }
    }

    /// After this a message that nobody settled comes again.
    const fn ack_wait(self) -> Duration {
        match self {
            Self::Creation => Duration::from_mins(6),
            Self::Termination => Duration::from_secs(30),
        }
    }
}

impl Handle {
    /// It is done with. Returns when the stream has confirmed it.
    pub(super) async fn settle(&self) -> Result<(), SettleError> {
        self.0.double_ack().await.map_err(SettleError)
    }

    /// It is to come again.
    pub(super) async fn again(&self, after: Duration) -> Result<(), SettleError> {
        self.0.ack_with(AckKind::Nak(Some(after))).await.map_err(SettleError)
    }

    /// Nobody can act on it, however often it comes.
    pub(super) async fn give_up(&self) -> Result<(), SettleError> {
        self.0.ack_with(AckKind::Term).await.map_err(SettleError)
    }
}

impl Queue {
    /// For ever, or until nobody takes messages any more.
    ///
    /// `hears`: creations come as soon as they are there.
    pub(super) async fn run(self, to: mpsc::Sender<Incoming>, hears: watch::Sender<bool>) {
        let client = self.connect().await;
        let (other, _) = watch::channel(false);
        tokio::join!(
            self.consume(&client, Kind::Creation, &to, &hears),
            self.consume(&client, Kind::Termination, &to, &other),
            self.renew(&client, &to),
        );
    }

    async fn connect(&self) -> Client {
        let mut told = String::new();
        loop {
            let secrets = self.secrets.clone();
            let answer = move |nonce: Vec<u8>| {
                let secrets = secrets.clone();
                async move { login(&secrets, &nonce).map_err(AuthError::new) }
            };
            let options = ConnectOptions::with_auth_callback(answer)
                .name(format!("nvca-queue-client/{}", self.cluster))
                .event_callback(|event| async move { debug!(%event, "NATS") });
            match options.connect(&self.url).await {
                Ok(client) => {
                    info!(url = self.url, "connected to NATS");
                    return client;
                }
                Err(error) => {
                    let text = error.to_string();
                    // Once per kind of trouble, not once per attempt.
                    if text != told {
                        let error = &error as &dyn std::error::Error;
                        warn!(url = self.url, error, "no connection to NATS: trying on");
                    }
                    told = text;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Another key: the connection with the old one is given up before the server does.
    async fn renew(&self, client: &Client, to: &mpsc::Sender<Incoming>) {
        let mut changes = self.secrets.subscribe();
        changes.mark_unchanged();
        let mut used = seed(&self.secrets);
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = to.closed() => return,
            }
            let now = seed(&self.secrets);
            if now != used {
                info!("the NATS key changed: connecting with the new one");
                if let Err(error) = client.force_reconnect().await {
                    warn!(error = &error as &dyn std::error::Error, "NATS is not reconnected");
                }
                used = now;
            }
        }
    }

    async fn consume(&self, client: &Client, kind: Kind, to: &mpsc::Sender<Incoming>, hears: &watch::Sender<bool>) {
        let mut told = String::new();
        while !to.is_closed() {
            let passed = self.pass(client, kind, to, hears, &mut told).await;
            hears.send_replace(false);
            if let Err(error) = passed {
                let text = error.to_string();
                if text != told {
                    let stream = kind.stream();
                    warn!(stream, error = &*error, "no messages from the stream: trying on");
                }
                told = text;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = to.closed() => return,
            }
        }
    }

    /// Until something breaks. `told`: the trouble before, over once messages may come.
    async fn pass(
        &self,
        client: &Client,
        kind: Kind,
        to: &mpsc::Sender<Incoming>,
        hears: &watch::Sender<bool>,
        told: &mut String,
    ) -> Result<(), async_nats::Error> {
        let subject = kind.subject(&self.cluster);
        let durable = format!("{}-{}", kind.stream(), self.cluster);
        let config = pull::Config {
            description: Some(format!("Consumer for {subject} NVCA cluster {}", self.cluster)),
            durable_name: Some(durable),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: kind.ack_wait(),
            // In this form the request's subject is the one that the control plane's permissions name.
            filter_subjects: vec![subject],
            replay_policy: ReplayPolicy::Instant,
            ..pull::Config::default()
        };
        let context = jetstream::new(client.clone());
        let consumer: PullConsumer = context.create_consumer_on_stream(config, kind.stream()).await?;
        let mut messages = consumer
            .stream()
            .heartbeat(HEARTBEAT)
            .max_messages_per_batch(BATCH)
            .messages()
            .await?;
        info!(stream = kind.stream(), "taking messages");
        told.clear();
        hears.send_replace(true);
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = to.closed() => return Ok(()),
            };
            let Some(message) = message else { return Ok(()) };
            let message = message?;
            let number = message.info().map(|info| info.stream_sequence).unwrap_or_default();
            let (message, acker) = message.split();
            let incoming = Incoming {
                kind,
                receipt: format!("{}:{number}", message.subject),
                payload: message.payload.to_vec(),
                handle: Handle(acker),
            };
            if to.send(incoming).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Without a key it comes as nobody: the server says whether it lets nobody in.
fn login(secrets: &SecretFile, nonce: &[u8]) -> Result<Auth, KeyError> {
    let mut auth = Auth::new();
    if let Some(seed) = seed(secrets) {
        let pair = nkeys::KeyPair::from_seed(&seed).map_err(|_| KeyError::Seed)?;
        auth.nkey = Some(pair.public_key());
        auth.signature = Some(pair.sign(nonce).map_err(|_| KeyError::Sign)?);
    }
    Ok(auth)
}

/// Of the file as it is now.
fn seed(secrets: &SecretFile) -> Option<Arc<str>> {
    let secret = secrets.read().ok()?;
    let json: Value = serde_json::from_str(secret.expose_str()?).ok()?;
    let seed = json["kv"]["nats"]["api-auth"]["user-seed"].as_str()?.trim();
    (!seed.is_empty()).then(|| seed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, SecretFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        std::fs::write(&path, text).unwrap();
        (dir, SecretFile::new(path))
    }

    #[test]
    fn the_servers_challenge_is_signed_with_the_key_of_the_file() {
        let pair = nkeys::KeyPair::new_user();
        let text = serde_json::json!({"kv": {"nats": {"api-auth": {"user": pair.public_key(),
            "user-seed": pair.seed().unwrap()}}}});
        let (_dir, secrets) = file(&text.to_string());
        let auth = login(&secrets, b"nonce").unwrap();
        assert_eq!(auth.nkey, Some(pair.public_key()));
        assert!(pair.verify(b"nonce", &auth.signature.unwrap()).is_ok());
    }

    #[test]
    fn without_a_key_it_is_nobody_and_a_broken_one_is_told_without_showing_it() {
        let (_dir, secrets) = file(r#"{"kv":{"tokens":{"icms":"t"}}}"#);
        assert_eq!(login(&secrets, b"nonce").unwrap().nkey, None);
        let (_dir, secrets) = file(r#"{"kv":{"nats":{"api-auth":{"user-seed":"SUABROKEN"}}}}"#);
        let error = login(&secrets, b"nonce").err().unwrap();
        assert!(!error.to_string().contains("BROKEN"), "{error}");
    }

    #[test]
    fn consumers_are_those_of_the_real_agent() {
        let cluster: ClusterId = "c-1".parse().unwrap();
        assert_eq!(Kind::Creation.subject(&cluster), "Create.NVCA.*.c-1.*.*");
        assert_eq!(Kind::Termination.subject(&cluster), "Terminate.NVCA.c-1");
        assert_eq!(
            (
                Kind::Creation.ack_wait().as_secs(),
                Kind::Termination.ack_wait().as_secs()
            ),
            (360, 30)
        );
    }
}
