//! The file, and the command lines that come of it.

use super::*;
use crate::plan::Role;

const DEVICE: &str = r#"
device = "mihon-0001"
private_key = "wg.key"
address = "10.250.7.23/24"
router = "10.250.7.1"
mac = "02:53:4b:00:07:17"
mtu = 1420
"#;

fn config(extra: &str) -> Result<(tempfile::TempDir, Config), ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("supervisor.toml");
    fs::write(folder.path().join("device.toml"), DEVICE).unwrap();
    let text = format!(
        "programs = '/usr/lib/sekisho'\npolicy = 'policy.toml'\nsignature = 'policy.toml.sig'\n\
         trust = 'trust.pem'\ndevice = 'device.toml'\nstate = '/var/lib/sekisho'\n{extra}"
    );
    fs::write(&path, text).unwrap();
    Config::read(&path).map(|config| (folder, config))
}

#[test]
fn the_vmm_is_given_its_nic_and_its_channels() {
    let extra = "ports = ['eth0', 'eth1']\n[users]\nuplink = 64018\n[work]\narguments = ['run', '--memory', '512M']\n";
    let (folder, config) = config(extra).unwrap();
    let recipes = config.recipes().unwrap();
    assert_eq!(
        recipes[0].words.join(" "),
        "/usr/lib/sekisho/sekisho-vmm run \
         --net link={link},mac=02:53:4b:00:07:17,mtu=1420 --control {control} \
         --console name=jp.sekisho.agent.0,socket={guest} --memory 512M"
    );
    let folder = fs::canonicalize(folder.path()).unwrap();
    assert_eq!(
        recipes[2].words.join(" "),
        format!(
            "/usr/lib/sekisho/sekisho-netdomain uplink --policy {0}/policy.toml \
             --signature {0}/policy.toml.sig --trust {0}/trust.pem \
             --state /var/lib/sekisho --netns {{netns}} --gate {{path}} --control {{control}} \
             --usage /var/lib/uplink --ports eth0,eth1 --member-mac 02:53:4b:00:07:17 --user 64018",
            folder.display()
        )
    );
    assert_eq!(recipes[3].role, Role::Guest);
}

#[test]
fn modem_manager_is_asked_only_where_it_is_named() {
    let extra = "ports = ['wwan0']\n[users]\nmodem = 64021\n[modem]\n[work]\narguments = ['run']\n";
    let (_folder, config) = config(extra).unwrap();
    let recipes = config.recipes().unwrap();
    let modem = recipes
        .iter()
        .find(|recipe| recipe.role == Role::Modem)
        .unwrap();
    let end = "--bus /run/dbus/system_bus_socket --uplink {modem} --control {control} --user 64021";
    assert!(modem.words.join(" ").ends_with(end), "{:?}", modem.words);
    assert!(recipes[2].takes(MODEM), "the uplink is told of it");
    assert!(!recipes[1].takes(MODEM), "the gate is not");

    let (_folder, without) =
        self::config("ports = ['eth0']\n[work]\narguments = ['run']\n").unwrap();
    let recipes = without.recipes().unwrap();
    assert!(recipes.iter().all(|recipe| !recipe.takes(MODEM)));
}

#[test]
fn the_engine_of_a_tls_tunnel_is_started_only_where_it_is_named() {
    let extra = "ports = ['eth0']\n[users]\ntls = 64020\n[tls]\ncertificate = 'laptop.pem'\n\
                 key = '/etc/laptop.key'\nuser = 'mihon-0001'\n[work]\narguments = ['run']\n";
    let (folder, config) = config(extra).unwrap();
    let recipes = config.recipes().unwrap();
    let folder = fs::canonicalize(folder.path()).unwrap();
    let end = format!(
        "--certificate {}/laptop.pem --key /etc/laptop.key --gate {{tls}} --control {{control}} \
         --as mihon-0001 --user 64020",
        folder.display()
    );
    let tls = recipes
        .iter()
        .find(|recipe| recipe.role == Role::Tls)
        .unwrap();
    assert!(tls.words.join(" ").ends_with(&end), "{:?}", tls.words);
    assert!(recipes[1].takes(TLS), "the gate is told of it");

    let (_folder, without) =
        self::config("ports = ['eth0']\n[work]\narguments = ['run']\n").unwrap();
    let recipes = without.recipes().unwrap();
    assert!(recipes.iter().all(|recipe| !recipe.takes(TLS)));
}

