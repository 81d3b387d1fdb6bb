//! Instances: customers ask for them, the agent takes requests on and reports, customers end them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Fake,
    auth::Principal,
    body::{Enum, Fields},
    message::{Answer, Request, form},
    nats::{self, Order},
    state::{Asked, Row, State},
};

const STATES: Enum = Enum {
    class: "com.nvidia.icms.inbound.rest.model.InstanceStateEnum",
    values: &["starting", "running", "shutting-down", "terminated"],
};

type Query = BTreeMap<String, String>;

pub(super) fn list(fake: &Fake, who: &Principal, cluster: &str) -> Result<Answer, Answer> {
    // No identity check: any agent reads any cluster's list.
    who.needs(&["nvca-cluster", "instance_request_update"])?;
    let active = fake.read(|state| state.active(cluster));
    let instances = active.into_iter().map(|(id, request, instance_state, _)| {
        json!({"instanceId": id, "requestId": request, "instanceState": instance_state})
    });
    Ok(Answer::ok(&json!({"instances": instances.collect::<Vec<_>>()})))
}

/// `PUT /v1/sirs/{request}`.
pub(super) fn acknowledge(fake: &Fake, who: &Principal, id: &str, body: &Fields) -> Result<Answer, Answer> {
    if !body.has("status") && !body.has("instanceCount") {
        return Err(Answer::error(500, "Internal Server Error"));
    }
    let count = body.int("instanceCount")?;
    who.needs(&[
        "instance_request_update",
        "instance-status-update",
        "spot-status-update",
    ])?;
    fake.change(|state| {
        check_agent(state, who)?;
        let asked = asked(state, id)?;
        if !matches!(asked.state.as_str(), "open" | "active") {
            let text = format!(
                "Request associated with given id is not in 'open' or 'active' state, existing request state is '{}'",
                asked.state
            );
            return Err(Answer::error(412, text));
        }
        if count > asked.count {
            return Err(Answer::error(412, format!("The request is {id} is already fulfilled.")));
        }
        asked.acknowledged = asked.acknowledged.max(count);
        "pending-fulfillment".clone_into(&mut asked.status);
        Ok(Answer::empty(200))
    })
}

/// `POST /v1/sirs/{request}/{instance}`.
pub(super) fn report(fake: &Fake, who: &Principal, id: &str, instance: &str, body: &Fields) -> Result<Answer, Answer> {
    let instance_state = body.one_of("instanceState", &STATES)?;
    let (status, request_state) = (body.filled("status")?, body.filled("requestState")?);
    let (Some(instance_state), Some(status), Some(request_state)) = (instance_state, status, request_state) else {
        return Err(Answer::error(400, "must not be null"));
    };
    who.needs(&[
        "instance_request_update",
        "instance-status-update",
        "spot-status-update",
    ])?;
    if body.has("placement") {
        return Err(Answer::error(500, "Internal Server Error"));
    }
    fake.change(|state| {
        check_agent(state, who)?;
        let asked = asked(state, id)?;
        if asked.acknowledged == 0 {
            let text = format!(
                "Invalid request status {} for instance request with id {id}",
                asked.status
            );
            return Err(Answer::error(412, text));
        }
        if instance_state == "terminated" {
            let end = json!({"terminationCause": body.raw("terminationCause"), "healthInfo": body.raw("healthInfo")});
            asked.ends.insert(instance.to_owned(), end);
        }
        asked.status = status;
        asked.instances.insert(instance.to_owned(), instance_state);
        let is_over = asked.instances.values().all(|state| state == "terminated");
        asked.state = if is_over { request_state } else { "active".to_owned() };
        Ok(Answer::empty(200))
    })
}

fn asked<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Asked, Answer> {
    let missing = || Answer::error(404, format!("Cannot find request with id {id}"));
    state.requests.get_mut(id).ok_or_else(missing)
}

/// An agent that no cluster knows is told in a 404, misspelt.
fn check_agent(state: &State, who: &Principal) -> Result<(), Answer> {
    let subject = who.subject.clone().unwrap_or_default();
    let known = |id: &str| subject == id || crate::ClusterId::of_client(&subject).as_str() == id;
    let is_agent = super::auth::is_agent(&subject);
    if is_agent || state.by_id.keys().any(|id| known(id)) {
        return Ok(());
    }
    Err(Answer::error(
        404,
        format!("Cloud not find any cluster with {subject} clusterId"),
    ))
}

/// `POST /v1/si`, a form: 202 and a message for each instance.
pub(super) async fn ask(fake: &Fake, who: &Principal, request: &Request) -> Result<Answer, Answer> {
    let mut fields = form(&String::from_utf8_lossy(&request.body));
    for (name, value) in request.query() {
        fields.entry(name).or_insert(value);
    }
    let get = |name: &str| fields.get(name).filter(|value| !value.is_empty()).cloned();
    let action = get("Action").unwrap_or_default();
    let is_task = action.ends_with("ForTask");
    if !matches!(
        action.trim_end_matches("ForTask"),
        "RequestInstances" | "RequestSpotInstances"
    ) {
        return Err(Answer::error(400, format!("Invalid {action} action provided")));
    }
    let count: i64 = get("InstanceCount").and_then(|count| count.parse().ok()).unwrap_or(0);
    if count < 1 {
        return Err(Answer::error(
            400,
            format!("Instance count must be positive. Provided {count}"),
        ));
    }
    let required = |name: &str| {
        get(&format!("LaunchSpecification.{name}"))
            .ok_or_else(|| Answer::error(400, format!("LaunchSpecification.{name} can't be empty")))
    };
    let (gpu, nca) = (required("Gpu")?, required("NcaId")?);
    who.needs(&["instance-request"])?;
    let kind = get("LaunchSpecification.InstanceType");
    let backend = get("LaunchSpecification.Backend");
    let now = fake.now_unix_ms();
    let (row, kind_name, kind_value) =
        fake.read(|state| choose(state, &nca, &gpu, kind.as_deref(), backend.as_deref(), now))?;
    let id = Uuid::new_v4().to_string();
    let asked = Asked {
        nca_id: nca,
        cluster_id: row.cluster_id.clone(),
        gpu,
        kind_name,
        kind_value,
        count,
        state: "open".to_owned(),
        status: "pending-evaluation".to_owned(),
        is_task,
        ..Asked::default()
    };
    let order = Order {
        request_id: &id,
        asked: &asked,
        cluster: &row,
        fields: &fields,
    };
    nats::publish_creation(fake.publisher.as_ref(), &order).await?;
    fake.change(|state| state.requests.insert(id.clone(), asked));
    Ok(Answer::json(202, &json!({ "requestId": id })))
}

