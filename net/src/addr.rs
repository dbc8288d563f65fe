//! Addresses as callers write them.
//!
//! Owns [`ToAddr`]: literal addresses only. A name needs a resolver, and a resolver that blocks has no
//! place on a core.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Something that names one socket address.
pub trait ToAddr {
    /// The address.
    ///
    /// # Errors
    /// Text that is no literal address, such as a host name.
    fn to_addr(&self) -> io::Result<SocketAddr>;
}

impl ToAddr for SocketAddr {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok(*self)
    }
}

impl ToAddr for SocketAddrV4 {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToAddr for SocketAddrV6 {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToAddr for (IpAddr, u16) {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToAddr for (Ipv4Addr, u16) {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToAddr for (Ipv6Addr, u16) {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToAddr for str {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        self.parse().map_err(|_| {
            let why = format!(
                "{self:?} is no literal address such as `127.0.0.1:7000` or `[::1]:7000`; names are \
                 not resolved here"
            );
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    }
}

impl ToAddr for String {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        self.as_str().to_addr()
    }
}

impl<T: ToAddr + ?Sized> ToAddr for &T {
    fn to_addr(&self) -> io::Result<SocketAddr> {
        (**self).to_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_names_refused() {
        assert_eq!("127.0.0.1:80".to_addr().unwrap(), ([127, 0, 0, 1], 80).into());
        assert!("[::1]:80".to_addr().unwrap().is_ipv6());
        let e = "localhost:80".to_addr().unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
        assert!(e.to_string().contains("localhost:80"));
    }
}
