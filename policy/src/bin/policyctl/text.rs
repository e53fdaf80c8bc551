//! What policyctl says, in two languages.

use std::path::{Path, PathBuf};

use sekisho_policy::{Lang, PolicyError, ProbeError, TrustError, VerifyError};

/// Prints one of two texts.
pub(crate) fn say(lang: Lang, en: &str, ja: &str) {
    println!(
        "{}",
        match lang {
            Lang::En => en,
            Lang::Ja => ja,
        }
    );
}

/// The language that the environment asks for, in the order of POSIX: `LC_ALL`, `LC_MESSAGES`,
/// `LANG`; the first that is set decides.
pub(crate) fn lang_of_environment() -> Lang {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    match ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set) {
        Some(value) if value.starts_with("ja") => Lang::Ja,
        _ => Lang::En,
    }
}

/// Why a command could not be done.
#[derive(Debug)]
pub(crate) enum Failure {
    Read(PathBuf, String),
    Write(PathBuf, String),
    TooLong(PathBuf, usize),
    Exists(PathBuf),
    Random(String),
    Policy(Box<PolicyError>),
    Probe(ProbeError),
    Trust(TrustError),
    Verify(VerifyError),
}

impl Failure {
    pub(crate) fn read(path: &Path, error: &std::io::Error) -> Self {
        Self::Read(path.to_owned(), error.to_string())
    }

    pub(crate) fn write(path: &Path, error: &std::io::Error) -> Self {
        Self::Write(path.to_owned(), error.to_string())
    }

    pub(crate) fn text(&self, lang: Lang) -> String {
        match (self, lang) {
            (Self::Read(path, error), Lang::En) => format!("cannot read {}: {error}", path.display()),
            (Self::Read(path, error), Lang::Ja) => {
                format!("{} を読めません: {error}", path.display())
            }
            (Self::Write(path, error), Lang::En) => {
                format!("cannot write {}: {error}", path.display())
            }
            (Self::Write(path, error), Lang::Ja) => {
                format!("{} に書けません: {error}", path.display())
            }
            (Self::TooLong(path, most), Lang::En) => {
                format!("{} is longer than {most} bytes", path.display())
            }
            (Self::TooLong(path, most), Lang::Ja) => {
                format!("{} が {most} バイトを超えています", path.display())
            }
            (Self::Exists(path), Lang::En) => {
                format!("{} is already there; choose another folder or move it away", path.display())
            }
            (Self::Exists(path), Lang::Ja) => {
                format!("{} はすでにあります。別のフォルダーを指定してください", path.display())
            }
            (Self::Random(error), Lang::En) => format!("no random numbers from the system: {error}"),
            (Self::Random(error), Lang::Ja) => format!("乱数を得られません: {error}"),
            (Self::Policy(error) | Self::Verify(VerifyError::Policy(error)), _) => {
                policy(error, lang)
            }
            (Self::Probe(error), Lang::En) => error.to_string(),
            (Self::Probe(_), Lang::Ja) => "接続の書き方が正しくありません。\"tcp 10.12.10.5:443\"、\"udp 10.12.0.53:53\"、\"icmp 10.12.0.1\"、IPv6 は \"tcp [2001:db8:12::5]:443\"、端末への接続は \"from tcp 10.12.0.70:135\" のように書いてください".into(),
            (Self::Trust(error), Lang::En) => error.to_string(),
            (Self::Trust(error), Lang::Ja) => format!("鍵または署名のファイルを使えません: {error}"),
            (Self::Verify(error), Lang::En) => format!("a laptop refuses it: {error}"),
            (Self::Verify(error), Lang::Ja) => format!("端末はこれを拒否します: {error}"),
        }
    }
}

fn policy(error: &PolicyError, lang: Lang) -> String {
    let count = error.problems().len();
    let shown = error.render(lang);
    match lang {
        Lang::En if count == 1 => format!("{shown}1 problem; nothing was signed or applied"),
        Lang::En => format!("{shown}{count} problems; nothing was signed or applied"),
        Lang::Ja => format!("{shown}問題が {count} 件あります。署名も適用もしていません"),
    }
}
