//! The container `nvca-bootstrap-watch`: what is deleted or changed is as it should be again, whatever is away meanwhile.

use anyhow::ensure;
use berth_testkit::{Process, eventually, http};
use serde_json::json;

use crate::kit::{CREATE, Install, LIST, SOON, in_rig};

async fn start(install: &Install) -> Process {
    let program = install.program("watch").arg("--admin", "127.0.0.1:0");
    program
        .arg("--log-level", "info,berth_operator=debug")
        .start()
        .await
        .unwrap()
}

async fn ready(watch: &Process) -> (u16, String) {
    let page = http::get(&format!("{}/readyz", watch.admin())).await.unwrap();
    (page.status, page.body)
}

async fn records(install: &Install, ids: &(String, String)) {
    let recorded = eventually(SOON, async || {
        let recorded = install.record().await?;
        ensure!(recorded == *ids, "{recorded:?}");
        Ok(())
    });
    recorded.await.unwrap();
}

#[test]
fn rig_the_watch_restores_what_is_deleted_and_follows_the_chart() {
    in_rig(
        "watch::rig_the_watch_restores_what_is_deleted_and_follows_the_chart",
        async |scene| {
            // Nothing of the chart's is there, and no token: it says so, and registers as soon as it can.
            let install = scene.namespace("watched").await;
            install.take_token();
            let mut watch = start(&install).await;
            install.says(&watch, "is the chart installed there").await;
            let (status, why) = ready(&watch).await;
            assert!(status == 503 && why.contains("there is no ConfigMap"), "{why}");
            install.chart(scene.dto("one")).await;
            scene.give_token(&install, |_| {});
            let ids = eventually(SOON, async || install.record().await).await.unwrap();
            eventually(SOON, async || {
                ensure!(ready(&watch).await.0 == 200);
                Ok(())
            })
            .await
            .unwrap();

            // Deleted, edited: as SIS has it.
            install.forget().await;
            records(&install, &ids).await;
            let lie = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nvca-cluster-registration"},
            "data": {"clusterId": "", "clusterGroupId": "another"}});
            install.apply(lie).await;
            records(&install, &ids).await;
            assert_eq!(scene.asked(CREATE).await, 1);

            // The chart describes another cluster: that is registered.
            install.chart(scene.dto("two")).await;
            let other = eventually(SOON, async || {
                let other = install.record().await?;
                ensure!(other.0 != ids.0, "still {other:?}");
                Ok(other)
            });
            let other = other.await.unwrap();
            assert_eq!(scene.asked(CREATE).await, 2);
            // A mistake changes nothing, is told, and is over when it is corrected.
            let mut bad = scene.dto("two");
            bad["region"] = json!("mars-1");
            install.chart(bad).await;
            install.says(&watch, "region `mars-1` is unknown").await;
            assert_eq!(ready(&watch).await.0, 200, "the cluster is still known");
            install.chart(scene.dto("two")).await;
            install.says(&watch, "the trouble is over").await;
            records(&install, &other).await;

            // Nothing changes: nothing is asked.
            let asked = scene.asked(LIST).await;
            let metrics = http::get(&format!("{}/metrics", watch.admin())).await.unwrap().body;
            assert!(metrics.contains("berth_registration_recorded 1"), "{metrics}");
            assert!(
                metrics.contains("berth_registration_attempts_total{reason=\"RegionUnknown\"} 1"),
                "{metrics}"
            );
            watch.terminate().unwrap();
            assert!(watch.wait(SOON).await.unwrap().success(), "{}", watch.stderr());
            assert_eq!(scene.asked(LIST).await, asked);
            install.says_no_token(&watch.stderr());
        },
    );
}

#[test]
fn rig_the_watch_lives_through_outages_and_keeps_what_is_known() {
    in_rig(
        "watch::rig_the_watch_lives_through_outages_and_keeps_what_is_known",
        async |scene| {
            let install = scene.install("kept").await;
            let watch = start(&install).await;
            let ids = eventually(SOON, async || install.record().await).await.unwrap();

            // SIS is away: what is deleted comes back from memory.
            scene.sis.process.kill();
            install.forget().await;
            records(&install, &ids).await;
            install.says(&watch, "SIS cannot be reached").await;
            assert_eq!(ready(&watch).await.0, 200);
            // The API server is away as well, and then both are back.
            scene.rig.part("kube-apiserver").unwrap().pause();
            // Over an open connection or for a new one: no answer, or no way.
            install.says(&watch, "\"reason\":\"Api").await;
            scene.rig.part("kube-apiserver").unwrap().resume();
            scene.sis.restart().await.unwrap();
            install.says(&watch, "the trouble is over").await;

            scene.give_token(&install, |claims| claims["exp"] = json!(1000));
            // The token expired; the chart changes; a new token: the new cluster.
            install.chart(scene.dto("renamed")).await;
            install.says(&watch, "OpenBao's agent has not renewed it").await;
            records(&install, &ids).await;
            scene.give_token(&install, |_| {});
            let other = eventually(SOON, async || {
                let other = install.record().await?;
                ensure!(other.0 != ids.0, "still {other:?}");
                Ok(())
            });
            other.await.unwrap();
            assert_eq!(scene.asked(CREATE).await, 1, "the restarted service counts anew");
            install.says_no_token(&watch.stderr());
        },
    );
}
