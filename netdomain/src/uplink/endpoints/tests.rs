use super::*;

#[test]
fn ranks_by_policy_then_by_name() {
    let mut endpoints = sample();
    endpoints.uplinks.push(Uplink {
        kind: UplinkKind::Wifi,
        rank: 2,
        interfaces: vec!["wlan0".into()],
        quota: None,
    });
    let wired = |order| endpoints.rank("eth0", UplinkKind::Wired, order).unwrap();
    assert!(wired(0) < wired(1));
    assert!(wired(4000) < endpoints.rank("wlan0", UplinkKind::Wifi, 0).unwrap());
    assert_eq!(endpoints.rank("wlan1", UplinkKind::Wifi, 0), None);
    assert_eq!(endpoints.rank("wwan0", UplinkKind::Sim, 0), None);
}

#[test]
fn a_modems_interface_is_the_sims_where_policy_names_none() {
    let mut endpoints = sample();
    assert_eq!(endpoints.kind("wwan0", false), UplinkKind::Wired);
    endpoints.uplinks.push(sample_sim());
    assert_eq!(endpoints.kind("wwan9", false), UplinkKind::Sim);
    assert_eq!(
        endpoints.kind("wwan0", false),
        UplinkKind::Wired,
        "not that one"
    );
    endpoints.uplinks[1].interfaces.clear();
    for (name, kind) in [
        ("wwan0", UplinkKind::Sim),
        ("wwp0s20f0u6", UplinkKind::Sim),
        ("eth0", UplinkKind::Wired),
    ] {
        assert_eq!(endpoints.kind(name, false), kind, "{name}");
    }
}

/// Asked is where policy lets connections go already, or at the beacon where nothing else is; and not
/// where the beacon is asked for its proof, nor over what no gateway may be reached by.
#[test]
fn who_answers_is_asked_at_a_gateway_or_at_the_beacon() {
    let mut endpoints = sample();
    let beacon = endpoints.beacon.as_ref().unwrap().address;
    assert_eq!(endpoints.door_for(UplinkKind::Wifi), Some(beacon));
    assert_eq!(endpoints.beacon_as_door(UplinkKind::Wired), None);
    assert_eq!(endpoints.door_for(UplinkKind::Sim), None);
    assert!(
        endpoints
            .destinations(UplinkKind::Wifi)
            .contains(beacon.ip())
    );
    let tls: SocketAddrV4 = "203.0.113.10:443".parse().unwrap();
    endpoints.gateways.push(Gateway {
        transport: Transport::Tcp,
        outside: tls,
        ..endpoints.gateways[0].clone()
    });
    assert_eq!(endpoints.door_for(UplinkKind::Wifi), Some(tls));
    assert_eq!(endpoints.beacon_as_door(UplinkKind::Wifi), None);
    assert!(
        !endpoints
            .destinations(UplinkKind::Wifi)
            .contains(beacon.ip())
    );
    endpoints.beacon = None;
    endpoints.gateways.pop();
    assert_eq!(endpoints.door_for(UplinkKind::Wifi), None);
}

#[test]
fn routes_lead_to_the_endpoints_and_nowhere_else() {
    let endpoints = sample();
    let wired: Vec<String> = endpoints
        .destinations(UplinkKind::Wired)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(wired, ["10.12.0.2", "10.12.0.200", "203.0.113.10"]);
    assert_eq!(endpoints.destinations(UplinkKind::Sim), [] as [Ipv4Addr; 0]);
    assert!(endpoints.names(Ipv4Addr::new(10, 12, 0, 200)));
    assert!(!endpoints.names(Ipv4Addr::new(10, 12, 0, 201)));
}
