//! nginx under TLS 1.3 at the sender, and what fetches from it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use nova_measure::recipe::Recipe;

use super::{Kit, PORT, Plan, Task, address, words};
use crate::end::Side;
use crate::set::Kind as SetKind;

/// Files that are fetched at once, or connections for one, where a program has such a setting.
pub(super) const AT_ONCE: &str = "8";

/// Makes a certificate for the sender.
pub(super) fn prepare(kit: &Kit) -> Result<()> {
    let names = format!("subjectAltName=IP:{}", address(Side::Sender));
    kit.make(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=bench",
        "-addext",
        &names,
        "-keyout",
        &kit.path("web.key"),
        "-out",
        &kit.path("web.pem"),
    ])
}

/// The server's command line.
pub(super) fn server(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Vec<String>> {
    let scratch = kit.path("web");
    fs::create_dir_all(&scratch).with_context(|| format!("create {scratch}"))?;
    let settings = format!(
        "daemon off;\nuser root;\nworker_processes 2;\nerror_log stderr;\npid {scratch}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 10000000;\n  \
         client_body_temp_path {scratch}/body;\n  proxy_temp_path {scratch}/proxy;\n  fastcgi_temp_path {scratch}/fastcgi;\n  \
         uwsgi_temp_path {scratch}/uwsgi;\n  scgi_temp_path {scratch}/scgi;\n  \
         server {{\n    listen {}:{PORT} ssl;\n    ssl_certificate {};\n    ssl_certificate_key {};\n    \
         ssl_protocols TLSv1.3;\n    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n    root {};\n    \
         autoindex on;\n  }}\n}}\n",
        address(Side::Sender),
        kit.path("web.pem"),
        kit.path("web.key"),
        task.above(),
    );
    let settings = kit.write("nginx.conf", &settings, recipe)?;
    Ok(words(&["nginx", "-c", &settings]))
}

/// Where the server has the set.
pub(super) fn url(task: Task<'_>) -> String {
    format!("https://{}:{PORT}/{}", address(Side::Sender), task.set.kind.name())
}

pub(super) fn plan_curl(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let pem = kit.path("web.pem");
    let mut client = words(&["curl", "-sS", "--fail", "--tlsv1.3", "--cacert", &pem, "--create-dirs"]);
    match task.set.kind {
        SetKind::Large | SetKind::Text => {
            let (to, from) = (format!("{}/file", task.arrives()), format!("{}/file", url(task)));
            client.extend(words(&["-o", &to, &from]));
        }
        SetKind::Small => {
            let list = list(kit, task, "curl.list", |name| {
                format!("url = {}/{name}\noutput = {}/{name}\n", url(task), task.arrives())
            })?;
            client.extend(words(&["--parallel", "--parallel-max", AT_ONCE, "--config", &list]));
        }
    }
    pulled(server(kit, task, recipe)?, client)
}

pub(super) fn plan_aria2(kit: &Kit, task: Task<'_>, recipe: &mut Recipe) -> Result<Plan> {
    let ca = format!("--ca-certificate={}", kit.path("web.pem"));
    let mut client =
        words(&["aria2c", "-q", "--no-conf", "--file-allocation=none", "--summary-interval=0", &ca]);
    match task.set.kind {
        SetKind::Large | SetKind::Text => {
            let at_once = [format!("-x{AT_ONCE}"), format!("-s{AT_ONCE}"), "-k1M".to_owned()];
            client.extend(at_once);
            client.extend(words(&["-d", &task.arrives(), "-o", "file", &format!("{}/file", url(task))]));
        }
        SetKind::Small => {
            let list = list(kit, task, "aria2.list", |name| {
                format!("{}/{name}\n  dir={}\n  out={name}\n", url(task), task.arrives())
            })?;
            client.extend(words(&["-j", AT_ONCE, "-i", &list]));
        }
    }
    pulled(server(kit, task, recipe)?, client)
}

/// A list of all files of a set, as a program wants it.
fn list(kit: &Kit, task: Task<'_>, name: &str, line: impl Fn(&str) -> String) -> Result<String> {
    let mut text = String::new();
    for file in &task.set.files {
        write!(text, "{}", line(file))?;
    }
    let path = kit.path(name);
    fs::write(&path, text).with_context(|| format!("write {path}"))?;
    Ok(path)
}

/// The receiver fetches from a server at the sender.
pub(super) fn pulled(server: Vec<String>, client: Vec<String>) -> Result<Plan> {
    Ok(Plan { server_at: Side::Sender, server, port: PORT, client, server_ends: false })
}
