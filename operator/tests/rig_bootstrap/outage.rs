//! A minute without SIS, one that hangs and one that is gone, and a minute without API server: clusters that are caught by it at
//! each step of their registration get one registration each, by themselves.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_runtime::{Clock as _, SystemClock};
use berth_testkit::{FakeSis, Process, eventually, http, throughout};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use crate::kit::{CREATE, Install, LIST, SOON, Scene, in_rig};

const OUTAGE: Duration = Duration::from_mins(1);
/// The longest wait between two attempts, and the longest attempt.
const RECOVERY: Duration = Duration::from_mins(1);

/// Clusters of one SIS, each at another step when the outage begins.
struct Caught {
    /// Its program has not asked yet.
    early: Install,
    /// Made, and the answer was lost.
    made: Install,
    /// Recorded; the record is deleted in the outage.
    known: Install,
    ids: (String, String),
    programs: Vec<Process>,
    watch: Process,
}

fn start(install: &Install) -> Process {
    install.program("bootstrap").spawn().unwrap()
}

async fn watch(install: &Install) -> Process {
    let program = install.program("watch").arg("--admin", "127.0.0.1:0");
    program.start().await.unwrap()
}

/// Every program is the one that was started, and answers.
async fn lives(watches: &[&Process]) -> anyhow::Result<()> {
    for watch in watches {
        let answer = http::get(&format!("{}/livez", watch.admin())).await?;
        ensure!(answer.status == 200, "{}", watch.stderr());
    }
    Ok(())
}

impl Caught {
    /// As the outage begins: `begin` stops the service.
    async fn by(scene: &Scene, sis: &mut FakeSis, name: &str, begin: impl FnOnce(&mut FakeSis)) -> Self {
        let at = async |step: &str| {
            let install = scene.namespace(&format!("{step}-{name}")).await;
            install.give(&sis.authority.token(|_| {}));
            let mut dto = scene.dto(&format!("{step}-{name}"));
            dto["icmsConfig"]["icmsServiceURL"] = json!(sis.url());
            install.chart(dto).await;
            install
        };
        let (early, made, known) = (at("early").await, at("made").await, at("known").await);
        let watch = watch(&known).await;
        let ids = eventually(SOON, async || known.record().await).await.unwrap();
        let asked = sis.asked(CREATE).await.unwrap();
        // It looks, once more when it is its turn, and after the answer that got lost.
        sis.faults(json!([{"on": LIST, "times": 2}, {"on": LIST, "hang": true, "times": 1},
            {"on": CREATE, "lose": true, "times": 1}]))
            .await;
        let program = start(&made);
        let lost = eventually(SOON, async || {
            ensure!(sis.asked(CREATE).await? > asked, "nothing was asked");
            Ok(())
        });
        lost.await.unwrap();
        begin(sis);
        known.forget().await;
        let programs = vec![program, start(&early)];
        Self {
            early,
            made,
            known,
            ids,
            programs,
            watch,
        }
    }

    /// While SIS is away, which is told in these words.
    async fn makes_do(&self, words: &str) {
        let kept = eventually(SOON, async || self.known.record().await);
        assert_eq!(kept.await.unwrap(), self.ids, "the record is back from memory");
        for program in &self.programs {
            self.made.says(program, words).await;
        }
    }

    /// One cluster each.
    async fn ends_well(self, sis: &FakeSis) {
        let [made, early] = <[Process; 2]>::try_from(self.programs).unwrap();
        for (install, program, how) in [(&self.made, made, "adopted"), (&self.early, early, "created")] {
            let ended = install.ends(program).await;
            assert!(ended.status.success(), "{}", ended.stderr);
            install.is_done(&ended.stderr, how).await;
        }
        assert_eq!(self.known.record().await.unwrap(), self.ids);
        let page = http::get(&format!("{}/readyz", self.watch.admin())).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.body);
        assert_eq!(clusters(sis).await, 3, "one for each");
    }
}

async fn clusters(sis: &FakeSis) -> usize {
    let page = http::get(&format!("{}/debug/state", sis.process.admin()))
        .await
        .unwrap();
    let state: Value = serde_json::from_str(&page.body).unwrap();
    state["by_id"].as_object().map_or(0, serde_json::Map::len)
}

