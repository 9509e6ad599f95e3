//! Real servers, each with a second of patience for a connection on which nothing is said.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bed::Bed;
use crate::service::Service;

/// nginx with one worker; at the second address no client may make more than four requests at the same time.
pub(super) fn nginx(bed: &Bed, directory: &Path, address: SocketAddr, limited: SocketAddr) -> Result<Service> {
    let configuration = directory.join("nginx.conf");
    let folder = directory.display();
    fs::create_dir_all(directory.join("body"))?;
    fs::write(
        &configuration,
        format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off; client_header_timeout 1s; keepalive_timeout 1s;\n\
               client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
               uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
               limit_conn_zone $binary_remote_addr zone=clients:1m;\n\
               server {{ listen {address}; location / {{ return 200 'nginx'; }} }}\n\
               server {{ listen {limited}; limit_conn clients 4; location / {{ return 200 'nginx'; }} }}\n}}\n"
        ),
    )?;
    let mut command = bed.server.command("/usr/sbin/nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&configuration).arg("-e").arg(directory.join("error.log"));
    ready(bed, Service::start("bed-nginx", command, directory)?, &[address, limited])
}

/// Apache with mod_reqtimeout and room for sixteen connections.
pub(super) fn apache(bed: &Bed, directory: &Path, address: SocketAddr) -> Result<Service> {
    const MODULES: &str = "/usr/lib/apache2/modules";
    let configuration = directory.join("apache.conf");
    let folder = directory.display();
    let modules = ["mpm_event", "authz_core", "alias", "reqtimeout"];
    let loaded: String =
        modules.iter().map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n")).collect();
    fs::create_dir_all(directory.join("web"))?;
    // Every path leads to it.
    fs::write(directory.join("web/answer"), "apache")?;
    fs::write(
        &configuration,
        format!(
            "{loaded}ServerRoot {folder}\nServerName origin\nDefaultRuntimeDir {folder}\nPidFile {folder}/apache.pid\n\
             Listen {address}\nDocumentRoot {folder}/web\nErrorLog {folder}/error.log\n\
             ServerLimit 1\nStartServers 1\nThreadsPerChild 16\nMaxRequestWorkers 16\nMinSpareThreads 1\nMaxSpareThreads 16\n\
             RequestReadTimeout header=1 body=1\nKeepAliveTimeout 1\n\
             AliasMatch ^/ {folder}/web/answer\n"
        ),
    )?;
    let mut command = bed.server.command("/usr/sbin/apache2");
    command.args(["-D", "FOREGROUND", "-f"]).arg(&configuration);
    ready(bed, Service::start("bed-apache", command, directory)?, &[address])
}

/// Node's own HTTP server, which writes a 408 before it closes; the second takes no more than four connections.
pub(super) fn node(bed: &Bed, directory: &Path, address: SocketAddr, limited: SocketAddr) -> Result<Service> {
    let program = directory.join("server.js");
    let listen = |address: SocketAddr, most: &str| {
        format!(
            "{{ const server = http.createServer({{ headersTimeout: 1000, requestTimeout: 1000, keepAliveTimeout: 1000, \
             connectionsCheckingInterval: 200 }}, (request, response) => response.end('node'));\n\
             {most}server.listen({}, '{}'); }}\n",
            address.port(),
            address.ip()
        )
    };
    fs::write(
        &program,
        format!(
            "const http = require('http');\n{}{}",
            listen(address, ""),
            listen(limited, "server.maxConnections = 4;\n")
        ),
    )?;
    let mut command = bed.server.command("node");
    command.arg(&program);
    ready(bed, Service::start("bed-node", command, directory)?, &[address, limited])
}

/// OpenSSH, which speaks first and leaves a second to log in.
pub(super) fn openssh(bed: &Bed, directory: &Path, address: SocketAddr) -> Result<Service> {
    let key = directory.join("host_key");
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    ensure!(make.status().context("run ssh-keygen")?.success(), "ssh-keygen makes no key");
    let configuration = directory.join("sshd_config");
    fs::write(
        &configuration,
        format!(
            "ListenAddress {address}\nHostKey {}\nPidFile none\nLoginGraceTime 1\nUsePAM no\nMaxStartups 16:30:64\n",
            key.display()
        ),
    )?;
    // Where it locks itself into before anybody has logged in; the package's own unit makes it.
    fs::create_dir_all("/run/sshd")?;
    let mut command = bed.server.command("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(&configuration);
    ready(bed, Service::start("bed-openssh", command, directory)?, &[address])
}

/// Postfix, which speaks first and leaves two seconds to say something.
pub(super) fn postfix(bed: &Bed, directory: &Path, address: SocketAddr) -> Result<Service> {
    let (settings, queue, data) = (directory.join("etc"), directory.join("spool"), directory.join("data"));
    for folder in [&settings, &queue, &data] {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    // Its processes have given up root's rights when they look for these.
    for folder in directory.ancestors().take(2) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let owner = Command::new("chown").arg("postfix").arg(&data).status().context("run chown")?;
    ensure!(owner.success(), "no user postfix");
    fs::write(
        settings.join("main.cf"),
        format!(
            "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\nmyhostname = origin.bed.example\n\
             mydestination =\ninet_protocols = ipv4\ninet_interfaces = {}\nmynetworks_style = host\n\
             local_recipient_maps =\nalias_maps =\nalias_database =\nsmtpd_timeout = 2s\nstress =\n\
             maillog_file = {}\nmaillog_file_prefixes = /tmp,/var,{}\n\
             smtpd_peername_lookup = no\nsmtpd_client_connection_rate_limit = 0\nsmtpd_client_connection_count_limit = 0\n",
            queue.display(),
            data.display(),
            address.ip(),
            directory.join("mail.log").display(),
            directory.display(),
        ),
    )?;
    let service = |name: &str, kind: &str, private: &str, rest: &str, program: &str| {
        format!("{name} {kind} {private} - n {rest} {program}\n")
    };
    fs::write(
        settings.join("master.cf"),
        [
            service(&address.port().to_string(), "inet", "n", "- 50", "smtpd"),
            service("cleanup", "unix", "n", "- 0", "cleanup"),
            service("rewrite", "unix", "-", "- -", "trivial-rewrite"),
            service("anvil", "unix", "-", "- 1", "anvil"),
            service("postlog", "unix-dgram", "n", "- 1", "postlogd"),
        ]
        .concat(),
    )?;
    let mut command = bed.server.command("/usr/sbin/postfix");
    command.arg("-c").arg(&settings).arg("start-fg");
    ready(bed, Service::start("bed-postfix", command, directory)?, &[address])
}

fn ready(bed: &Bed, mut service: Service, addresses: &[SocketAddr]) -> Result<Service> {
    for address in addresses {
        service.ready(|| bed.server.enter(|| Ok(std::net::TcpStream::connect(address)?)).ok())?;
    }
    Ok(service)
}
