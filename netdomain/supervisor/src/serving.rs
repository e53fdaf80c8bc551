//! The status socket: whoever may connect is told how the laptop does (`jp.sekisho.Laptop`).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use sekisho_status::{Ledger, Window, Wish};
use sekisho_varlink::Listening;

use crate::config::StatusSocket;

/// The socket and what answers on it.
#[derive(Debug)]
pub(crate) struct Serving {
    listening: Listening,
    window: Window,
}

impl Serving {
    /// Listens.
    pub(crate) fn open(
        config: &StatusSocket,
        version: &'static str,
        now: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            listening: Listening::open(&config.socket, config.group, now)?,
            window: Window::new(version, config.answerers.clone()),
        })
    }

    /// When [`Serving::turn`] is wanted though the descriptor is silent.
    pub(crate) fn due(&self, ledger: &Ledger, now: Duration) -> Option<Duration> {
        self.listening.due(ledger.revision(), now)
    }

    /// Does what is to be done now, and never waits.
    pub(crate) fn turn(&mut self, ledger: &Ledger, now: Duration) {
        self.listening.turn(&mut self.window.onto(ledger), now);
    }

    /// What somebody who may wants to be done, if anybody does; to be looked for after each turn.
    pub(crate) const fn take_wish(&mut self) -> Option<Wish> {
        self.window.take_wish()
    }
}

impl AsFd for Serving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listening.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read as _, Write as _},
        os::unix::{fs::PermissionsExt as _, net::UnixStream},
        path::{Path, PathBuf},
        time::Instant,
    };

    use super::*;

    const STATUS: &[u8] = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\"}\0";

    struct Stage {
        serving: Serving,
        ledger: Ledger,
        start: Instant,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Stage {
        fn new(group: Option<u32>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run/laptop");
            let config = StatusSocket {
                socket: path.clone(),
                group,
                answerers: Vec::new(),
            };
            Self {
                serving: Serving::open(&config, "1.2.3", Duration::ZERO).unwrap(),
                ledger: Ledger::new("1.2.3", Duration::ZERO),
                start: Instant::now(),
                path,
                _folder: folder,
            }
        }

        fn turn(&mut self) {
            self.serving.turn(&self.ledger, self.start.elapsed());
        }

        fn connect(&mut self) -> UnixStream {
            let client = UnixStream::connect(&self.path).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            self.turn();
            client
        }
    }

    fn reply(client: &mut UnixStream) -> Vec<u8> {
        let mut text = Vec::new();
        let mut byte = [0];
        while client.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
            text.push(byte[0]);
        }
        text
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_unless_a_group_is_named() {
        assert_eq!(mode(&Stage::new(None).path), 0o600);
        let group = rustix::process::getgid().as_raw();
        assert_eq!(mode(&Stage::new(Some(group)).path), 0o660);
    }

    #[test]
    fn only_a_socket_is_replaced_and_it_goes_with_us() {
        let mut stage = Stage::new(None);
        let config = StatusSocket {
            socket: stage.path.clone(),
            group: None,
            answerers: Vec::new(),
        };
        // An earlier supervisor was killed: its socket is still there.
        stage.serving = Serving::open(&config, "1.2.3", Duration::ZERO).unwrap();
        drop(stage);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("laptop");
        fs::write(&file, "somebody's").unwrap();
        let config = StatusSocket {
            socket: file.clone(),
            group: None,
            answerers: Vec::new(),
        };
        assert!(Serving::open(&config, "1.2.3", Duration::ZERO).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"somebody's");
    }

    #[test]
    fn an_answer_comes_while_others_stall_and_flood() {
        let mut stage = Stage::new(None);
        // One watches and never reads, one floods, one is garbage.
        let mut deaf = stage.connect();
        deaf.write_all(b"{\"method\":\"jp.sekisho.Laptop.GetStatus\",\"more\":true}\0")
            .unwrap();
        let mut flood = stage.connect();
        flood.set_nonblocking(true).unwrap();
        let mut client = stage.connect();
        let mut longest = Duration::ZERO;
        for round in 0..200 {
            stage.ledger.moved(&format!("eth{round}"), Duration::ZERO);
            while flood.write(&STATUS.repeat(100)).is_ok() {}
            let start = Instant::now();
            stage.turn();
            longest = longest.max(start.elapsed());
        }
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        client.write_all(STATUS).unwrap();
        stage.turn();
        let text: serde_json::Value = serde_json::from_slice(&reply(&mut client)).unwrap();
        assert_eq!(text["parameters"]["status"]["product"], "1.2.3");
        let mut garbage = stage.connect();
        garbage.write_all(b"\xff\xff\0").unwrap();
        stage.turn();
        assert_eq!(garbage.read(&mut [0]).unwrap(), 0, "it sees its end");
    }

    #[test]
    fn one_user_has_a_few_connections_and_gets_them_back() {
        let mut stage = Stage::new(None);
        let kept: Vec<UnixStream> = (0..4).map(|_| stage.connect()).collect();
        let mut more = stage.connect();
        assert_eq!(more.read(&mut [0]).unwrap(), 0);
        drop(kept);
        stage.turn();
        let mut again = stage.connect();
        again.write_all(STATUS).unwrap();
        stage.turn();
        assert!(!reply(&mut again).is_empty());
    }
}
