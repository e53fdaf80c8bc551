//! What the way adds to a round trip: one small UDP datagram after the other, there and back, on an
//! otherwise idle way.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{
    Contender,
    world::{End, PORT, World},
};
use crate::{
    BenchError,
    report::{Table, median, percentile},
};

/// Round trips of one contender in one run.
const ROUND_TRIPS: usize = 1000;
/// Bytes of a datagram.
const LENGTH: usize = 64;
/// A datagram that is not back by then is lost; there is no reason for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// What ends the server.
const END: [u8; 1] = [0];

/// Measures each contender in turn.
pub(super) fn measure(
    world: &World,
    contenders: &[Contender<'_>],
    runs: usize,
) -> Result<Table, BenchError> {
    let mut found: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); contenders.len()];
    for run in 0..runs {
        eprintln!("path: round trips, run {} of {runs}", run + 1);
        for turn in 0..contenders.len() {
            let place = (run + turn) % contenders.len();
            let contender = &contenders[place];
            world.offload(contender.offload)?;
            let trips = round_trips(world, contender.target)?;
            found[place].0.push(percentile(trips.clone(), 50));
            found[place].1.push(percentile(trips, 99));
        }
    }
    let mut table = Table::new(
        format!(
            "path: round trip of a {LENGTH}-byte datagram, both ends on this machine, medians of \
             {runs} runs of {ROUND_TRIPS}"
        ),
        &[
            "way",
            "p50 us",
            "p99 us",
            "p50 less bare wire",
            "p99 less bare wire",
        ],
    );
    let of = |values: &[f64]| median(values.to_vec()) * 1e6;
    let bare = found.last().map(|(middle, slow)| (of(middle), of(slow)));
    let bare = bare.unwrap_or_default();
    for (contender, (middle, slow)) in contenders.iter().zip(&found) {
        let (middle, slow) = (of(middle), of(slow));
        table.row([
            contender.label.to_owned(),
            format!("{middle:.0}"),
            format!("{slow:.0}"),
            format!("{:.0}", middle - bare.0),
            format!("{:.0}", slow - bare.1),
        ]);
    }
    Ok(table)
}

/// Times of round trips to `target`, in seconds.
fn round_trips(world: &World, target: Ipv4Addr) -> Result<Vec<f64>, BenchError> {
    let server = socket(&world.far, SocketAddrV4::new(target, PORT))?;
    let client = socket(&world.near, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    client
        .connect(SocketAddrV4::new(target, PORT))
        .map_err(BenchError::system("address a datagram"))?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| serve(&server));
        let times = (0..ROUND_TRIPS).map(|_| round_trip(&client)).collect();
        // The last datagram may be lost with the server's patience as the only consequence.
        let _ = client.send(&END);
        let _ = echo.join();
        times
    })
}

fn round_trip(client: &UdpSocket) -> Result<f64, BenchError> {
    let mut datagram = [1; LENGTH];
    let start = Instant::now();
    client
        .send(&datagram)
        .and_then(|_| client.recv(&mut datagram))
        .map_err(BenchError::system("hear a datagram's echo"))?;
    Ok(start.elapsed().as_secs_f64())
}

fn serve(server: &UdpSocket) {
    let mut datagram = [0; LENGTH];
    while let Ok((length, from)) = server.recv_from(&mut datagram) {
        if length == END.len() {
            return;
        }
        // The client notices.
        let _ = server.send_to(&datagram[..length], from);
    }
}

fn socket(end: &End, at: SocketAddrV4) -> Result<UdpSocket, BenchError> {
    let make = || {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    end.space
        .enter(make)
        .and_then(|socket| socket)
        .map_err(BenchError::system("make a datagram socket"))
}