#[test]
fn the_engine_of_an_ipsec_tunnel_knows_the_address_and_no_other_file_of_the_gates() {
    let extra = "ports = ['eth0']\n[users]\nike = 64021\n[ike]\nauthorities = 'ca.pem'\n\
                 certificate = 'laptop.pem'\nkey = '/etc/laptop.key'\nrevoked = 'crl.pem'\n\
                 [work]\narguments = ['run']\n";
    let (folder, config) = config(extra).unwrap();
    let recipes = config.recipes().unwrap();
    let folder = fs::canonicalize(folder.path()).unwrap();
    let end = format!(
        "--authorities {0}/ca.pem --certificate {0}/laptop.pem --address 10.250.7.23 \
         --esp kernel --gate {{ike}} --control {{control}} --key /etc/laptop.key \
         --revoked {0}/crl.pem --user 64021",
        folder.display()
    );
    let ike = recipes.iter().find(|recipe| recipe.role == Role::Ike);
    let words = ike.unwrap().words.join(" ");
    assert!(words.ends_with(&end), "{words}");
    assert!(!words.contains("device.toml"), "{words}");
    assert!(recipes[1].takes(IKE), "the gate is told of it");
}

#[test]
fn a_token_holds_the_key_in_place_of_a_file() {
    let ike = "ports = ['eth0']\n[work]\narguments = ['run']\n[ike]\nauthorities = 'ca.pem'\n\
               certificate = 'laptop.pem'\n";
    let token = "[ike.token]\nmodule = '/usr/lib/token.so'\nkey = '0a'\npin = 'pin'\n\
                 needs = { '/run/pcscd' = '/run/pcscd' }\n";
    let (folder, config) = config(&format!("{ike}{token}")).unwrap();
    let folder = fs::canonicalize(folder.path()).unwrap();
    let recipes = config.recipes().unwrap();
    let ike_words = recipes.iter().find(|recipe| recipe.role == Role::Ike);
    let words = ike_words.unwrap().words.join(" ");
    let end = format!(
        "--token /usr/lib/token.so --token-key 0a --token-pin {}/pin \
         --token-needs /run/pcscd:/run/pcscd",
        folder.display()
    );
    assert!(
        words.ends_with(&end) && !words.contains("--key "),
        "{words}"
    );
    // Where the person has the PIN there is no file, and nobody is told of one.
    let (_folder, without) =
        self::config(&format!("{ike}{}", token.replace("pin = 'pin'\n", ""))).unwrap();
    let recipes = without.recipes().unwrap();
    assert!(recipes.iter().all(|recipe| !recipe.takes("--token-pin")));
    for neither in [ike.to_owned(), format!("{ike}key = 'laptop.key'\n{token}")] {
        let error = self::config(&neither).unwrap_err().to_string();
        assert!(error.contains("either `key` or"), "{error}");
    }
}

#[test]
fn refuses_what_cannot_work() {
    for (extra, complaint) in [
        ("ports = ['eth0']\n[work]\n", "`arguments` or `command`"),
        ("ports = ['eth0']\n[work]\ncommand = ['joint']\n", "{link}"),
        ("[work]\narguments = ['run']\n", "no interface"),
        ("port = ['eth0']\n[work]\narguments = []\n", "unknown field"),
    ] {
        let error = config(extra).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn another_command_takes_what_it_names() {
    let extra = "netns = 'cafe'\n[work]\ncommand = ['joint', '--link', '{link}']\n";
    let (_folder, config) = config(extra).unwrap();
    let recipes = config.recipes().unwrap();
    assert_eq!(recipes.len(), 3);
    assert!(!recipes[0].takes(CONTROL));
}
