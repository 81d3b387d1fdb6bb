//! One attempt: what the chart says, what is recorded, what SIS has; at the end a registration that is recorded, or trouble.

use berth_runtime::{
    BuildInfo, SharedClock,
    kubernetes::{
        ApiError, DEADLINE,
        lease::{Contender, Pace, Turn},
        watch::one,
        within,
    },
    secret_file::SecretFile,
};
use berth_sis::{RetryPolicy, SisClient, SisConfig, TokenFile, TokenRules, check};
use futures_util::{StreamExt as _, future, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tracing::warn;
use uuid::Uuid;

use super::Trouble;
use crate::{
    cluster_dto::{self, ClusterDto},
    names,
    registration::{self, Difference, Found, How, Registration, Wanted, record, record::Record},
};

/// Of the Lease: who makes clusters in SIS.
const LEASE: &str = "nvca-self-managed";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct RegistrarConfig {
    /// Of both ConfigMaps and of the Lease.
    pub namespace: String,
    /// Asked in place of the one that the chart names.
    pub sis_url: Option<String>,
    pub build: BuildInfo,
}

/// Makes attempts. Owns nothing but its turn.
pub struct Registrar {
    config: RegistrarConfig,
    maps: Api<ConfigMap>,
    record: Record,
    turn: Turn,
    token: TokenFile,
    clock: SharedClock,
}

/// What an attempt found in the API server, whatever became of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The text of the chart's ConfigMap.
    pub(super) dto: Option<String>,
    pub(super) recorded: Option<Registration>,
}

impl Registrar {
    pub fn new(config: RegistrarConfig, client: Client, token: SecretFile, clock: SharedClock) -> Self {
        let contender = Contender {
            namespace: config.namespace.clone(),
            name: LEASE,
            identity: Uuid::new_v4().to_string(),
            pace: Pace::default(),
        };
        Self {
            maps: Api::namespaced(client.clone(), &config.namespace),
            record: Record::new(client.clone(), &config.namespace),
            turn: Turn::new(client, contender, clock.clone()),
            token: TokenFile::new(token),
            config,
            clock,
        }
    }

    /// The file with the token, to follow it.
    pub(super) const fn secret(&self) -> &SecretFile {
        self.token.secret()
    }

    /// Gives the Lease up where an attempt was cut short.
    pub async fn leave(&self) {
        self.turn.leave().await;
    }

    /// `remembered`: what was known before, should the record be gone.
    pub(super) async fn attempt(&self, seen: &mut Seen, remembered: Option<&Registration>) -> Result<Found, Trouble> {
        let map = within(DEADLINE, self.maps.get_opt(names::CLUSTER_DTO)).await;
        let map = map.map_err(|error| self.api("read the ConfigMap nvcfbackend-self-managed", error))?;
        seen.dto = map.as_ref().and_then(cluster_dto::text_of).map(str::to_owned);
        let recorded = self.record.read().await;
        seen.recorded = recorded.map_err(|error| self.api("read the ConfigMap nvca-cluster-registration", error))?;

        let map = map.ok_or_else(|| Trouble::NoDto {
            namespace: self.config.namespace.clone(),
        })?;
        let dto = ClusterDto::of(&map)?;
        let (account, cluster) = check::new_cluster(dto.new_cluster()?)?;
        let wanted = Wanted { account, cluster };
        let sis = self.sis(&dto)?;
        let mut found = self.ask(&sis, &wanted, seen.recorded.as_ref().or(remembered)).await?;
        found.differences.extend(other_id(&dto, &found.registration));
        self.write(seen, &found.registration).await?;
        Ok(found)
    }

    /// What is known although SIS could not be asked.
    pub(super) async fn unconfirmed(&self, seen: &mut Seen, known: &Registration) -> Result<Found, Trouble> {
        self.write(seen, known).await?;
        Ok(Found {
            registration: known.clone(),
            how: How::Unconfirmed,
            differences: Vec::new(),
        })
    }

    /// What the chart's ConfigMap says from now on; `None` where it is gone.
    pub(super) fn dtos(&self) -> BoxStream<'static, Option<String>> {
        let text = |map: Option<ConfigMap>| map.as_ref().and_then(cluster_dto::text_of).map(str::to_owned);
        self.watch(names::CLUSTER_DTO).map(text).boxed()
    }

    /// What is recorded from now on; `None` where it is gone, or is no registration.
    pub(super) fn records(&self) -> BoxStream<'static, Option<Registration>> {
        self.watch(names::REGISTRATION)
            .map(|map| map.as_ref().and_then(record::of))
            .boxed()
    }

    fn watch(&self, name: &'static str) -> BoxStream<'static, Option<ConfigMap>> {
        let mut told = false;
        let heard = one(self.maps.clone(), name).filter_map(move |object| {
            if let Err(error) = &object
                && !told
            {
                let error = error as &dyn std::error::Error;
                warn!(name, error, "a watch broke: trying on");
            }
            told = object.is_err();
            future::ready(object.ok())
        });
        heard.boxed()
    }

    /// Looks first: the Lease is for making a cluster, not for finding it.
    async fn ask(&self, sis: &SisClient, wanted: &Wanted, known: Option<&Registration>) -> Result<Found, Trouble> {
        if let Some(found) = registration::find(sis, wanted, known).await? {
            return Ok(found);
        }
        let came = self.turn.come_or_fail().await;
        came.map_err(|error| self.api("take the Lease nvca-self-managed", error))?;
        let outcome = tokio::select! {
            outcome = registration::register(sis, wanted, known) => outcome.map_err(Trouble::from),
            () = self.turn.pass() => Err(Trouble::LeaseLost),
        };
        self.turn.leave().await;
        outcome
    }

    async fn write(&self, seen: &mut Seen, registration: &Registration) -> Result<(), Trouble> {
        let written = self.record.write(registration).await;
        written.map_err(|error| self.api("write the ConfigMap nvca-cluster-registration", error))?;
        seen.recorded = Some(registration.clone());
        Ok(())
    }

    fn sis(&self, dto: &ClusterDto) -> Result<SisClient, Trouble> {
        let (url, host) = match &self.config.sis_url {
            Some(url) => (url.clone(), None),
            None => dto.sis(),
        };
        let config = SisConfig {
            url,
            host,
            user_agent: format!("{}/{}", self.config.build.name, self.config.build.version),
            // Whoever makes attempts knows when to make the next one.
            retry: RetryPolicy::ONCE,
            deadline: None,
        };
        let rules = TokenRules::cluster_management();
        Ok(SisClient::new(&config, self.token.clone(), rules, self.clock.clone())?)
    }

    fn api(&self, doing: &'static str, source: ApiError) -> Trouble {
        let namespace = self.config.namespace.clone();
        Trouble::Api {
            doing,
            namespace,
            source,
        }
    }
}

// The client has no `Debug`.
impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Somebody wrote into the chart's values which cluster this is, and SIS says another one.
fn other_id(dto: &ClusterDto, registration: &Registration) -> Option<Difference> {
    let (wanted, found) = (dto.cluster_id.trim(), registration.cluster_id.as_str());
    (!wanted.is_empty() && wanted != found).then(|| Difference {
        field: "clusterId",
        wanted: wanted.to_owned(),
        found: found.to_owned(),
    })
}
