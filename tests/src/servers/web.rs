//! The web far away: nginx with plain HTTP and TLS on every address, and a far caching server before an origin.
//!
//! nginx is also the witness of what prewarm opened: a connection that ends without a request is logged (level info)
//! with the port it came to, so unused leases are counted by the origin and not by their owner.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Certificates, accepts};
use crate::netns::Namespace;
use crate::service::Service;

/// What every page and follower consists of.
pub const CONTENT: &str = "made ready before it was asked for\n";

/// Where the origin behind the far cache listens, for nobody else.
const ORIGIN: &str = "127.0.0.1:8080";

/// A running web server.
#[derive(Debug)]
pub struct Web {
    _service: Service,
    errors: PathBuf,
    requests: PathBuf,
}

/// Names that are served by the far caching server: from its cache while fresh, else from the origin; `X-Cache` says
/// which.
#[derive(Clone, Debug, Default)]
pub struct FarCache {
    /// The virtual hosts.
    pub names: Vec<String>,
    /// For how long an object is fresh.
    pub fresh_for: Duration,
}

impl Web {
    /// Serves all addresses of the namespace on ports 80 and 443.
    ///
    /// # Errors
    /// When nginx can't be started or doesn't accept connections on `probe`.
    pub fn start(
        namespace: &Namespace,
        probe: IpAddr,
        certificates: &Certificates,
        far_cache: &FarCache,
        directory: &Path,
    ) -> Result<Self> {
        let errors = directory.join("nginx-error.log");
        let requests = directory.join("nginx-access.log");
        let configuration = directory.join("nginx.conf");
        fs::create_dir_all(directory.join("body"))?;
        fs::write(&configuration, configuration_text(certificates, far_cache, directory, &errors, &requests))?;
        let mut command = namespace.command("/usr/sbin/nginx");
        command.arg("-p").arg(directory).arg("-c").arg(&configuration).arg("-e").arg(&errors);
        let mut service = Service::start("nginx", command, directory)?;
        service.ready(|| {
            accepts(namespace, SocketAddr::new(probe, 443))?;
            accepts(namespace, SocketAddr::new(probe, 80))
        })?;
        Ok(Self { _service: service, errors, requests })
    }

    /// Connections to this port that ended without a request, since the start.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn unused_connections(&self, port: u16) -> Result<u64> {
        let text = fs::read_to_string(&self.errors).with_context(|| format!("read {}", self.errors.display()))?;
        let ending = format!(":{port}");
        let unused = text.lines().filter(|line| {
            (line.contains("while waiting for request") || line.contains("while SSL handshaking"))
                && line.rsplit_once("server: ").is_some_and(|(_, server)| server.ends_with(&ending))
        });
        Ok(unused.count() as u64)
    }

    /// Requests that carried `Sec-Purpose: prefetch`, since the start.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn prefetches(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.requests).with_context(|| format!("read {}", self.requests.display()))?;
        Ok(text.lines().filter(|line| line.ends_with("purpose=prefetch")).count() as u64)
    }
}

fn configuration_text(
    certificates: &Certificates,
    far_cache: &FarCache,
    directory: &Path,
    errors: &Path,
    requests: &Path,
) -> String {
    let folder = directory.display();
    let listen = "listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;";
    // One process: nothing of it outlives a killed lab.
    let mut text = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {folder}/nginx.pid;\nerror_log {errors} info;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           log_format lab '$msec $server_port $host $request_method $uri $status connection=$connection \
             requests=$connection_requests age=$connection_time cache=$upstream_cache_status purpose=$http_sec_purpose';\n\
           access_log {requests} lab;\n\
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
           proxy_cache_path {folder}/cache keys_zone=far:1m inactive=60s use_temp_path=off;\n\
           ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
           default_type text/plain;\n\
           server {{ listen {ORIGIN}; location / {{ return 200 '{CONTENT}'; }} }}\n\
           server {{ {default} server_name _; location / {{ return 200 '{CONTENT}'; }} }}\n",
        errors = errors.display(),
        requests = requests.display(),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
        default = listen.replace("80;", "80 default_server;").replace("443 ssl;", "443 ssl default_server;"),
    );
    if !far_cache.names.is_empty() {
        text.push_str(&format!(
            "server {{ {listen} server_name {names};\n\
               location / {{ proxy_pass http://{ORIGIN}; proxy_cache far; proxy_cache_key $host$uri;\n\
                 proxy_cache_valid 200 {fresh}s; add_header X-Cache $upstream_cache_status always; }} }}\n",
            names = far_cache.names.join(" "),
            fresh = far_cache.fresh_for.as_secs(),
        ));
    }
    text.push_str("}\n");
    text
}
