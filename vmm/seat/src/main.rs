//! `sekisho-seat`: owns screen, keyboard and mouse.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use jiff::tz::TimeZone;
use rustix::net::SocketType;
use sekisho_control::inherited;
use sekisho_seat::font::Font;
use sekisho_seat::notice::{Language, Notices};
use sekisho_seat::rfb::keysym::Layout;
use sekisho_seat::sandbox;
use sekisho_seat::seat::{Seat, Sizing};
use sekisho_seat::serve::{Desk, minute};
use sekisho_seat::viewers::{Address, Viewers, listen_at};
use sekisho_seat::watermark::{Bearer, Style, Template, Watermark};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

/// Shows the work OS, writes the watermark over it, and takes the person's keys and pointer to it.
#[derive(Parser)]
#[command(name = "sekisho-seat", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Where the VMM comes to: the path of a new seqpacket socket, or an inherited one that listens
    #[arg(long, value_name = "PATH|fd:N")]
    link: String,

    /// Let viewers of the remote framebuffer protocol (VNC) in: unix:PATH, which only the owner may
    /// open, or tcp:ADDRESS:PORT. There is no password and no encryption
    #[arg(long, value_name = "WHERE")]
    vnc: Address,

    /// Let the whole network look and type, where --vnc is an address that it reaches
    #[arg(long)]
    vnc_any: bool,

    /// Font file (TrueType or OpenType, or a collection) with every character of the watermark
    #[arg(long, value_name = "FILE")]
    font: PathBuf,

    /// Name of who sits here
    #[arg(long, value_name = "NAME")]
    user_name: String,

    /// Name of this device
    #[arg(long, value_name = "NAME")]
    device_name: String,

    /// What the watermark says; {user}, {device}, {datetime} and {time} are filled in
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "{user} {device} {datetime}"
    )]
    watermark_text: Template,

    /// How much the watermark covers, 3 to 50
    #[arg(long, value_name = "PERCENT", default_value_t = 6)]
    opacity_percent: u8,

    /// How the watermark is turned, clockwise, -90 to 90
    #[arg(long, value_name = "DEGREES", default_value_t = -30, allow_negative_numbers = true)]
    angle_degrees: i16,

    /// Pixels between two texts of the watermark, 40 to 1000
    #[arg(long, value_name = "PIXELS", default_value_t = 280)]
    spacing_px: u16,

    /// Size of the watermark's characters in pixels, 12 to 48
    #[arg(long, value_name = "PIXELS", default_value_t = 20)]
    size_px: u16,

    /// Language of notices
    #[arg(long, default_value = "ja")]
    language: Words,

    /// The guest's keyboard, for viewers that tell characters and not keys
    #[arg(long, default_value = "ja")]
    keyboard: Keyboard,

    /// User and group to run as once everything is open
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

const EXAMPLES: &str = "\
Example:
  sekisho-seat --link /run/sekisho/seat --vnc unix:/run/sekisho/vnc \\
      --font /usr/share/fonts/opentype/ipafont-gothic/ipag.ttf \\
      --user-name '山田 花子' --device-name PC-0042

Start it as root or through the supervisor: it closes itself into a sandbox before it shows
anything. SEKISHO_LOG sets what is logged (error to trace).";

#[derive(Clone, Copy, ValueEnum)]
enum Words {
    Ja,
    En,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keyboard {
    Ja,
    Us,
}

impl Cli {
    fn run(self) -> Result<(), String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let font = Font::open(&self.font).map_err(|error| said(&error))?;
        let language = match self.language {
            Words::Ja => Language::Japanese,
            Words::En => Language::English,
        };
        let notices = Notices::new(&font, language).map_err(|error| said(&error))?;
        let style = Style {
            text: self.watermark_text,
            opacity_percent: self.opacity_percent,
            angle_degrees: self.angle_degrees,
            spacing_px: self.spacing_px,
            size_px: self.size_px,
        };
        let bearer = Bearer {
            user: self.user_name,
            device: self.device_name,
        };
        let watermark = Watermark::new(font, style, bearer).map_err(|error| said(&error))?;
        let zone = TimeZone::system();
        let seat = Seat::new(watermark, notices, Sizing::Picture, minute(&zone))
            .map_err(|error| said(&error))?;
        let layout = match self.keyboard {
            Keyboard::Ja => Layout::Japanese,
            Keyboard::Us => Layout::Us,
        };
        let listening = self
            .vnc
            .listen(self.vnc_any)
            .map_err(|error| said(&error))?;
        let desk = Desk {
            seat,
            listening: link(&self.link)?,
            viewers: Viewers::new(listening, layout),
            signals: signals().map_err(|error| format!("the host gives no pipe: {error}"))?,
            zone,
        };
        let filter = sandbox::filter().map_err(|error| said(&error))?;
        let enforced = sandbox::enter(self.user).map_err(|error| said(&error))?;
        filter.install().map_err(|error| said(&error))?;
        tracing::info!("the sandbox is closed: {enforced:?}");
        desk.serve().map_err(|error| said(&error))
    }
}

/// The socket that the VMM comes to.
fn link(place: &str) -> Result<OwnedFd, String> {
    if !place.starts_with("fd:") {
        return listen_at(place.as_ref(), SocketType::SEQPACKET)
            .map_err(|errno| format!("--link {place} cannot be listened at: {errno}"));
    }
    let socket = inherited(place).map_err(|error| format!("--link: {error}"))?;
    let listens = rustix::net::sockopt::socket_acceptconn(&socket);
    if listens != Ok(true) {
        return Err(format!("--link {place} is no socket that listens"));
    }
    rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| format!("--link {place}: {errno}"))?;
    Ok(socket)
}

/// One descriptor that becomes readable on each signal that ends a program.
fn signals() -> io::Result<OwnedFd> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read.into())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekisho-seat: {error}");
            ExitCode::FAILURE
        }
    }
}
