//! A viewer of the remote framebuffer protocol (RFC 6143) that does what its standard input says, a line
//! each, and answers each with `done`: `type TEXT`, `enter`,
//! `click X Y`, `shot FILE`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

/// Messages of the client (7.5) and of the server (7.6).
const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const KEY_EVENT: u8 = 4;
const POINTER_EVENT: u8 = 5;
const UPDATE: u8 = 0;
const BELL: u8 = 2;
const CUT_TEXT: u8 = 3;
/// Encodings (7.7, 7.8).
const RAW: i32 = 0;
const DESKTOP_SIZE: i32 = -223;
/// Security type "None" (7.2.1).
const NO_SECURITY: u8 = 1;

/// The keysym of Enter.
const RETURN: u32 = 0xff0d;

struct Viewer {
    server: BufReader<UnixStream>,
    sides: (u16, u16),
}

impl Viewer {
    fn connect(path: &Path) -> Result<Self, Failure> {
        let mut server = BufReader::new(UnixStream::connect(path)?);
        let mut version = [0; 12];
        server.read_exact(&mut version)?;
        if &version != b"RFB 003.008\n" {
            return Err(format!("version {}", String::from_utf8_lossy(&version)).into());
        }
        server.get_mut().write_all(&version)?;
        let [count] = read(&mut server)?;
        let mut kinds = vec![0; usize::from(count)];
        server.read_exact(&mut kinds)?;
        if !kinds.contains(&NO_SECURITY) {
            return Err(format!("security {kinds:?}").into());
        }
        server.get_mut().write_all(&[NO_SECURITY])?;
        let refused = u32::from_be_bytes(read(&mut server)?);
        if refused != 0 {
            return Err("not let in".into());
        }
        // Others may stay.
        server.get_mut().write_all(&[1])?;
        let sides = pair(read(&mut server)?);
        let _format: [u8; 16] = read(&mut server)?;
        let length = u32::from_be_bytes(read(&mut server)?);
        io::copy(&mut (&mut server).take(length.into()), &mut io::sink())?;
        let mut viewer = Self { server, sides };
        // 32 bits, little-endian, eight each of red, green and blue from the top.
        viewer.say(&[
            SET_PIXEL_FORMAT,
            0,
            0,
            0,
            32,
            24,
            0,
            1,
            0,
            255,
            0,
            255,
            0,
            255,
            16,
            8,
            0,
            0,
            0,
            0,
        ])?;
        let [raw, size] = [RAW, DESKTOP_SIZE].map(i32::to_be_bytes);
        viewer.say(&[&[SET_ENCODINGS, 0, 0, 2][..], &raw, &size].concat())?;
        Ok(viewer)
    }

    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.server.get_mut().write_all(message)
    }

    fn key(&mut self, keysym: u32) -> io::Result<()> {
        for down in [1, 0] {
            let [a, b, c, d] = keysym.to_be_bytes();
            self.say(&[KEY_EVENT, down, 0, 0, a, b, c, d])?;
        }
        Ok(())
    }

    fn click(&mut self, x: u16, y: u16) -> io::Result<()> {
        let place = [x.to_be_bytes(), y.to_be_bytes()].concat();
        for buttons in [0, 1, 0] {
            self.say(&[&[POINTER_EVENT, buttons], &place[..]].concat())?;
        }
        Ok(())
    }

    /// Asks for the whole picture; red, green and blue of each pixel.
    fn picture(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let (width, height) = self.sides;
            let ([a, b], [c, d]) = (width.to_be_bytes(), height.to_be_bytes());
            self.say(&[UPDATE_REQUEST, 0, 0, 0, 0, 0, a, b, c, d])?;
            let mut pixels = vec![0; usize::from(width) * usize::from(height) * 3];
            let mut seen = 0;
            while seen < pixels.len() && self.sides == (width, height) {
                seen += self.message(&mut pixels)?;
            }
            if self.sides == (width, height) {
                return Ok(pixels);
            }
        }
    }

    /// Takes one message; how many bytes of the picture it has brought.
    fn message(&mut self, pixels: &mut [u8]) -> Result<usize, Failure> {
        match read(&mut self.server)? {
            [UPDATE] => {
                let [_, high, low] = read(&mut self.server)?;
                let mut seen = 0;
                for _ in 0..u16::from_be_bytes([high, low]) {
                    seen += self.rectangle(pixels)?;
                }
                Ok(seen)
            }
            [BELL] => Ok(0),
            [CUT_TEXT] => {
                let [_, _, _, a, b, c, d] = read(&mut self.server)?;
                let length = u32::from_be_bytes([a, b, c, d]);
                io::copy(&mut (&mut self.server).take(length.into()), &mut io::sink())?;
                Ok(0)
            }
            [other] => Err(format!("message {other}").into()),
        }
    }

    fn rectangle(&mut self, pixels: &mut [u8]) -> Result<usize, Failure> {
        let (left, top) = pair(read(&mut self.server)?);
        let (width, height) = pair(read(&mut self.server)?);
        match i32::from_be_bytes(read(&mut self.server)?) {
            DESKTOP_SIZE => {
                self.sides = (width, height);
                Ok(0)
            }
            RAW => {
                let line = usize::from(self.sides.0) * 3;
                for y in usize::from(top)..usize::from(top) + usize::from(height) {
                    for x in usize::from(left)..usize::from(left) + usize::from(width) {
                        let [blue, green, red, _] = read(&mut self.server)?;
                        let place = pixels.get_mut(y * line + x * 3..y * line + x * 3 + 3);
                        let place = place.ok_or("a pixel outside of the picture")?;
                        place.copy_from_slice(&[red, green, blue]);
                    }
                }
                Ok(usize::from(width) * usize::from(height) * 3)
            }
            other => Err(format!("encoding {other}").into()),
        }
    }

    fn shoot(&mut self, path: &str) -> Result<(), Failure> {
        let pixels = self.picture()?;
        let (width, height) = self.sides;
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = png::Encoder::new(file, width.into(), height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(())
    }

    fn obey(&mut self, line: &str) -> Result<(), Failure> {
        match line.split_once(' ') {
            None if line == "enter" => self.key(RETURN)?,
            Some(("type", text)) => {
                for character in text.chars() {
                    self.key(character.into())?;
                }
            }
            Some(("click", place)) => {
                let (x, y) = place.split_once(' ').ok_or("click X Y")?;
                self.click(x.parse()?, y.parse()?)?;
            }
            Some(("shot", path)) => self.shoot(path)?,
            _ => return Err(format!("what is `{line}`?").into()),
        }
        Ok(())
    }
}

fn read<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn pair([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("screen-viewer SOCKET");
        return ExitCode::FAILURE;
    };
    let serve = || -> Result<(), Failure> {
        let mut viewer = Viewer::connect(Path::new(&path))?;
        println!("done");
        for line in io::stdin().lines() {
            viewer.obey(&line?)?;
            println!("done");
        }
        Ok(())
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("screen-viewer: {error}");
            ExitCode::FAILURE
        }
    }
}
