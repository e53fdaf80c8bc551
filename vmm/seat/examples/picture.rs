//! Writes the book's picture of the watermark: a light and a dark window, and the marks over both.
//!
//!     cargo run -p sekisho-seat --example picture FONT docs/src/watermark.png
#![allow(
    clippy::unwrap_used,
    reason = "an example that cannot go on ends there"
)]

use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, Crc, write::ZlibEncoder};
use sekisho_seat::font::Font;
use sekisho_seat::stamp::{Stamp, Tone};
use sekisho_seat::watermark::{Bearer, Minute, Style, Watermark};
use sekisho_seatlink::{Mode, Rect};

const SIDES: (u32, u32) = (800, 360);
const PAPER: [&str; 5] = [
    "令和八年度 予算(案)について",
    "一 歳入の見通し",
    "二 歳出の重点",
    "三 今後の日程",
    "担当 企画課 山田",
];
const TERMINAL: [&str; 4] = [
    "$ ls",
    "budget.xlsx  minutes.docx",
    "$ date",
    "2026-04-01 09:05",
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let font = Font::open(Path::new(&arguments[1])).unwrap();
    let screen = Mode::new(SIDES.0, SIDES.1).unwrap();
    let place = |x: u32, y: u32| usize::try_from(y * SIDES.0 + x).unwrap();
    let mut pixels = vec![0x50_7090; place(0, SIDES.1)];
    for y in 30..330 {
        pixels[place(30, y)..place(400, y)].fill(0xfa_faf5);
        pixels[place(420, y)..place(770, y)].fill(0x10_1418);
    }
    let mut write = |lines: &[&str], left: u32, dark: bool| {
        for (line, top) in lines.iter().zip((60..).step_by(44)) {
            let stamp = Stamp::new(&font.line(line, 22.0).unwrap(), 0.0, Tone::White);
            for y in 0..stamp.height {
                for (x, ink) in (0..).zip(stamp.line(y)) {
                    let pixel = &mut pixels[place(left + x, top + y)];
                    let ink = sekisho_seat::stamp::Ink {
                        light: if dark { 0 } else { ink.light },
                        ..*ink
                    };
                    *pixel = ink.over(*pixel);
                }
            }
        }
    };
    write(&PAPER, 55, true);
    write(&TERMINAL, 440, false);
    let style = Style {
        text: "{user} {device} {datetime} 見本市".parse().unwrap(),
        opacity_percent: 10,
        angle_degrees: -30,
        spacing_px: 60,
        size_px: 18,
    };
    let bearer = Bearer {
        user: "山田 花子".to_owned(),
        device: "PC-0042".to_owned(),
    };
    let minute = Minute {
        date: "2026-04-01".to_owned(),
        time: "09:05".to_owned(),
    };
    let marks = Watermark::new(font, style, bearer).and_then(|mark| mark.marks(&minute));
    marks
        .unwrap()
        .blend(screen, Rect::whole(screen), &mut pixels);
    std::fs::write(&arguments[2], png(&pixels)).unwrap();
}

/// The PNG specification's least: header, one chunk of data, end.
fn png(pixels: &[u32]) -> Vec<u8> {
    let mut data = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in pixels.chunks(usize::try_from(SIDES.0).unwrap()) {
        data.write_all(&[0]).unwrap();
        for pixel in line {
            data.write_all(&pixel.to_be_bytes()[1..]).unwrap();
        }
    }
    let head = [
        &SIDES.0.to_be_bytes()[..],
        &SIDES.1.to_be_bytes(),
        // Eight bits of each colour.
        &[8, 2, 0, 0, 0],
    ];
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(*b"IHDR", &head.concat(), &mut file);
    chunk(*b"IDAT", &data.finish().unwrap(), &mut file);
    chunk(*b"IEND", &[], &mut file);
    file
}

fn chunk(kind: [u8; 4], data: &[u8], file: &mut Vec<u8>) {
    file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    let body = [&kind[..], data].concat();
    let mut sum = Crc::new();
    sum.update(&body);
    file.extend(body);
    file.extend(sum.sum().to_be_bytes());
}
