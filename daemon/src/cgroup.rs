//! Which pod a process belongs to, by the name of its control group. The kubelet writes the pod's UID there.
//!
//! Sources: the kubelet's `cm` package for the two drivers' names; cgroups(7) for `/proc/PID/cgroup`.

use std::{fs, path::Path};

use berth_placement::PodUid;

/// Of a process in the host's pid namespace. `None`: no pod's process, or gone, or not ours to see.
pub(crate) fn pod_of_process(proc_dir: &Path, pid: u32) -> Option<PodUid> {
    let text = fs::read_to_string(proc_dir.join(pid.to_string()).join("cgroup")).ok()?;
    pod_of_cgroups(&text)
}

/// Of the text of `/proc/PID/cgroup`: `hierarchy:controllers:path` lines, one for version 2, several for version 1.
fn pod_of_cgroups(text: &str) -> Option<PodUid> {
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(pod_of_path)
}

/// `/kubepods/burstable/podUID/…` (driver cgroupfs) or `/kubepods.slice/…/kubepods-burstable-podUID.slice/…` (driver
/// systemd, where `-` separates levels and the UID's own are written `_`). Either may lie below other groups.
fn pod_of_path(path: &str) -> Option<PodUid> {
    let mut below_kubepods = false;
    for group in path.split('/') {
        let uid = match group.strip_suffix(".slice") {
            Some(slice) => slice
                .contains("kubepods")
                .then(|| slice.rsplit_once("-pod"))
                .flatten()
                .map(|(_, uid)| uid.replace('_', "-")),
            None => group
                .strip_prefix("pod")
                .filter(|_| below_kubepods)
                .map(ToOwned::to_owned),
        };
        if let Some(uid) = uid.filter(|uid| is_uid(uid)) {
            return uid.parse().ok();
        }
        below_kubepods |= group.ends_with("kubepods");
    }
    None
}

/// A UUID, or 32 hex digits without dashes: a static pod's.
fn is_uid(text: &str) -> bool {
    let dashes = match text.len() {
        36 => &[8, 13, 18, 23][..],
        32 => &[],
        _ => return false,
    };
    text.bytes().enumerate().all(|(at, byte)| {
        if dashes.contains(&at) {
            byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6e5a2f3c-8f0e-4c7e-9d9b-0c3f7f1f2a11";

    fn pod(text: &str) -> Option<String> {
        pod_of_cgroups(text).map(|uid| uid.as_str().to_owned())
    }

    #[test]
    fn both_drivers_and_both_versions_name_the_pod() {
        let systemd = UID.replace('-', "_");
        for text in [
            format!("0::/kubepods/burstable/pod{UID}/2c5f4c"),
            format!("0::/kubepods/pod{UID}/2c5f4c"),
            format!("0::/kubelet/kubepods/besteffort/pod{UID}/2c5f4c"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-2c.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/crio-2c.scope/container"),
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd}.slice/cri-containerd-2c.scope"
            ),
            format!("0::/../../kubepods-burstable-pod{systemd}.slice/cri-containerd-2c.scope"),
            format!("13:name=systemd:/\n12:devices:/kubepods/burstable/pod{UID}/2c5f4c\n1:cpu,cpuacct:/\n0::/"),
        ] {
            assert_eq!(pod(&text).as_deref(), Some(UID), "{text}");
        }
    }

    #[test]
    fn a_static_pods_uid_has_no_dashes() {
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(pod(&format!("0::/kubepods/pod{uid}/2c")).as_deref(), Some(uid));
    }

    #[test]
    fn what_is_no_pod_is_no_pod() {
        for text in [
            "",
            "0::/",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/docker-2c5f4c.scope",
            "0::/kubepods/podcast/x",
            "0::/kubepods.slice/kubepods-burstable.slice",
            "garbage",
            &format!("0::/machine/pod{UID}/x"),
            &format!("0::/user.slice/user-pod{UID}.slice"),
        ] {
            assert_eq!(pod(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_no_pod_or_a_readable_one_and_a_missing_process_has_none() {
        assert_eq!(pod_of_process(Path::new("/proc"), u32::MAX), None);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("7")).unwrap();
        fs::write(dir.path().join("7/cgroup"), format!("0::/kubepods/pod{UID}/c\n")).unwrap();
        assert_eq!(pod_of_process(dir.path(), 7).unwrap().as_str(), UID);
    }
}
