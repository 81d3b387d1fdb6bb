//! What keeps a pod from running, and since when, out of its status: the pod's own timestamps count, so that a restart of the
//! agent does not begin anew. Pure; how long each may last is in [`limits`](super::limits).

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::cause::Cause;

/// The container that serves secrets to the others, for as long as the pod is there.
const SERVANT: &str = "ess";
/// So many restarts are a loop.
const LOOP: i32 = 3;
/// A pod that was never ready has been unready since its start, give or take.
const AT_START_MS: u64 = 1_000;
/// Of what a container says at its end.
const LONGEST: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No node has room for it.
    NoNode,
    ImagePull,
    CreateContainer,
    /// An init container does not come to its end.
    InitStuck,
    InitRestarts,
    Restarts,
    /// It was never ready.
    NotUp,
    /// It was ready, and is not any more.
    Degraded,
}

/// Trouble that a pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) trouble: Trouble,
    /// Unix milliseconds.
    pub(crate) since: u64,
    /// For people.
    pub(crate) text: String,
}

impl Trouble {
    /// As the control plane spells it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::NoNode => "instance-terminated-no-capacity",
            Self::ImagePull => "image-pull-issues",
            Self::CreateContainer => "create-container-error",
            Self::InitStuck => "init-container-stuck",
            Self::InitRestarts => "init-container-restart-loop",
            Self::Restarts => "container-restart-loop",
            Self::NotUp | Self::Degraded => "degraded-worker",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        let all = [
            Self::NoNode,
            Self::ImagePull,
            Self::CreateContainer,
            Self::InitStuck,
            Self::InitRestarts,
            Self::Restarts,
            Self::Degraded,
        ];
        all.into_iter().find(|trouble| trouble.word() == word)
    }
}

/// What a pod that does not run suffers from; the most telling first.
pub(crate) fn findings(pod: &Pod, status: &PodStatus) -> Vec<Finding> {
    if let Some(finding) = no_node(pod, status) {
        return vec![finding];
    }
    let launched = launched(pod, status);
    let initialized = condition(status, "Initialized");
    // When the init containers began, or ended. They begin anew when the node was away, or the pod's sandbox.
    let turn = initialized.and_then(|it| it.last_transition_time.as_ref());
    let turn = launched.max(turn.map_or(0, millis));
    let initialized = initialized.filter(|it| it.status == "True");
    let mut all = Vec::new();
    let mut found = |trouble, since, text| all.push(Finding { trouble, since, text });
    let (inits, mains) = (
        containers(status.init_container_statuses.as_ref(), "init "),
        mains(status),
    );
    for container in inits.iter().chain(&mains) {
        if container.waits_for(&["CreateContainerError", "CreateContainerConfigError"]) {
            found(Trouble::CreateContainer, launched, container.words());
        }
    }
    let is_pending = status.phase.as_deref() != Some("Running");
    for container in inits.iter().chain(&mains).filter(|_| is_pending) {
        if container.waits_for(&["ErrImagePull", "ImagePullBackOff"]) {
            found(Trouble::ImagePull, turn, container.words());
        }
    }
    let (looping, trouble, since) = if initialized.is_some() {
        (&mains, Trouble::Restarts, launched)
    } else {
        (&inits, Trouble::InitRestarts, turn)
    };
    for container in looping.iter().filter(|it| it.is_in_a_loop()) {
        found(trouble, since, container.words());
    }
    if is_pending || initialized.is_none() {
        found(Trouble::InitStuck, turn, unfinished(&inits, &mains));
    } else if let Some((trouble, since, text)) = unready(pod, status, launched) {
        found(trouble, since, text);
    }
    all
}

/// Why a pod failed.
pub(crate) fn failure(status: &PodStatus) -> String {
    let inits = containers(status.init_container_statuses.as_ref(), "init ");
    let mains = mains(status);
    let failed = inits.iter().chain(&mains).filter(|container| container.has_failed());
    let said = [&status.reason, &status.message].into_iter().flatten().cloned();
    let words = said.chain(failed.map(Container::words)).filter(|text| !text.is_empty());
    words.collect::<Vec<_>>().join(": ")
}

/// The scheduler's word counts; before it has said anything, the pod's age.
fn no_node(pod: &Pod, status: &PodStatus) -> Option<Finding> {
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let word = condition(status, "PodScheduled");
    if has_node || status.start_time.is_some() || word.is_some_and(|it| it.status == "True") {
        return None;
    }
    let since = word.and_then(|it| it.last_transition_time.as_ref());
    let since = since.or(pod.metadata.creation_timestamp.as_ref());
    Some(Finding {
        trouble: Trouble::NoNode,
        // Without a time it never times out.
        since: since.map_or(u64::MAX, millis),
        text: word.and_then(|it| it.message.clone()).unwrap_or_default(),
    })
}

/// When its node took it; where that says nothing, when it got its node.
fn launched(pod: &Pod, status: &PodStatus) -> u64 {
    let placed = condition(status, "PodScheduled").and_then(|it| it.last_transition_time.as_ref());
    let times = [
        status.start_time.as_ref(),
        placed,
        pod.metadata.creation_timestamp.as_ref(),
    ];
    times.into_iter().flatten().next().map_or(u64::MAX, millis)
}

