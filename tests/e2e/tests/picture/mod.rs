//! A screenshot's file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Width and height, and red, green and blue of each pixel.
pub(crate) fn decode(file: &Path) -> ((u32, u32), Vec<u8>) {
    let file = File::open(file).expect("picture");
    let mut reader = png::Decoder::new(BufReader::new(file))
        .read_info()
        .expect("PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    ((info.width, info.height), pixels)
}
