//! Wi-Fi in the QEMU laptop: radios of `mac80211_hwsim`, access points of `hostapd`, the real
//! supervisor, uplink and supplicant. What may be joined is, and what must not be is not (T17).

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use sekisho_lab::{
    Papers,
    dot1x::{Dot1xPapers, IDENTITY, SERVER},
    programs,
};
use sekisho_laptop::{Laptop, Options, exec::Running};
use sekisho_skip::skip_unless;

/// The passphrase that person and attacker both know.
const PASSPHRASE: &str = "correct horse battery";
/// How long a join may take under emulation: two rounds of scanning, DHCP, a handshake.
const JOIN: Duration = Duration::from_secs(90);
/// How long a network must stay alone before it counts as refused: several rounds of scanning.
const PATIENCE: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(20);
/// What an access point says of a station that is in.
const JOINED: &str = "AP-STA-CONNECTED";
/// Logs of the product.
const EVENTS: &str = "events.jsonl";
const PRODUCT: &str = "supervisor.log";

/// An access point: a radio, its protection as `hostapd.conf` says it, and its name.
struct Point<'p> {
    radio: u8,
    ssid: &'static str,
    protection: &'p str,
}

const WPA2: Point<'static> = Point {
    radio: 1,
    ssid: "mihon-home",
    protection: "wpa=2\nwpa_key_mgmt=WPA-PSK\nrsn_pairwise=CCMP\nwpa_passphrase=correct horse battery\n",
};
const WPA3: Point<'static> = Point {
    radio: 1,
    ssid: "mihon-office",
    protection: "wpa=2\nwpa_key_mgmt=SAE\nrsn_pairwise=CCMP\nieee80211w=2\nsae_password=correct horse battery\n",
};
/// WPA2 and WPA3 with certificates, as `hostapd.conf` says it.
const WPA2_EAP: &str = "wpa_key_mgmt=WPA-EAP";
const WPA3_EAP: &str = "wpa_key_mgmt=WPA-EAP-SHA256\nieee80211w=2";
/// Those that must not be joined. The person entered both names, with the right passphrase.
const REFUSED: [Point<'static>; 4] = [
    Point {
        radio: 2,
        ssid: "mihon-home",
        protection: "auth_algs=1\n",
    },
    Point {
        radio: 3,
        ssid: "mihon-home",
        protection: "auth_algs=1\nwep_default_key=0\nwep_key0=\"abcdefghijklm\"\n",
    },
    Point {
        radio: 4,
        ssid: "mihon-home",
        protection: "wpa=1\nwpa_key_mgmt=WPA-PSK\nwpa_pairwise=TKIP\nwpa_passphrase=correct horse battery\n",
    },
    Point {
        radio: 5,
        ssid: "Shop-Free-WiFi",
        protection: WPA2.protection,
    },
];

/// The office's network with certificates: its name, and where the laptop's papers are.
const HALL: &str = "mihon-hall";
const CERTIFICATES: &str = "/etc/opt";
/// What its access point says of a station that ended EAP without success.
const REFUSED_EAP: &str = "CTRL-EVENT-EAP-FAILURE";

/// The laptop, with access points in its own namespace and its radio in the uplink's.
struct Air {
    laptop: Laptop,
    folder: PathBuf,
}

impl Air {
    fn new() -> Self {
        let laptop = Laptop::start(Options::default()).expect("laptop");
        let folder = laptop.folder().to_owned();
        let air = Self { laptop, folder };
        air.sh("modprobe mac80211_hwsim radios=7 && ip link set lo up");
        air
    }

    fn sh(&self, script: &str) -> String {
        let output = self.laptop.run(&["sh", "-c", script]).expect("run");
        assert!(output.status.success(), "{script}: {}", output.said());
        output.text()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }

    /// What a program wrote to a file of its own, from a byte on.
    fn log(&self, name: &str, from: usize) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// Length of a log, for [`Air::wait`].
    fn mark(&self, name: &str) -> usize {
        self.log(name, 0).len()
    }

