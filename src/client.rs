//! The clients of the service, as its limits tell them apart: by the address of a connection, and by networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The leading bits of an IPv6 address that identify a client: a site is assigned a /64 at least, and chooses the rest of its
/// addresses itself ([RFC 6177](https://www.rfc-editor.org/rfc/rfc6177)).
const IPV6_CLIENT_BITS: u32 = 64;

/// The address at the other end of a connection. The server adds it to the extensions of each request, if it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// The part of an address that limits count as one client: a whole IPv4 address, or the /64 network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        // A socket of IPv6 that also accepts IPv4 shows such clients as `::ffff:192.0.2.1`.
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << IPV6_CLIENT_BITS))),
            address => address,
        })
    }
}

/// The length of the prefix `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// An IP network, as `192.0.2.0/24`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network =
            network.map_err(|_| "it must be an IP network or address, as in 10.0.0.0/8, 192.0.2.1 or fd00::/8")?;
        // A socket of IPv6 that also accepts IPv4 shows such addresses as `::ffff:192.0.2.1`, and they are compared as IPv4.
        match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
            (address @ IpAddr::V4(_), Some(length)) if network.addr().is_ipv6() => {
                IpNet::new(address, length).map(Self).map_err(|_| "its prefix is too long")
            }
            _ => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The proxies that are trusted to name the addresses of their clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}
