//! IPv4 subnets: parsing, overlap, and picking a free one from the pools. Pure; knows nothing of links or files.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network in canonical form, written `10.210.0.0/16`.
///
/// Invariant: `prefix <= 32` and the host bits of `address` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

/// Why a text or a pair of numbers is not a subnet for containers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not `ADDRESS/PREFIX`.
    #[error("`{text}` is not an IPv4 subnet such as 10.89.0.0/24")]
    Syntax {
        /// The text as given.
        text: String,
    },
    /// Too small to hold a gateway and a container.
    #[error("subnet `{subnet}` has no room for a gateway and a container")]
    TooSmall {
        /// The subnet.
        subnet: Subnet,
    },
}

impl Subnet {
    /// Makes the subnet that holds `address`. `prefix` above 32 counts as 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask_of(prefix)), prefix }
    }

    /// The network address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The number of leading bits that belong to the network.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The netmask as a number.
    pub(super) fn mask(self) -> u32 {
        mask_of(self.prefix)
    }

    /// Whether the address lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = self.prefix.min(other.prefix);
        (self.address.to_bits() ^ other.address.to_bits()) & mask_of(shorter) == 0
    }

    /// The addresses that hosts may have: all but the network's own and the broadcast address.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.address.to_bits();
        let last = first | !self.mask();
        (first.saturating_add(1)..last).map(Ipv4Addr::from_bits)
    }

    /// Whether the address is one that a host may have.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        self.contains(address) && host != 0 && host != !self.mask()
    }

    /// Checks that there is room for a gateway and one container.
    ///
    /// # Errors
    /// [`SubnetError::TooSmall`] for /31 and /32.
    pub fn usable(self) -> Result<Self, SubnetError> {
        if self.prefix <= 30 { Ok(self) } else { Err(SubnetError::TooSmall { subnet: self }) }
    }
}

fn mask_of(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let bad = || SubnetError::Syntax { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        Ok(Self::new(address.parse().map_err(|_| bad())?, prefix))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// Where subnets are picked from when none is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// /16 networks from 10.210.0.0 to 10.219.0.0: the default network, which may hold many containers at once.
    Wide,
    /// /24 networks from 10.220.0.0 to 10.227.255.0: networks made by the user.
    Narrow,
}

impl Pool {
    fn candidates(self) -> Box<dyn Iterator<Item = Subnet>> {
        match self {
            Self::Wide => Box::new((210..220).map(|b| Subnet::new(Ipv4Addr::new(10, b, 0, 0), 16))),
            Self::Narrow => {
                Box::new((220..228).flat_map(|b| (0..=255).map(move |c| Subnet::new(Ipv4Addr::new(10, b, c, 0), 24))))
            }
        }
    }

    /// The first subnet of the pool that overlaps nothing in `taken`.
    pub fn pick(self, taken: &[Subnet]) -> Option<Subnet> {
        self.candidates().find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_canonical() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("0.0.0.0/0").to_string(), "0.0.0.0/0");
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert!(subnet("10.0.0.0/31").usable().is_err());
    }

    #[test]
    fn hosts_leave_out_the_ends() {
        let all: Vec<_> = subnet("10.0.0.0/29").hosts().collect();
        assert_eq!((all.len(), all[0], all[5]), (6, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 6)));
    }

    #[test]
    fn a_pool_steps_around_what_is_taken() {
        assert_eq!(Pool::Wide.pick(&[]), Some(subnet("10.210.0.0/16")));
        assert_eq!(Pool::Wide.pick(&[subnet("10.210.7.0/24")]), Some(subnet("10.211.0.0/16")));
        assert_eq!(Pool::Narrow.pick(&[subnet("10.220.0.0/23")]), Some(subnet("10.220.2.0/24")));
        assert_eq!(Pool::Wide.pick(&[subnet("10.0.0.0/8")]), None);
    }

    proptest! {
        #[test]
        fn overlap_is_a_shared_address(a: u32, b: u32, p in 20u8..=32, q in 20u8..=32) {
            let (x, y) = (Subnet::new(Ipv4Addr::from_bits(a), p), Subnet::new(Ipv4Addr::from_bits(b & 0xfff | a & !0xfff), q));
            prop_assert_eq!(x.overlaps(y), x.contains(y.address()) || y.contains(x.address()));
            prop_assert_eq!(x.overlaps(y), y.overlaps(x));
        }
    }
}
