//! `policyctl`: what IT does with policy files. Write, check, ask, sign.
#![forbid(unsafe_code)]

mod files;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use sekisho_policy::{
    Clock, Decision, Draft, Explanation, Floor, Lang, Place, PrivateKey, Probe, RuleId, Trust,
    UplinkKind, verify,
};

use files::{read, write_new};
use text::{Failure, say};

/// Checks, explains and signs the policy of a city's laptops.
#[derive(Debug, Parser)]
#[command(name = "policyctl", version, max_term_width = 100)]
struct Arguments {
    /// Language of the answers; without it, `LANG` decides.
    #[arg(long, global = true)]
    lang: Option<Language>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    En,
    Ja,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair for signing: DIR/policy.key (keep it off the laptops) and DIR/trust.pem.
    Keygen {
        /// Folder for the two files; existing ones are never overwritten.
        #[arg(long)]
        out: PathBuf,
    },
    /// Check a policy file and run its tests.
    Check {
        /// The policy file.
        file: PathBuf,
    },
    /// Say whether a connection may be opened, and by which rule and line.
    Explain {
        /// `tcp 10.12.10.5:443`, `udp …`, `icmp 10.12.0.1`; `from tcp 10.12.0.70:135` for one that
        /// is opened towards the laptop (135 is then the laptop's port).
        connection: String,
        /// Where the laptop is: `remote` or `onprem`.
        #[arg(long)]
        place: PlaceName,
        /// What carries the tunnel.
        #[arg(long, default_value = "wired")]
        uplink: UplinkName,
        /// The policy file.
        file: PathBuf,
    },
    /// Check a policy file and sign it: writes FILE.sig beside it.
    Sign {
        /// Private key (PEM, PKCS #8), as `keygen` or `openssl genpkey -algorithm ed25519` made it.
        #[arg(long)]
        key: PathBuf,
        /// The policy file.
        file: PathBuf,
    },
    /// Verify a signed policy as a laptop does.
    Verify {
        /// Public keys that the laptop trusts.
        #[arg(long)]
        trust: PathBuf,
        /// The signature; FILE.sig unless given.
        #[arg(long)]
        signature: Option<PathBuf>,
        /// The version that was applied before.
        #[arg(long, default_value_t = 0)]
        floor: u64,
        /// The policy file.
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlaceName {
    Remote,
    Onprem,
}

impl From<PlaceName> for Place {
    fn from(name: PlaceName) -> Self {
        match name {
            PlaceName::Remote => Self::Remote,
            PlaceName::Onprem => Self::Office,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UplinkName {
    Wired,
    Wifi,
    Sim,
}

impl From<UplinkName> for UplinkKind {
    fn from(name: UplinkName) -> Self {
        match name {
            UplinkName::Wired => Self::Wired,
            UplinkName::Wifi => Self::Wifi,
            UplinkName::Sim => Self::Sim,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let lang = match arguments.lang {
        Some(Language::En) => Lang::En,
        Some(Language::Ja) => Lang::Ja,
        None => text::lang_of_environment(),
    };
    match run(arguments.command, lang) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", failure.text(lang));
            ExitCode::from(2)
        }
    }
}

/// Exit status 0: yes; 1: a correct answer that is no (refused); 2: could not be done.
fn run(command: Command, lang: Lang) -> Result<ExitCode, Failure> {
    match command {
        Command::Keygen { out } => keygen(&out, lang)?,
        Command::Check { file } => check(&file, lang)?,
        Command::Explain {
            connection,
            place,
            uplink,
            file,
        } => {
            return explain(&connection, place, uplink, &file, lang);
        }
        Command::Sign { key, file } => sign(&key, &file, lang)?,
        Command::Verify {
            trust,
            signature,
            floor,
            file,
        } => {
            let signature = signature.unwrap_or_else(|| signature_of(&file));
            verify_as_laptop(&trust, &signature, floor, &file, lang)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn keygen(out: &Path, lang: Lang) -> Result<(), Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::Random(error.to_string()))?;
    let key = PrivateKey::from_seed(&seed);
    std::fs::create_dir_all(out).map_err(|error| Failure::write(out, &error))?;
    let private = out.join("policy.key");
    let public = out.join("trust.pem");
    if public.exists() {
        return Err(Failure::Exists(public));
    }
    write_new(&private, &key.to_pem(), 0o600)?;
    write_new(&public, &key.public_pem(), 0o644)?;
    let id = key.key_id();
    say(
        lang,
        &format!(
            "key {id}\n  private: {} (never on a laptop)\n  public:  {} (every laptop's trust file)",
            private.display(),
            public.display()
        ),
        &format!(
            "鍵 {id}\n  秘密鍵: {}（端末には置かないでください）\n  公開鍵: {}（各端末の信頼ファイル）",
            private.display(),
            public.display()
        ),
    );
    Ok(())
}

/// Parses, checks the rules, runs the tests.
fn checked(file: &Path) -> Result<(Vec<u8>, Draft, usize), Failure> {
    let bytes = read(file, sekisho_policy::MAX_POLICY)?;
    let draft = Draft::parse(&file.display().to_string(), &bytes).map_err(Failure::Policy)?;
    let tests = draft.run_tests().map_err(Failure::Policy)?;
    Ok((bytes, draft, tests))
}

fn check(file: &Path, lang: Lang) -> Result<(), Failure> {
    let (_, draft, tests) = checked(file)?;
    let policy = draft.policy();
    let (id, version, flows) = (&policy.policy.id, policy.policy.version, policy.flow.len());
    let expires = policy.policy.expires;
    say(
        lang,
        &format!(
            "{}: correct. {id} version {version}, {flows} flows, {tests} tests hold, expires {expires}",
            file.display()
        ),
        &format!(
            "{}: 問題ありません。{id} 第 {version} 版、flow {flows} 個、テスト {tests} 個すべて合格、期限 {expires}",
            file.display()
        ),
    );
    notes(&draft, tests, lang);
    Ok(())
}

/// What is no mistake, but deserves a second look.
fn notes(draft: &Draft, tests: usize, lang: Lang) {
    if draft.policy().policy.expires <= Timestamp::now() {
        say(
            lang,
            "note: the policy has expired; laptops refuse it",
            "注意: 期限を過ぎています。端末はこのポリシーを拒否します",
        );
    }
    if tests == 0 {
        say(
            lang,
            "note: the policy has no [[test]]; write down what must never be reachable",
            "注意: [[test]] がありません。届いてはならない宛先を書いておくことをお勧めします",
        );
    }
}

fn explain(
    connection: &str,
    place: PlaceName,
    uplink: UplinkName,
    file: &Path,
    lang: Lang,
) -> Result<ExitCode, Failure> {
    let probe: Probe = connection.parse().map_err(Failure::Probe)?;
    let bytes = read(file, sekisho_policy::MAX_POLICY)?;
    let draft = Draft::parse(&file.display().to_string(), &bytes).map_err(Failure::Policy)?;
    let Explanation {
        decision,
        rule,
        line,
        reason,
    } = draft.explain(&probe.at(place.into(), uplink.into()));
    let (en, ja) = if decision.is_allowed() {
        ("allowed", "許可")
    } else {
        ("refused", "拒否")
    };
    let at = line
        .map(|line| format!(" ({}:{line})", file.display()))
        .unwrap_or_default();
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    say(
        lang,
        &format!("{probe}: {en} by {rule}{at}{reason}"),
        &format!("{probe}: {ja}。規則 {rule}{at}{reason}"),
    );
    if decision == Decision::Refuse(RuleId::DEFAULT_DENY) {
        elsewhere(&draft, probe, lang);
    }
    Ok(if decision.is_allowed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the same connection would be allowed: what the person who asks wants to know next.
fn elsewhere(draft: &Draft, probe: Probe, lang: Lang) {
    for &place in PlaceName::value_variants() {
        for &uplink in UplinkName::value_variants() {
            let answer = draft.explain(&probe.at(place.into(), uplink.into()));
            if answer.decision.is_allowed() {
                let rule = answer.rule;
                let at = format!("--place {} --uplink {}", name(&place), name(&uplink));
                say(
                    lang,
                    &format!("  it would be allowed with {at}, by {rule}"),
                    &format!("  {at} なら {rule} により許可されます"),
                );
            }
        }
    }
}

/// A choice as it is typed.
fn name(choice: &impl ValueEnum) -> String {
    choice
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

fn sign(key: &Path, file: &Path, lang: Lang) -> Result<(), Failure> {
    let pem = read(key, 4096)?;
    let key = PrivateKey::from_pem(&String::from_utf8_lossy(&pem)).map_err(Failure::Trust)?;
    // The bytes that were checked are the bytes that are signed: the file is read once.
    let (bytes, draft, tests) = checked(file)?;
    let out = signature_of(file);
    files::replace(&out, &key.sign(&bytes).to_file())?;
    let (version, id) = (draft.policy().policy.version, key.key_id());
    say(
        lang,
        &format!(
            "{}: version {version} signed by key {id}; {tests} tests hold",
            out.display()
        ),
        &format!(
            "{}: 第 {version} 版に鍵 {id} で署名しました。テスト {tests} 個すべて合格",
            out.display()
        ),
    );
    notes(&draft, tests, lang);
    Ok(())
}

fn verify_as_laptop(
    trust: &Path,
    signature: &Path,
    version: u64,
    file: &Path,
    lang: Lang,
) -> Result<(), Failure> {
    let keys = read(trust, 64 * 1024)?;
    let trust = Trust::parse(&String::from_utf8_lossy(&keys)).map_err(Failure::Trust)?;
    let signature = read(signature, sekisho_policy::MAX_SIGNATURE)?;
    let bytes = read(file, sekisho_policy::MAX_POLICY)?;
    let floor = Floor {
        version,
        ..Floor::default()
    };
    let policy =
        verify(&bytes, &signature, &trust, &Clock::system(floor)).map_err(Failure::Verify)?;
    let (id, version) = (&policy.policy.id, policy.policy.version);
    say(
        lang,
        &format!(
            "{}: a laptop accepts it: {id} version {version}, until {}",
            file.display(),
            policy.policy.expires
        ),
        &format!(
            "{}: 端末はこれを受け入れます。{id} 第 {version} 版、期限 {}",
            file.display(),
            policy.policy.expires
        ),
    );
    Ok(())
}
