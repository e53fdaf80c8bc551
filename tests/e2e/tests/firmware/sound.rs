//! The work OS plays and records by its stock driver.

use std::fs;
use std::time::{Duration, Instant};

use sekisho_laptop::{GuestImage, build};

use crate::bench::*;

/// Frames a second.
const RATE: usize = 48_000;
/// Length of a WAV file's header.
const HEADER: usize = 44;
/// Frames of a wave at 400 and at 1000 Hz.
const PLAYED: usize = 120;
const SAID: usize = 48;

/// A WAV file with a square wave of so many frames, three seconds of it.
fn square(wave: usize) -> Vec<u8> {
    let samples: Vec<u8> = (0..3 * RATE)
        .map(|at| if at % wave < wave / 2 { 9000i16 } else { -9000 })
        .flat_map(|sample| [sample.to_le_bytes(), sample.to_le_bytes()].concat())
        .collect();
    let number = |number: usize| u32::try_from(number).expect("short").to_le_bytes();
    [
        b"RIFF",
        &number(36 + samples.len())[..],
        b"WAVEfmt \x10\0\0\0\x01\0\x02\0",
        &number(RATE),
        &number(RATE * 4),
        b"\x04\0\x10\0data",
        &number(samples.len()),
        &samples,
    ]
    .concat()
}

/// How many frames most waves on the left are long, and how many waves there are.
fn waves(wav: &[u8]) -> (usize, usize) {
    let left: Vec<i16> = wav[HEADER..]
        .chunks_exact(4)
        .map(|frame| i16::from_le_bytes([frame[0], frame[1]]))
        .collect();
    let rises: Vec<usize> = (1..left.len())
        .filter(|at| left[at - 1] < 0 && left[*at] >= 0)
        .collect();
    let mut apart: Vec<usize> = rises.windows(2).map(|pair| pair[1] - pair[0]).collect();
    apart.sort_unstable();
    (
        apart.get(apart.len() / 2).copied().unwrap_or(0),
        rises.len(),
    )
}

#[test]
fn a_stock_driver_plays_a_tone_and_records_another() {
    let mut bench = Bench::new();
    let program = build::static_program("sekisho-e2e", "guest-sound", &[]).expect("program");
    let drivers = ["snd-hda-intel", "snd-hda-codec-generic", "snd-pcm-oss"];
    let folder = build::target_dir().join("work-os");
    let image = GuestImage::build_with_drivers(&folder, &drivers, &[&program]).expect("image");
    bench.image = GuestImage {
        kernel: image.vmlinux.clone(),
        ..image
    };
    let said_to_it = bench.laptop.folder().join("said.wav");
    fs::write(&said_to_it, square(SAID)).expect("WAV");
    let played = bench.laptop.folder().join("played.wav");
    let sound = format!("file=/tmp/played.wav,input={}", said_to_it.display());
    let began = Instant::now();
    let vmm = bench.start_directly(&["--sound", &sound]);
    let guest = bench.guest();
    println!("to user space: {:?}", began.elapsed());

    said(
        &guest,
        "for i in $(seq 100); do [ -e /dev/dsp ] && exit 0; sleep 0.1; done; dmesg | grep -i snd; exit 1",
    );
    let cards = said(&guest, "cat /proc/asound/cards");
    println!("{cards}");
    assert!(cards.contains("HDA"), "{cards}");

    let began = Instant::now();
    said(&guest, &format!("guest-sound play {} 2", RATE / PLAYED));
    println!("two seconds were played in {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(1), "it has no clock");
    let copied = bench
        .laptop
        .run(&["cp", "/tmp/played.wav", &played.to_string_lossy()])
        .expect("copy");
    assert!(copied.status.success(), "{}", copied.said());
    let (wave, count) = waves(&fs::read(&played).expect("WAV"));
    println!("{count} waves of {wave} frames");
    assert_eq!(wave, PLAYED);
    assert!(count > RATE / PLAYED, "a second of it at least");

    let heard = said(&guest, "guest-sound hear 1");
    assert_eq!(heard.trim(), SAID.to_string());

    let log = said(&guest, "dmesg");
    let complaint = log.lines().find(|line| {
        let line = line.to_lowercase();
        (line.contains("hda") || line.contains("snd"))
            && ["error", "timeout", "fail", "spurious", "fallback"]
                .iter()
                .any(|word| line.contains(word))
    });
    assert_eq!(complaint, None);
    drop(vmm);
}
