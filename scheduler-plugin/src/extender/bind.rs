//! `/bind`: reserve on the node that kube-scheduler chose.

use berth_kube_api::extender::{ExtenderBindingArgs, ExtenderBindingResult};

use super::{Answer, Extender, answer, error_body};
use crate::reserve::BindRequest;

impl Extender {
    pub(super) async fn bind(&self, args: ExtenderBindingArgs) -> Answer {
        let request = BindRequest {
            namespace: args.pod_namespace,
            name: args.pod_name,
            uid: args.pod_uid,
            node: args.node,
        };
        match self.reserver.bind(request).await {
            Ok(()) => answer("ok", ExtenderBindingResult::default()),
            Err(error) => answer("refused", error_body(format!("{}: {error}", error.reason()))),
        }
    }
}
