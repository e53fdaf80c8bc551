//! The attack catalogue, one module an attack. Needs root and the built programs:
//! `cargo build -p sekisho-netdomain -p sekisho-supervisor -p sekisho-lab`.

mod bridged_lan;
mod bridged_moved;
mod direct_moved;
mod direct_routed;
mod dot1x;
mod narrow_path;
mod sim_modem;
mod sim_quota;
mod standby_key;
mod t01_dhcp_routes;
mod t03_wide_prefix;
mod t04_false_gateway;
mod t05_rogue_advertisements;
mod t06_ipv6_past_an_ipv4_tunnel;
mod t08_arp_spoof;
mod t09_arp_for_inner_address;
mod t12_public_resolvers;
mod t13_captive_portal;
mod t18_udp_dropped;
mod t19_false_office;
mod t20_relayed_beacon;
mod t21_replayed_beacon;
mod t22_cable_to_home_hub;
mod t23_flapping_carriers;
mod t25_hub_at_the_desk;
mod t28_kill_gate_and_uplink;
mod t29_kill_gate_and_joint;
mod t30_exhausted;
mod t31_sleep;
mod t32_clock;
mod t34_no_policy;
mod t35_forged_sources;
mod t44_syn_flood;
mod t45_dns_tunnelling;