    /// Waits until a program has written this since `from`.
    fn wait(&self, name: &str, from: usize, needle: &str, limit: Duration) -> Duration {
        let began = Instant::now();
        while !self.log(name, from).contains(needle) {
            assert!(
                began.elapsed() < limit,
                "{name} did not say {needle:?} in {limit:?}:\n{}\n{}",
                self.log(name, from),
                self.log(PRODUCT, 0)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        began.elapsed()
    }

    /// Starts a program with its words going to a file.
    fn spawn(&self, log: &str, words: &str) -> Running {
        let log = self.write(log, "");
        let script = format!("exec {words} >>{log} 2>&1");
        self.laptop.spawn(&["sh", "-c", &script]).expect("spawn")
    }

    /// Puts an access point on the air; gives its log's name too.
    fn point(&self, point: &Point<'_>) -> (Running, String) {
        let Point {
            radio,
            ssid,
            protection,
        } = point;
        let config = self.write(
            &format!("hostapd-{radio}.conf"),
            &format!(
                "interface=wlan{radio}\ndriver=nl80211\nssid={ssid}\nhw_mode=g\nchannel={}\n{protection}",
                [1, 6, 11][usize::from(*radio) % 3]
            ),
        );
        let log = format!("hostapd-{radio}.log");
        let hostapd = self.spawn(&log, &format!("hostapd -t {config}"));
        self.wait(&log, 0, "AP-ENABLED", SOON);
        (hostapd, log)
    }

    /// The laptop's papers for the office's network, where its supplicant may read them.
    fn certificates(&self, papers: &Dot1xPapers) {
        papers.issue(&self.folder).expect("papers");
        self.sh(&format!(
            "mkdir -p {CERTIFICATES} && mount -t tmpfs none {CERTIFICATES} && \
             cp {}/dot1x* {CERTIFICATES}",
            self.folder.display()
        ));
    }

    /// Protection of an access point with its own EAP server.
    fn enterprise(&self, name: &str, suite: &str, papers: &Dot1xPapers) -> String {
        let users = self.write("users", "*\tTLS\n");
        let authority = self.write(&format!("{name}-ca.pem"), &papers.authority);
        let server = self.write(&format!("{name}.pem"), &papers.server.0);
        let key = self.write(&format!("{name}.key"), &papers.server.1);
        format!(
            "wpa=2\n{suite}\nrsn_pairwise=CCMP\nieee8021x=1\neap_server=1\neap_user_file={users}\n\
             ca_cert={authority}\nserver_cert={server}\nprivate_key={key}\n"
        )
    }

    /// What is behind an access point: DHCP, and the gateway.
    fn network(&self, radio: u8) -> Running {
        self.sh(&format!("ip addr replace 192.168.43.1/24 dev wlan{radio}"));
        let words = format!(
            "dnsmasq -k -u root -p 0 -C /dev/null -i wlan{radio} --bind-interfaces --log-facility=- \
             -F 192.168.43.50,192.168.43.60,1h -l /tmp/leases"
        );
        self.spawn("dnsmasq.log", &words)
    }

    fn gateway(&self, papers: &Papers) {
        let key = self.write("gateway.key", &papers.gateway.private);
        self.sh(&format!(
            "ip addr add 203.0.113.10/32 dev lo && ip link add wg0 type wireguard && \
             wg set wg0 private-key {key} listen-port 51820 peer {} allowed-ips 10.250.7.23/32 && \
             ip addr add 10.250.7.254/24 dev wg0 && ip link set wg0 up",
            papers.laptop.public
        ));
    }

    /// Lets nobody out who has not been to the page: every connection leads to it, everything else to
    /// nothing.
    fn portal(&self) -> Running {
        let rules = self.write(
            "portal.nft",
            "table ip portal {
                chain in {
                    type nat hook prerouting priority dstnat;
                    iifname wlan1 meta l4proto tcp redirect to :80
                };
                chain pass {
                    type filter hook input priority filter;
                    iifname wlan1 udp dport 51820 drop
                };
            }
",
        );
        let page = self.spawn("portal.log", "python3 -u -m http.server 80");
        self.wait("portal.log", 0, "Serving HTTP", SOON);
        self.sh(&format!("nft -f {rules}"));
        page
    }

    /// Switches the product on.
    fn product(&self, papers: &Papers) -> Running {
        let policy = papers
            .policy()
            .replacen(
                "[vpn]\n",
                "[[uplink]]\nkind = \"wifi\"\nrank = 2\nsecurity = [\"wpa3-sae\", \"wpa3-enterprise\", \"wpa2-personal\", \"wpa2-enterprise\"]\n\
                 deny_ssids = [\"*-free-*\"]\n\n[vpn]\n",
                1,
            )
            .replacen("uplinks = [\"wired\"]", "uplinks = [\"wired\", \"wifi\"]", 1);
        papers.issue_policy(&self.folder, &policy).expect("papers");
        let networks: String = ["mihon-home", "mihon-office", "Shop-Free-WiFi"]
            .map(|ssid| format!("[[network]]\nssid = \"{ssid}\"\npassphrase = \"{PASSPHRASE}\"\n"))
            .concat();
        let hall = format!(
            "[[network]]\nssid = \"{HALL}\"\n[network.certificate]\nidentity = \"{IDENTITY}\"\n\
             server = \"{SERVER}\"\nauthorities = \"{CERTIFICATES}/dot1x-ca.pem\"\n\
             certificate = \"{CERTIFICATES}/dot1x.pem\"\nkey = \"{CERTIFICATES}/dot1x.key\"\n"
        );
        self.write("wifi.toml", &(networks + &hall));
        let programs = programs().expect("programs");
        let config = self.write(
            "supervisor.toml",
            &format!(
                "programs = '{}'\npolicy = 'policy.toml'\nsignature = 'policy.toml.sig'\n\
                 trust = 'trust.pem'\ndevice = 'device.toml'\nstate = '/tmp/state'\n\
                 wifi = 'wifi.toml'\nports = ['wlan0']\n[work]\nguest_channel = false\n\
                 command = ['sh', '-c', 'exec sleep 1000 # {{link}}']\n",
                programs.display()
            ),
        );
        let events = self.write(EVENTS, "");
        let words = format!(
            "{}/sekisho-supervisor --config {config} --events {events}",
            programs.display()
        );
        self.spawn(PRODUCT, &words)
    }
}

/// Ends an access point in an orderly way: one that is killed leaves its beacon on the air.
fn off(hostapd: Running) {
    hostapd.signal(15).expect("signal");
    hostapd.output(SOON).expect("ended");
}

#[test]
fn t17_wifi_joins_what_the_policy_lets_it_and_nothing_else() {
    if skip_unless(
        PathBuf::from("/usr/sbin/hostapd").exists()
            && PathBuf::from("/usr/sbin/wpa_supplicant").exists(),
        "hostapd and wpasupplicant are not installed",
    ) {
        return;
    }
    let air = Air::new();
    let papers = Papers::generate(&air.folder).expect("papers");
    air.gateway(&papers);
    let (ours, theirs) = (
        Dot1xPapers::generate(SERVER).expect("papers"),
        Dot1xPapers::generate(SERVER).expect("papers"),
    );
    air.certificates(&ours);
    let refused: Vec<(Running, String)> = REFUSED.iter().map(|point| air.point(point)).collect();
    let product = air.product(&papers);

    // Only networks that must not be joined are on the air, and the radio looks for networks.
    air.wait(EVENTS, 0, "wlan0", SOON);
    std::thread::sleep(PATIENCE);
    let joined = |log: &str| air.log(log, 0).contains(JOINED);
    for (point, (_, log)) in REFUSED.iter().zip(&refused) {
        assert!(!joined(log), "{}: {}", point.ssid, air.log(log, 0));
    }
    let events = air.log(EVENTS, 0);
    assert!(!events.contains("\"carrier\""), "{events}");

    // The control: another station without our rules joins the open twin, and the same words show
    // it.
    let naive = air.write(
        "naive.conf",
        "network={\n ssid=\"mihon-home\"\n key_mgmt=NONE\n}\n",
    );
    let station = air.spawn(
        "naive.log",
        &format!("wpa_supplicant -D nl80211 -i wlan6 -c {naive}"),
    );
    air.wait(&refused[0].1, 0, JOINED, JOIN);
    drop(station);

    // The office's network, played by somebody whose server shows the right name under another
    // authority: the radio tries it and breaks off.
    let evil = air.enterprise("evil", WPA2_EAP, &theirs);
    let (hostapd, log) = air.point(&Point {
        radio: 1,
        ssid: HALL,
        protection: &evil,
    });
    let tried = air.wait(&log, 0, REFUSED_EAP, JOIN);
    println!("the evil twin was tried and refused after {tried:?}");
    assert!(!joined(&log), "{}", air.log(&log, 0));
    off(hostapd);

    let hall = [WPA2_EAP, WPA3_EAP].map(|suite| air.enterprise("hall", suite, &ours));
    let hall = hall.each_ref().map(|protection| Point {
        radio: 1,
        ssid: HALL,
        protection,
    });
    for point in hall.into_iter().chain([WPA2, WPA3]) {
        let mark = air.mark(EVENTS);
        let (hostapd, log) = air.point(&point);
        let dhcp = air.network(point.radio);
        let join = air.wait(&log, 0, JOINED, JOIN);
        let tunnel = air.wait(EVENTS, mark, "tunnelled", JOIN);
        assert!(air.log(EVENTS, mark).contains("\"wifi\""));
        println!(
            "{}: joined after {join:?}, tunnel {tunnel:?} later",
            point.ssid
        );
        // Off the air again: the carrier is lost, and the tunnel with it.
        let mark = air.mark(EVENTS);
        off(hostapd);
        drop(dhcp);
        air.wait(EVENTS, mark, "no-carrier", JOIN);
        air.wait(EVENTS, mark, "\"closed\"", JOIN);
    }

    // A killed supplicant is there again by itself, and so is the network.
    let (hostapd, log) = air.point(&WPA2);
    let dhcp = air.network(WPA2.radio);
    air.wait(&log, 0, JOINED, JOIN);
    let before = air.sh("pgrep -f '^/usr/sbin/wpa_supplicant'");
    let mark = air.mark(&log);
    air.sh(&format!("kill -KILL {before}"));
    let back = air.wait(&log, mark, JOINED, JOIN);
    println!("joined again {back:?} after the supplicant was killed");
    let after = air.sh("pgrep -f '^/usr/sbin/wpa_supplicant'");
    assert_ne!(before, after);
    let mark = air.mark(EVENTS);
    off(hostapd);
    drop(dhcp);
    air.wait(EVENTS, mark, "no-carrier", JOIN);

    // T13: the network behind the radio is a hotel's by now, which says nothing of its page. Until here a
    // gateway answered, and nobody was asked who does in its place.
    let stranger = "\"stranger\"";
    assert!(!air.log(EVENTS, 0).contains(stranger));
    let portal = air.portal();
    let mark = air.mark(EVENTS);
    let (_hostapd, log) = air.point(&WPA2);
    let _dhcp = air.network(WPA2.radio);
    air.wait(&log, 0, JOINED, JOIN);
    air.wait(EVENTS, mark, "leased", JOIN);
    let known = air.wait(EVENTS, mark, stranger, JOIN);
    println!("the page was noticed {known:?} after the lease");
    assert!(!air.log(EVENTS, mark).contains("tunnelled"));
    // The control: with the page gone the same network leads to the gateway.
    let mark = air.mark(EVENTS);
    air.sh("nft delete table ip portal");
    drop(portal);
    air.wait(EVENTS, mark, "tunnelled", JOIN);
    drop(product);
}
