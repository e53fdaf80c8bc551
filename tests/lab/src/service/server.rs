//! Stock servers: dnsmasq, nginx, `WireGuard`, ocserv.

use std::{fmt::Write as _, path::Path, time::Duration};

use ipnet::Ipv4Net;
use rustix::process::Signal;

use crate::{
    LabError, Netns,
    layout::ip_batch,
    papers::Papers,
    process::{Launcher, Process, find_program},
};

/// How long a stock server may take to start.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(10);

/// The `WireGuard` interface of the gateway.
pub(crate) const WIREGUARD_INTERFACE: &str = "wg0";

/// Starts dnsmasq in the foreground.
pub(crate) fn dnsmasq(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    node: &str,
    lines: &[String],
) -> Result<(Process, &'static str), LabError> {
    let name = format!("{node}-dnsmasq");
    let lease_file = dir.join(format!("{name}.leases"));
    let mut text = format!(
        "keep-in-foreground\nlog-facility=-\nlog-queries\nlog-dhcp\nuser=root\ngroup=root\npid-file=\n\
         no-hosts\nno-resolv\nno-ping\nbind-interfaces\nexcept-interface=lo\ndhcp-authoritative\n\
         dhcp-leasefile={}\n",
        lease_file.display()
    );
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    if lines.iter().any(|line| line.starts_with("listen-address")) {
        text = text.replace("except-interface=lo\n", "");
    }
    let file = dir.join(format!("{name}.conf"));
    std::fs::write(&file, text).map_err(LabError::io("write a dnsmasq configuration"))?;
    let mut command = space.command("dnsmasq");
    command.arg(format!("--conf-file={}", file.display()));
    Ok((launcher.spawn(&name, command)?, "started, version"))
}

/// Starts nginx as one process in the foreground.
pub(crate) fn nginx(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    node: &str,
    servers: &str,
) -> Result<(Process, &'static str), LabError> {
    let name = format!("{node}-nginx");
    let shown = dir.display();
    let servers = servers.replace("@DIR@", &shown.to_string());
    // Paths of stock modules that write somewhere are moved into the lab's folder.
    let text = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {shown}/{name}.pid;\nerror_log stderr notice;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n    access_log {shown}/{name}.access;\n    client_body_temp_path {shown}/{name}.body;\n    \
         proxy_temp_path {shown}/{name}.proxy;\n    fastcgi_temp_path {shown}/{name}.fastcgi;\n    \
         uwsgi_temp_path {shown}/{name}.uwsgi;\n    scgi_temp_path {shown}/{name}.scgi;\n    \
         client_max_body_size 0;\n    sendfile on;\n    tcp_nopush on;\n{servers}\n}}\n"
    );
    let file = dir.join(format!("{name}.conf"));
    std::fs::write(&file, text).map_err(LabError::io("write an nginx configuration"))?;
    let mut command = space.command("nginx");
    command
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"]);
    // Said after the listening sockets are open (`ngx_os_status` follows `ngx_init_cycle`).
    Ok((launcher.spawn(&name, command)?, "getrlimit(RLIMIT_NOFILE)"))
}

/// Takes the gateway's `WireGuard` interface away, with all that it knew of the laptop.
pub(crate) fn end_wireguard(
    launcher: &Launcher,
    space: &Netns,
    engine: Option<&Process>,
) -> Result<(), LabError> {
    if let Some(engine) = engine {
        engine
            .signal(Signal::KILL)
            .map_err(LabError::io("kill the gateway's WireGuard"))?;
    }
    // The kernel's own; that of a process is gone soon, or by this.
    let mut command = space.command("ip");
    command.args(["link", "del", WIREGUARD_INTERFACE]);
    launcher.run(command, START_LIMIT).map(drop)
}