#[expect(clippy::print_stdout, reason = "a measurement")]
async fn recovers<T>(what: &str, probe: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let clock = SystemClock::new();
    let recovered = eventually(RECOVERY, probe).await;
    let took = clock.monotonic().as_secs_f32();
    println!("  {what}: {took:.1} s");
    recovered.with_context(|| what.to_owned()).unwrap()
}

#[test]
fn rig_a_minute_without_sis_at_any_step_costs_time_only() {
    in_rig(
        "outage::rig_a_minute_without_sis_at_any_step_costs_time_only",
        async |scene| {
            let mut hangs = FakeSis::start_at("127.0.0.1:18081").await.unwrap();
            let mut gone = FakeSis::start_at("127.0.0.1:18082").await.unwrap();
            let stop = |sis: &mut FakeSis| sis.process.signal("STOP").unwrap();
            let by_silence = Caught::by(scene, &mut hangs, "silent", stop).await;
            let by_absence = Caught::by(scene, &mut gone, "absent", |sis| sis.process.kill()).await;
            let watches = [&by_silence.watch, &by_absence.watch];
            let during = throughout(OUTAGE, async || lives(&watches).await);
            let ((), (), during) = tokio::join!(
                by_silence.makes_do("SIS did not answer"),
                by_absence.makes_do("SIS cannot be reached"),
                during
            );
            during.unwrap();
            hangs.process.signal("CONT").unwrap();
            gone.restart().await.unwrap();
            recovers("SIS was away: all are registered", async || {
                for caught in [&by_silence, &by_absence] {
                    caught.made.record().await?;
                    caught.early.record().await?;
                }
                Ok(())
            })
            .await;
            by_silence.ends_well(&hangs).await;
            by_absence.ends_well(&gone).await;
        },
    );
}

#[test]
fn rig_a_minute_without_api_server_at_any_step_costs_time_only() {
    in_rig(
        "outage::rig_a_minute_without_api_server_at_any_step_costs_time_only",
        async |scene| {
            let (early, made) = (scene.install("early").await, scene.install("made").await);
            let (known, renamed) = (scene.install("known").await, scene.install("renamed").await);
            let watches = [watch(&known).await, watch(&renamed).await];
            let ids = eventually(SOON, async || known.record().await).await.unwrap();
            let other = eventually(SOON, async || renamed.record().await).await.unwrap();
            // One is being made, when the outage begins: the answer comes in it.
            scene
                .sis
                .faults(json!([{"on": CREATE, "delay_ms": 2000, "times": 1}]))
                .await;
            let making = start(&made);
            let leases: Api<Lease> = Api::namespaced(scene.rig.client(), "made");
            let its_turn = eventually(SOON, async || {
                let lease = leases.get_opt("nvca-self-managed").await?.context("no Lease")?;
                lease
                    .spec
                    .and_then(|spec| spec.holder_identity)
                    .context("nobody holds it")
            });
            its_turn.await.unwrap();
            known.forget().await;
            renamed.chart(scene.dto("another")).await;
            scene.rig.part("kube-apiserver").unwrap().pause();
            let starting = start(&early);
            // OpenBao's agent goes on meanwhile.
            scene.give_token(&known, |_| {});
            let during = throughout(OUTAGE, async || lives(&watches.each_ref()).await);
            during.await.unwrap();
            scene.rig.part("kube-apiserver").unwrap().resume();
            recovers("the API server was away: all are registered", async || {
                for install in [&early, &made] {
                    install.record().await?;
                }
                ensure!(known.record().await? == ids, "another cluster");
                ensure!(renamed.record().await? != other, "the old cluster");
                Ok(())
            })
            .await;
            for (install, program) in [(&made, making), (&early, starting)] {
                let ended = install.ends(program).await;
                assert!(ended.status.success(), "{}", ended.stderr);
                assert!(
                    ended.stderr.contains("\"reason\":\"Api"),
                    "the outage was told: {}",
                    ended.stderr
                );
            }
            assert_eq!(clusters(&scene.sis).await, 5, "one for each, and one for the new name");
            assert_eq!(scene.asked(CREATE).await, 5, "no creation was sent twice");
            for watch in &watches {
                let page = http::get(&format!("{}/readyz", watch.admin())).await.unwrap();
                assert_eq!(page.status, 200, "{}", page.body);
            }
        },
    );
}
