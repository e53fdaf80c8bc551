//! The work OS tests for a network as Windows does: a TCP client that is not ours, and the names.

use std::collections::VecDeque;
use std::time::Instant as Clock;

use sekisho_control::{PathId, UplinkToGate};
use sekisho_framelink::NetHdr;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, UdpPacket};

use super::frames::{frame, packet_of, udp};
use super::names::{REFUSED, query_of};
use super::world::{GUEST, GUEST_MAC, ROUTER, World};

const A: u16 = 1;
const AAAA: u16 = 28;
const SERVER: &str = "www.msftconnecttest.com";
const NAME: &str = "dns.msftncsi.com";
const ASK: &[u8] = b"GET /connecttest.txt HTTP/1.1\r\nConnection: Close\r\n\
    User-Agent: Microsoft NCSI\r\nHost: www.msftconnecttest.com\r\n\r\n";

/// The guest's NIC: frames that came, and frames that are to go.
#[derive(Default)]
struct Nic {
    came: VecDeque<Vec<u8>>,
    go: Vec<Vec<u8>>,
}

struct Came(Vec<u8>);
struct Go<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Go<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Came;
    type TxToken<'a> = Go<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Came, Go<'_>)> {
        let frame = self.came.pop_front()?;
        Some((Came(frame), Go(&mut self.go)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Go<'_>> {
        Some(Go(&mut self.go))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1434;
        capabilities
    }
}

/// What a client that asks the gate's web server is told; nothing if it is not let in. `lose` says
/// which of the frames, counted both ways, are lost.
fn fetch(world: &mut World, lose: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
    let mut nic = Nic::default();
    let config = Config::new(EthernetAddress(GUEST_MAC).into());
    let mut stack = Interface::new(config, &mut nic, Instant::ZERO);
    stack.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap();
    });
    let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
    let mut sockets = SocketSet::new(vec![]);
    let client = sockets.add(tcp::Socket::new(buffer(), buffer()));
    let socket = sockets.get_mut::<tcp::Socket<'_>>(client);
    socket.set_timeout(Some(Duration::from_secs(3)));
    socket
        .connect(stack.context(), (ROUTER, 80), 50_000)
        .unwrap();

    let (start, mut passed, mut asked) = (Clock::now(), 0, false);
    let mut page = Vec::new();
    while start.elapsed().as_secs() < 8 {
        let now = Instant::from_micros(start.elapsed().as_micros() as i64);
        stack.poll(now, &mut nic, &mut sockets);
        for bytes in nic.go.drain(..) {
            passed += 1;
            if !lose(passed) {
                world.send(NetHdr::default(), &bytes);
            }
        }
        world.step();
        for (_, bytes) in world.frames.drain(..) {
            passed += 1;
            if !lose(passed) {
                nic.came.push_back(bytes);
            }
        }
        let socket = sockets.get_mut::<tcp::Socket<'_>>(client);
        if socket.may_send() && !asked {
            socket.send_slice(ASK).unwrap();
            asked = true;
        }
        if socket.can_recv() {
            let read = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            page.extend(read);
        }
        if asked && !socket.may_recv() && socket.is_open() {
            socket.close();
        }
        if !socket.is_active() || socket.state() == tcp::State::TimeWait {
            return asked.then_some(page);
        }
    }
    panic!("the conversation does not end");
}

/// The gate's answer to a question: response code and address.
fn ask(world: &mut World, name: &str, kind: u16) -> (u8, Option<[u8; 4]>) {
    world.frames.clear();
    let packet = udp((GUEST, 5353), (ROUTER, 53), &query_of(1, name, kind));
    world.send(NetHdr::default(), &frame(&packet));
    world.until("an answer", |world| !world.frames.is_empty());
    let packet = packet_of(&world.frames[0].1);
    let message = UdpPacket::new_checked(&packet[20..]).unwrap().payload();
    let address = message.last_chunk().copied().filter(|_| message[7] == 1);
    (message[3] & 15, address)
}

#[test]
fn windows_is_told_that_it_has_a_network_only_while_it_has_one() {
    let mut world = World::new();
    for connected in [false, true, false] {
        if connected {
            world.add_path("eth0");
            world.until("the tunnel is up", World::tunnelled);
        } else if world.tunnelled() {
            let lost = UplinkToGate::PathLost { id: PathId(1) };
            world.uplink.send(&lost, &[]).unwrap();
            world.until("the gate is closed", |world| !world.tunnelled());
        }
        let page = fetch(&mut world, |_| false);
        let (server, name) = (ask(&mut world, SERVER, A), ask(&mut world, NAME, A));
        if connected {
            let page = String::from_utf8(page.expect("a page")).unwrap();
            assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
            assert!(page.ends_with("\r\n\r\nMicrosoft Connect Test"), "{page}");
            assert_eq!(server, (0, Some(ROUTER.octets())));
            assert_eq!(name, (0, Some([131, 107, 255, 255])));
            assert_eq!(ask(&mut world, NAME, AAAA), (0, None), "no IPv6");
        } else {
            assert_eq!(page, None, "nobody answers");
            assert_eq!((server, name), ((REFUSED, None), (REFUSED, None)));
        }
        for other in ["ipv6.msftconnecttest.com", "msftncsi.com"] {
            assert_eq!(ask(&mut world, other, A), (REFUSED, None), "{other}");
        }
    }
    world.settle();
    assert!(world.inner.is_empty(), "nothing of it left");
}

/// The web server keeps nothing and has no timer: what is lost comes again by the client's.
#[test]
fn any_one_frame_may_be_lost() {
    let mut world = World::connected();
    for lost in 1..=9 {
        let page = fetch(&mut world, |frame| frame == lost).expect("a page");
        assert!(
            page.ends_with(b"Microsoft Connect Test"),
            "without frame {lost}"
        );
    }
}

#[test]
fn policy_can_switch_the_answers_off() {
    let mut world = World::connected_under("[ncsi]\nanswer = false\n");
    assert_eq!(fetch(&mut world, |_| false), None);
    assert_eq!(ask(&mut world, SERVER, A), (REFUSED, None));
    assert_eq!(ask(&mut world, NAME, A), (REFUSED, None));
    assert!(world.refused_by("not-served"));
}