/// Makes the gateway's `WireGuard` interface: the kernel's where it has the module, else
/// wireguard-go.
pub(crate) fn wireguard(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    papers: &Papers,
    inner: Ipv4Net,
    port: u16,
) -> Result<Option<Process>, LabError> {
    let mut add = space.command("ip");
    add.args(["link", "add", WIREGUARD_INTERFACE, "type", "wireguard"]);
    let kernel = launcher.run(add, START_LIMIT)?.success();
    let engine = if kernel {
        None
    } else {
        if find_program("wireguard-go").is_none() {
            return Err(LabError::Missing {
                programs: vec!["wireguard-go".into()],
            });
        }
        let mut command = space.command("wireguard-go");
        command
            .args(["-f", WIREGUARD_INTERFACE])
            .env("LOG_LEVEL", "verbose");
        let process = launcher.spawn("gateway-wireguard", command)?;
        process.wait_line("UAPI listener started", START_LIMIT)?;
        Some(process)
    };
    let file = dir.join("gateway-wg.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n\n\
         [Peer]\nPublicKey = {}\n",
        papers.gateway.private,
        papers.laptop.public,
        crate::address::GUEST,
        papers.probe.public
    );
    std::fs::write(&file, text)
        .map_err(LabError::io("write the gateway's WireGuard configuration"))?;
    let mut wg = space.command("wg");
    wg.args(["setconf", WIREGUARD_INTERFACE]).arg(&file);
    launcher.run(wg, START_LIMIT)?.ok()?;
    let lines = format!(
        "link set {WIREGUARD_INTERFACE} mtu {} up\naddr add {inner} dev {WIREGUARD_INTERFACE}\n",
        crate::address::INNER_MTU
    );
    ip_batch(launcher, space, dir, "gateway-wg", &lines)?;
    Ok(engine)
}

/// The factors of ocserv beside the laptop's certificate: none, or a one-time password and no other
/// (`*`), event-based with eight digits (HOTP, RFC 4226; the file is liboath's).
fn factors(dir: &Path, papers: &Papers, otp: bool) -> Result<String, LabError> {
    if !otp {
        return Ok(String::new());
    }
    let files = [
        ("passwords", format!("{}:*:\n", crate::papers::DEVICE)),
        (
            "tokens",
            format!("HOTP/E/8 {} - {}\n", crate::papers::DEVICE, papers.token),
        ),
    ];
    for (name, text) in &files {
        std::fs::write(dir.join(format!("ocserv-{name}")), text)
            .map_err(LabError::io("write ocserv's files"))?;
    }
    let shown = dir.display();
    Ok(format!(
        "auth = \"plain[passwd={shown}/ocserv-passwords,otp={shown}/ocserv-tokens]\"\n"
    ))
}

/// Starts ocserv in the foreground: TLS 1.3 alone, a certificate of the city's authority and no
/// password, or with `otp` a one-time password besides; and for the laptop the address that it has
/// everywhere.
pub(crate) fn ocserv(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    papers: &Papers,
    otp: bool,
) -> Result<(Process, &'static str), LabError> {
    if find_program("ocserv").is_none() {
        return Err(LabError::Missing {
            programs: vec!["ocserv".into()],
        });
    }
    let people = dir.join("ocserv-people");
    let write = |file: &Path, text: &str| {
        std::fs::write(file, text).map_err(LabError::io("write ocserv's files"))
    };
    std::fs::create_dir_all(&people).map_err(LabError::io("make ocserv's folder"))?;
    write(
        &people.join(crate::papers::DEVICE),
        &format!("explicit-ipv4 = {}\n", crate::address::GUEST),
    )?;
    let authority = dir.join("tls-authority.pem");
    write(&authority, &papers.tls.authority)?;
    papers.tls.server.write(dir, "tls-server")?;
    let shown = dir.display();
    let text = format!(
        "auth = \"certificate\"\n\
         {factors}\
         tcp-port = {port}\n\
         listen-host = {address}\n\
         run-as-user = root\nrun-as-group = root\nisolate-workers = false\n\
         socket-file = {shown}/ocserv.sock\npid-file = {shown}/ocserv.pid\nuse-occtl = false\n\
         server-cert = {shown}/tls-server.pem\nserver-key = {shown}/tls-server.key\n\
         ca-cert = {authority}\ncert-user-oid = 2.5.4.3\n\
         tls-priorities = \"NORMAL:-VERS-ALL:+VERS-TLS1.3\"\n\
         max-clients = 16\nmax-same-clients = 4\npersistent-cookies = false\n\
         keepalive = 60\ndpd = 10\nmobile-dpd = 10\ntry-mtu-discovery = false\nmtu = 1500\n\
         device = tls\npredictable-ips = true\nping-leases = false\n\
         ipv4-network = {network}\nipv4-netmask = 255.255.255.0\n\
         config-per-user = {people}/\n\
         cisco-client-compat = false\nlog-level = 3\n",
        factors = factors(dir, papers, otp)?,
        port = crate::address::GATEWAY_TLS.port(),
        address = crate::address::GATEWAY_TLS.ip(),
        authority = authority.display(),
        people = people.display(),
        network = std::net::Ipv4Addr::new(10, 250, 7, 0),
    );
    let file = dir.join("ocserv.conf");
    write(&file, &text)?;
    let mut command = space.command("ocserv");
    command.arg("--foreground").arg("--config").arg(&file);
    Ok((
        launcher.spawn("gateway-ocserv", command)?,
        "sec-mod initialized",
    ))
}
