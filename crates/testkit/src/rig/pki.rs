//! The rig's certificates, keys and tokens: new with every rig, in its own folder.

use std::{fs, path::Path};

use rcgen::KeyPair;

use super::RigError;
use crate::certs::{Ca, Subject};

/// A token with every right. It opens one rig's API server, inside its namespace, for as long as the rig lives.
pub(super) const ADMIN_TOKEN: &str = "rig-admin";

/// Writes `ca.crt`, `ca.key`, `apiserver.{crt,key}`, `injector.{crt,key}`, `sa.{key,pub}` and `tokens.csv`.
pub(super) fn write(dir: &Path) -> Result<(), RigError> {
    let put =
        |name: &str, text: &str| fs::write(dir.join(name), text).map_err(|error| RigError::io(dir.join(name), error));
    let ca = Ca::new("rig");
    put("ca.crt", &ca.cert_pem())?;
    put("ca.key", &ca.key_pem())?;
    let names = Subject::new("kube-apiserver")
        .dns("localhost")
        .dns("kubernetes")
        .dns("kubernetes.default")
        .dns("kubernetes.default.svc")
        .ip("127.0.0.1")
        .ip("10.96.0.1");
    let server = ca.server(&names);
    put("apiserver.crt", &server.cert_pem)?;
    put("apiserver.key", &server.key_pem)?;
    let injector = ca.localhost();
    put("injector.crt", &injector.cert_pem)?;
    put("injector.key", &injector.key_pem)?;
    let tokens = KeyPair::generate()?;
    put("sa.key", &tokens.serialize_pem())?;
    put("sa.pub", &tokens.public_key_pem())?;
    put("tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))
}
