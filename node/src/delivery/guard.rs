//! Where webhooks may go: not into the network that the node stands in.
//!
//! Role: a webhook's URL is chosen by whoever may make subscriptions, and what it names is decided
//! by whoever runs that name's DNS. So the name is resolved once, *every* address is looked at, and
//! the connection is made to one of these very addresses: a name that changes between the look and
//! the call, or that has one good address among bad ones, gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_config::Networks;

/// Addresses of one name that are looked at. More: a hostile name makes the node work.
const ADDRESSES_MAX: usize = 64;

/// Why a place is not called.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The name leads nowhere, now.
    #[error("the host name could not be resolved")]
    Unresolved(#[source] std::io::Error),
    /// It has no addresses, or too many.
    #[error("the host name has {0} addresses")]
    Addresses(usize),
    /// It leads where webhooks may not go.
    #[error("the address {0} is not public and not allowed by `delivery.allow`")]
    NotPublic(IpAddr),
}

/// The addresses of a host, when every one of them may be called.
pub(super) async fn checked_addresses(
    host: &str,
    port: u16,
    allowed: &Networks,
) -> Result<Vec<SocketAddr>, Refusal> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(Refusal::Unresolved)?;
    checked(found.take(ADDRESSES_MAX + 1).collect(), allowed)
}

/// All of these, or none.
fn checked(found: Vec<SocketAddr>, allowed: &Networks) -> Result<Vec<SocketAddr>, Refusal> {
    if found.is_empty() || found.len() > ADDRESSES_MAX {
        return Err(Refusal::Addresses(found.len()));
    }
    for address in &found {
        let ip = address.ip().to_canonical();
        if !is_public(ip) && !allowed.contain(ip) {
            return Err(Refusal::NotPublic(ip));
        }
    }
    Ok(found)
}

/// Whether an address belongs to the public internet. What is not known to is not: the ranges are
/// those of the IANA special-purpose registries that are not globally reachable.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Networks and the lengths of their prefixes.
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    // This network.
    (Ipv4Addr::UNSPECIFIED, 8),
    // Private, RFC 1918.
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Carrier-grade NAT, RFC 6598.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    // Loopback.
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local: where clouds keep their metadata.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Protocol assignments, and the former 6to4 relays.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    // Documentation.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Benchmarks.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast; what is reserved, and broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// All that is global unicast; the rest of the addresses has other meanings or none yet.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// NAT64, RFC 6052: the last 32 bits are an IPv4 address, and that is where it leads.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
/// What is special among the global ones.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    // Protocol assignments, Teredo among them, which hides an address.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4, which hides an address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let within = |(network, bits): (Ipv4Addr, u32)| {
        (ip.to_bits() ^ network.to_bits()) >> (Ipv4Addr::BITS - bits) == 0
    };
    !SPECIAL_V4.into_iter().any(within)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let within = |(network, bits): (Ipv6Addr, u32)| {
        (ip.to_bits() ^ network.to_bits()) >> (Ipv6Addr::BITS - bits) == 0
    };
    if within(NAT64) {
        let [.., a, b, c, d] = ip.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    within(GLOBAL_V6) && !SPECIAL_V6.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "2001:200::1",
        ];
        for text in public {
            assert!(is_public(text.parse().expect("an address")), "{text} is public");
        }
        let special = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for text in special {
            assert!(!is_public(text.parse().expect("an address")), "{text} is not public");
        }
    }

    #[test]
    fn one_bad_address_among_good_ones_spoils_the_name() {
        // Addresses of a name, networks that are allowed, the one that spoils it.
        let stories: [(&[&str], &str, Option<&str>); 8] = [
            (&["8.8.8.8:1", "[2606:4700::1]:1"], "", None),
            (&["8.8.8.8:1", "10.0.0.1:1"], "", Some("10.0.0.1")),
            (&["169.254.169.254:1", "8.8.8.8:1"], "", Some("169.254.169.254")),
            (&["8.8.8.8:1", "[::ffff:127.0.0.1]:1"], "", Some("127.0.0.1")),
            (&["8.8.8.8:1", "[fe80::1]:1"], "10.0.0.0/8", Some("fe80::1")),
            (&["8.8.8.8:1", "10.0.0.1:1"], "10.0.0.0/8", None),
            (&["10.0.0.1:1", "192.168.0.1:1"], "10.0.0.0/8", Some("192.168.0.1")),
            (&["[::ffff:10.0.0.1]:1"], "10.0.0.0/8", None),
        ];
        for (addresses, allowed, spoiled) in stories {
            let found: Vec<SocketAddr> =
                addresses.iter().map(|text| text.parse().expect("an address")).collect();
            let allowed = Networks::parse(allowed).expect("networks");
            match (checked(found.clone(), &allowed), spoiled) {
                (Ok(checked), None) => assert_eq!(checked, found),
                (Err(Refusal::NotPublic(ip)), Some(spoiled)) => {
                    assert_eq!(ip, spoiled.parse::<IpAddr>().expect("an address"));
                }
                (answer, _) => panic!("{addresses:?}: {answer:?}"),
            }
        }
    }

    #[test]
    fn a_name_with_no_address_or_with_too_many_is_not_called() {
        let one: SocketAddr = "8.8.8.8:1".parse().expect("an address");
        for count in [0, ADDRESSES_MAX + 1] {
            let answer = checked(vec![one; count], &Networks::default());
            assert!(matches!(answer, Err(Refusal::Addresses(found)) if found == count));
        }
    }

    #[tokio::test]
    async fn every_spelling_of_a_private_address_is_refused() {
        let nothing = Networks::default();
        for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "::1", "::ffff:7f00:1"] {
            let answer = checked_addresses(host, 80, &nothing).await;
            let refused = matches!(
                &answer,
                Err(Refusal::NotPublic(_) | Refusal::Unresolved(_) | Refusal::Addresses(_))
            );
            assert!(refused, "{host}: {answer:?}");
        }
        let answer = checked_addresses("127.0.0.1", 80, &nothing).await;
        assert!(matches!(answer, Err(Refusal::NotPublic(ip)) if ip.is_loopback()));
    }

    #[tokio::test]
    async fn what_is_allowed_is_called_at_the_address_that_was_looked_at() {
        let allowed = Networks::parse("127.0.0.0/8, ::1").expect("networks");
        let found = checked_addresses("localhost", 4711, &allowed).await.expect("loopback");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 4711));
        let one = Networks::parse("127.0.0.2").expect("networks");
        let answer = checked_addresses("127.0.0.1", 80, &one).await;
        assert!(matches!(answer, Err(Refusal::NotPublic(_))), "{answer:?}");
    }
}
