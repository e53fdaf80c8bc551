//! The work OS: a stock kernel with a small user space, as a person's Linux would behave.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::mount::MountFlags;
use rustix::process::Signal;
use sekisho_laptop::config::{AGENT_PORT, WORK_EXEC_PORT};

use crate::machine::{Beside, mount_at};
use crate::ports::DeviceEvents;
use crate::services::{Services, Signaller};
use crate::{Failure, ports, power, say};

const NIC: &str = "eth0";
const DHCP_CLIENT: &str = "/bin/udhcpc";
const AGENT: &str = "/bin/sekisho-guest-agent";

/// A board without console ports is fine; one with them shows them at once, unless the build
/// machine is very busy.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// When one port was there, the next cannot be far.
const NEXT_PORT_LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn run(beside: Beside) -> Result<(), Failure> {
    mount_at("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), "mode=1777")?;
    mount_at("tmpfs", "/run", "tmpfs", MountFlags::empty(), "mode=0755")?;
    rustix::system::sethostname(b"work")?;
    ports::link_names()?;
    power::on_signals()?;
    power::on_button()?;

    let mut services = Services::default();
    // The kernel names the only NIC; its driver was loaded before.
    if Path::new("/sys/class/net").join(NIC).exists() {
        services.start(dhcp_client())?;
        follow_carrier(services.signaller())?;
    } else {
        say("there is no NIC");
    }
    if ports::console_exists() {
        let commands = ports::find(WORK_EXEC_PORT, PORT_LIMIT);
        if Path::new(AGENT).exists()
            && let Ok(port) = ports::find(AGENT_PORT, NEXT_PORT_LIMIT)
        {
            let agent = [AGENT, "--port", &port.to_string_lossy()];
            services.start(agent.map(str::to_owned).to_vec())?;
        }
        // Before the first command everything is loaded: what a test looks for is there, or will never be.
        if let Ok(port) = commands {
            beside.wait()?;
            let serve = ["/proc/self/exe", "serve", &port.to_string_lossy()];
            services.start(serve.map(str::to_owned).to_vec())?;
            say("ready");
            return services.supervise();
        }
    }
    beside.wait()?;
    say("ready");
    services.supervise()
}

fn dhcp_client() -> Vec<String> {
    // Option 26, the MTU, must be asked for. Tries quickly for ever: the way out may come any
    // time after the guest did.
    let line = format!("{DHCP_CLIENT} -f -S -i {NIC} -s /etc/udhcpc.script -O mtu -t 4 -T 1 -A 1");
    line.split_whitespace().map(str::to_owned).collect()
}

/// When the link comes back, asks for the address again at once instead of at the lease's half.
fn follow_carrier(services: Signaller) -> Result<(), Failure> {
    let links = DeviceEvents::listen_links()?;
    let carrier = || {
        fs::read_to_string(Path::new("/sys/class/net").join(NIC).join("carrier"))
            .is_ok_and(|value| value.trim() == "1")
    };
    thread::spawn(move || {
        let mut was = true;
        loop {
            links.wait(None);
            let is = carrier();
            if is && !was {
                services.send(DHCP_CLIENT, Signal::USR1);
            }
            was = is;
        }
    });
    Ok(())
}