/// The cluster that a request goes to, with the name and the value of the instance type.
fn choose(
    state: &State,
    nca: &str,
    gpu: &str,
    kind: Option<&str>,
    backend: Option<&str>,
    now: u64,
) -> Result<(Row, String, String), Answer> {
    let find = |row: &Row| {
        let offered = row.gpus.iter().find(|offered| offered["name"] == json!(gpu))?;
        let kinds = offered["instanceTypes"].as_array()?;
        let found = kinds.iter().find(|other| match kind {
            Some(kind) => other["name"] == json!(kind),
            None => other["default"] == json!(true),
        })?;
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        Some((text("name"), text("value")))
    };
    let shown = kind.unwrap_or("default");
    let may_use = |row: &&Row| row.nca_id == nca || row.authorized.contains(nca) || row.authorized.contains("*");
    let fitting = state.by_id.values().filter(may_use).filter(|row| match backend {
        Some(backend) => row.group_name == backend || row.name == backend,
        None => row.targeting,
    });
    let mut fitting = fitting.filter(|row| row.registered.as_deref() == Some("READY"));
    let found = fitting.find_map(|row| find(row).map(|(name, value)| (row.clone(), name, value)));
    let Some((row, name, value)) = found else {
        return Err(if backend.is_some() {
            let text =
                format!("Customer does not have access to any ready cluster for GPU: {gpu} and instance type: {shown}");
            Answer::error(409, text)
        } else {
            Answer::error(
                400,
                format!("There are no available clusters for {gpu} GPU or {shown} instance type"),
            )
        });
    };
    let beat = state
        .beat(&row.cluster_id, now)
        .filter(|beat| beat.healthy && !beat.usage.is_empty());
    if beat.is_none() {
        let text = format!("There are no available clusters with capacity for {gpu} GPU or {shown} instance type");
        return Err(Answer::error(400, text));
    }
    Ok((row, name, value))
}

/// `DELETE /v1/si?Action=TerminateInstances&InstanceId=`.
pub(super) async fn terminate(fake: &Fake, who: &Principal, query: &Query) -> Result<Answer, Answer> {
    let action = query.get("Action").cloned().unwrap_or_default();
    if action != "TerminateInstances" {
        return Err(Answer::error(400, format!("Invalid {action} action provided")));
    }
    who.needs(&["instance-request"])?;
    let wanted: Vec<String> = query
        .get("InstanceId")
        .into_iter()
        .flat_map(|ids| ids.split(','))
        .map(str::to_owned)
        .collect();
    let found = fake.read(|state| {
        let mut found = Vec::new();
        for wanted in &wanted {
            let hit = state.requests.iter().find_map(|(request, asked)| {
                let is = asked.instances.get(wanted)?.clone();
                Some((wanted.clone(), request.clone(), is, asked.clone()))
            });
            match hit {
                Some(hit) => found.push(hit),
                None => return Err(Answer::error(404, format!("Invalid instance ids - [{wanted}]"))),
            }
        }
        Ok(found)
    })?;
    let going: Vec<_> = found
        .into_iter()
        .filter(|(_, _, is, _)| !matches!(is.as_str(), "shutting-down" | "terminated"))
        .collect();
    for (instance, request, _, asked) in &going {
        let name = fake.read(|state| state.by_id.get(&asked.cluster_id).map(|row| row.name.clone()));
        nats::publish_termination(fake.publisher.as_ref(), asked, request, instance, name.as_deref()).await?;
    }
    let shown: Vec<Value> = going
        .iter()
        .map(|(instance, request, was, _)| {
            json!({"InstanceId": instance, "RequestId": request,
                "CurrentState": {"Code": 32, "Name": "shutting-down"},
                "PreviousState": {"Code": if was == "running" { 16 } else { 0 }, "Name": was}})
        })
        .collect();
    fake.change(|state| {
        for (instance, request, ..) in going {
            if let Some(asked) = state.requests.get_mut(&request) {
                asked.instances.insert(instance, "shutting-down".to_owned());
            }
        }
    });
    Ok(Answer::ok(&json!({ "TerminatingInstances": shown })))
}

/// `GET /v1/si`: requests by id, in part.
pub(super) fn describe(fake: &Fake, who: &Principal, query: &Query) -> Result<Answer, Answer> {
    who.needs(&["instance-request"])?;
    let wanted = query.get("RequestId").cloned().unwrap_or_default();
    let requests: Vec<Value> = fake.read(|state| {
        let requests = state
            .requests
            .iter()
            .filter(|(id, _)| wanted.split(',').any(|wanted| wanted == *id));
        let shown = requests.map(|(id, asked)| {
            json!({"RequestId": id, "State": asked.state, "Status": {"Code": asked.status},
                "InstanceCount": asked.count})
        });
        shown.collect()
    });
    Ok(Answer::ok(&json!({ "InstanceRequests": requests })))
}
