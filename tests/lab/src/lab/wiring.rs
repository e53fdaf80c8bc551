//! Start: the laptop's cables, and what the nodes serve.

use std::{fmt::Write as _, io::Write as _, path::Path};

use super::{Lab, Seat, WALLS};
use crate::{
    Canary, LabError, Netns,
    layout::ip_batch,
    process::find_program,
    service,
    tap::open_tap,
    topology::{Answer, Service},
};

const PROGRAMS: &[&str] = &[
    "ip", "nft", "dnsmasq", "nginx", "tcpdump", "wg", "curl", "busybox", "ping", "nc",
];

/// Programs that the lab needs and this machine does not have.
pub fn missing_programs() -> Vec<String> {
    PROGRAMS
        .iter()
        .filter(|program| find_program(program).is_none())
        .map(|&program| program.to_owned())
        .collect()
}

impl Lab {
    /// Kills the gateway's tunnel and starts it again, without a memory of the laptop. It is there
    /// when this returns.
    pub fn restart_gateway(&self) -> Result<(), LabError> {
        let found = self.topology.nodes.iter().find_map(|node| {
            node.services.iter().find_map(|service| match service {
                Service::WireGuard { inner, port } => Some((node.name, *inner, *port)),
                _ => None,
            })
        });
        let (node, inner, port) = found.ok_or_else(|| LabError::Unknown {
            what: "a gateway to start again".to_owned(),
        })?;
        let space = self.space(node)?;
        let mut running = self
            .restarted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let engine = running
            .as_ref()
            .or_else(|| self.server("gateway-wireguard"));
        service::end_wireguard(&self.launcher, space, engine)?;
        *running = service::wireguard(&self.launcher, space, &self.dir, &self.papers, inner, port)?;
        Ok(())
    }

    pub(super) fn connect_laptop(&mut self) -> Result<(), LabError> {
        let walls = self.space(WALLS)?.clone();
        let laptop = Netns::create().map_err(LabError::io("make the laptop's namespace"))?;
        let mut lines = String::new();
        for cable in self.topology.cables.clone() {
            let name = cable.interface;
            match self.seat {
                Seat::Namespace => {
                    let _ = writeln!(
                        lines,
                        "link add {name} type veth peer name {name} netns {}",
                        laptop.path().display()
                    );
                }
                Seat::Taps { vnet_hdr } => {
                    let tap = walls
                        .enter(|| open_tap(name, vnet_hdr))
                        .and_then(|tap| tap)
                        .map_err(LabError::io("make a tap for the laptop"))?;
                    self.taps.insert(name, tap);
                }
            }
            let switch = cable.wall.switch();
            let _ = writeln!(lines, "link set {name} master {switch}\nlink set {name} up");
        }
        ip_batch(&self.launcher, &walls, &self.dir, "cables", &lines)?;
        if self.seat == Seat::Namespace {
            ip_batch(
                &self.launcher,
                &laptop,
                &self.dir,
                "laptop",
                "link set lo up\n",
            )?;
            self.spaces.insert("laptop", laptop);
        }
        Ok(())
    }

    /// Starts everything first, then waits for everything.
    pub(super) fn serve(&mut self) -> Result<(), LabError> {
        let mut waiting = Vec::new();
        for node in &self.topology.nodes {
            let space = &self.spaces[node.name];
            let mut answers: Vec<Answer> = Vec::new();
            for service in &node.services {
                match service {
                    Service::Dnsmasq(lines) => waiting.push(service::dnsmasq(
                        &self.launcher,
                        space,
                        &self.dir,
                        node.name,
                        lines,
                    )?),
                    Service::Nginx(servers) => waiting.push(service::nginx(
                        &self.launcher,
                        space,
                        &self.dir,
                        node.name,
                        servers,
                    )?),
                    Service::WireGuard { inner, port } => self.servers.extend(service::wireguard(
                        &self.launcher,
                        space,
                        &self.dir,
                        &self.papers,
                        *inner,
                        *port,
                    )?),
                    Service::Answer(answer) => answers.push(*answer),
                }
            }
            if !answers.is_empty() {
                self.machines
                    .insert(node.name, service::answer(space, &answers)?);
            }
        }
        if self.tls {
            waiting.push(service::ocserv(
                &self.launcher,
                &self.spaces["gateway"],
                &self.dir,
                &self.papers,
                self.otp,
            )?);
        }
        if let Some(address) = self.ike {
            let gateway = &self.spaces["gateway"];
            let process =
                service::strongswan(&self.launcher, gateway, &self.dir, &self.papers, address)?;
            self.servers.push(process);
        }
        for (process, line) in waiting {
            process.wait_line(line, service::START_LIMIT)?;
            self.servers.push(process);
        }
        Ok(())
    }
}

/// Groupware's page and its download; each repeats the canary.
pub(super) fn write_groupware(
    dir: &Path,
    canary: &Canary,
    download: usize,
) -> Result<(), LabError> {
    let page = format!(
        "見本市グループウェア Mihon City groupware\n{}\n",
        canary.hex()
    );
    std::fs::write(dir.join("page.txt"), page).map_err(LabError::io("write groupware's page"))?;
    let block = canary.bytes().repeat(4096);
    let writing = || LabError::io("write groupware's download");
    let mut file = std::fs::File::create(dir.join("download")).map_err(writing())?;
    let mut left = download;
    while left > 0 {
        let length = left.min(block.len());
        file.write_all(&block[..length]).map_err(writing())?;
        left -= length;
    }
    Ok(())
}
