use std::time::Instant;
use tokio::net::TcpStream;
use crate::{fake_node::FakeNode, scheduler::{Pod, Scheduler, http}};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "tmp")]
async fn latency() {
    for (count, full) in [(4, false), (100, false), (1000, false), (1000, true)] {
        let mut nodes = Vec::new();
        for n in 0..count {
            let node = FakeNode::start(&format!("node-{n:04}"), 8).await;
            if full { node.taken_by("x", 8, false); node.set_gen(); }
            nodes.push(node);
        }
        let targets: Vec<_> = nodes.iter().map(FakeNode::target).collect();
        let names: Vec<_> = (0..count).map(|n| format!("node-{n:04}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let scheduler = Scheduler::start(&targets, &["--unreachable-after", "60s"]);
        let probe = Pod::new("probe", 1);
        let expected: Vec<&str> = if full { vec![] } else { names.clone() };
        if full {
            berth_testkit::eventually(crate::scheduler::SOON, async || {
                anyhow::ensure!(scheduler.readiness.is_ready());
                Ok(())
            }).await.unwrap();
        }
        scheduler.until_fits(&probe, &names, &expected).await;
        let mut stream = TcpStream::connect(scheduler.addresses.extender.as_deref().unwrap()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut f, mut p, mut b) = (vec![], vec![], vec![]);
        for i in 0..500 {
            let pod = Pod::new(&format!("p{i}"), 1 + i % 8);
            let body = pod.args(&names).to_string();
            let t = Instant::now();
            http(&mut stream, "POST /filter", &body).await;
            f.push(t.elapsed());
            let t = Instant::now();
            http(&mut stream, "POST /prioritize", &body).await;
            p.push(t.elapsed());
            if i % 10 == 0 && !full {
                let body = pod.bind_args(names[(i as usize * 7) % names.len()]).to_string();
                let t = Instant::now();
                http(&mut stream, "POST /bind", &body).await;
                b.push(t.elapsed());
            }
        }
        for (verb, v) in [("filter", &mut f), ("prioritize", &mut p), ("bind", &mut b)] {
            v.sort();
            if v.is_empty() { continue; }
            println!("{count} nodes full={full} {verb}: p50 {:?} p99 {:?} max {:?}", v[v.len()/2], v[v.len()*99/100], v[v.len()-1]);
        }
        scheduler.stop().await.is_clean();
    }
}