/// All its init containers are done, and it is not ready.
fn unready(pod: &Pod, status: &PodStatus, launched: u64) -> Option<(Trouble, u64, String)> {
    let ready = condition(status, "Ready").filter(|it| it.status != "True")?;
    let since = ready.last_transition_time.as_ref().map_or(u64::MAX, millis);
    let trouble = if status.start_time.is_none() || since <= launched.saturating_add(AT_START_MS) {
        Trouble::NotUp
    } else {
        Trouble::Degraded
    };
    // The kubelet says both at once. Of a node that does not answer the control plane says the one, and the kubelet's last word
    // on the other stays.
    match condition(status, "ContainersReady").map(|it| it.status.as_str()) {
        Some("False") => {}
        Some("True") => {
            let said = [&ready.reason, &ready.message].map(|text| text.as_deref().unwrap_or_default());
            let text = format!(
                "its containers were ready, and its node does not answer {}",
                said.join(" ")
            );
            return Some((trouble, since, text.trim_end().to_owned()));
        }
        _ => return None,
    }
    let is_never_restarted = pod.spec.as_ref()?.restart_policy.as_deref() == Some("Never");
    let mains = mains(status);
    let text = unfinished(&[], &mains);
    if is_never_restarted && mains.iter().any(Container::has_failed) {
        return Some((Trouble::Degraded, 0, text));
    }
    // What came to its end well is not ready for ever.
    let waits = mains.iter().any(|it| !it.status.ready && it.end().is_none());
    waits.then_some((trouble, since, text))
}

/// All that it is for has ended well, and what serves it would go on for ever. Those that fail are found as [`unready`].
pub(super) fn done(pod: &Pod, status: &PodStatus) -> Option<Cause> {
    let is_never_restarted = pod.spec.as_ref()?.restart_policy.as_deref() == Some("Never");
    let mut mains = mains(status)
        .into_iter()
        .filter(|it| it.status.name != SERVANT)
        .peekable();
    let is_done =
        is_never_restarted && mains.peek().is_some() && mains.all(|it| it.end().is_some() && !it.has_failed());
    is_done.then_some(Cause::Succeeded)
}

struct Container<'a> {
    /// `init `, or nothing.
    kind: &'static str,
    status: &'a ContainerStatus,
}

fn containers<'a>(statuses: Option<&'a Vec<ContainerStatus>>, kind: &'static str) -> Vec<Container<'a>> {
    let statuses = statuses.into_iter().flatten();
    statuses.map(|status| Container { kind, status }).collect()
}

fn mains(status: &PodStatus) -> Vec<Container<'_>> {
    containers(status.container_statuses.as_ref(), "")
}

/// Who keeps the pod waiting.
fn unfinished(inits: &[Container<'_>], mains: &[Container<'_>]) -> String {
    let waiting = inits.iter().chain(mains).filter(|it| !it.status.ready);
    waiting.map(Container::words).collect::<Vec<_>>().join("; ")
}

impl Container<'_> {
    fn waits_for(&self, reasons: &[&str]) -> bool {
        self.waiting().is_some_and(|(reason, _)| reasons.contains(&reason))
    }

    fn waiting(&self) -> Option<(&str, &str)> {
        let waiting = self.status.state.as_ref()?.waiting.as_ref()?;
        let [reason, message] = [&waiting.reason, &waiting.message].map(|text| text.as_deref().unwrap_or_default());
        Some((reason, message))
    }

    fn end(&self) -> Option<i32> {
        self.status.state.as_ref()?.terminated.as_ref().map(|it| it.exit_code)
    }

    fn has_failed(&self) -> bool {
        self.end().is_some_and(|code| code != 0)
    }

    /// One that runs may have left the loop.
    fn is_in_a_loop(&self) -> bool {
        let runs = self.status.state.as_ref().is_some_and(|state| state.running.is_some());
        self.status.restart_count >= LOOP && !self.status.ready && !runs
    }

    /// `init container fetch: CrashLoopBackOff: …; restarted 6 times, last for OOMKilled (exit code 137): …`
    fn words(&self) -> String {
        let ContainerStatus {
            name,
            state,
            last_state,
            restart_count,
            ..
        } = self.status;
        let now = match state {
            Some(state) if state.running.is_some() => "runs and is not ready".to_owned(),
            Some(state) if state.terminated.is_some() => ended(state),
            _ => {
                let (reason, message) = self.waiting().unwrap_or_default();
                let separator = if message.is_empty() { "" } else { ": " };
                format!("{reason}{separator}{}", short(message))
            }
        };
        let restarts = if *restart_count > 0 {
            let last = last_state.as_ref().filter(|it| it.terminated.is_some());
            let last = last.map(|it| format!(", last for {}", ended(it)));
            format!("; restarted {restart_count} times{}", last.unwrap_or_default())
        } else {
            String::new()
        };
        format!("{}container {name}: {now}{restarts}", self.kind)
    }
}

fn ended(state: &ContainerState) -> String {
    let Some(end) = &state.terminated else {
        return String::new();
    };
    let reason = end.reason.as_deref().unwrap_or("its end");
    let message = end.message.as_deref().unwrap_or_default().trim();
    let separator = if message.is_empty() { "" } else { ": " };
    format!("{reason} (exit code {}){separator}{}", end.exit_code, short(message))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

pub(crate) fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

pub(crate) fn millis(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
