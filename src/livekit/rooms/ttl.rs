//! How long credentials are valid, also after a reload has changed it.

/// The most former lifetimes that still matter.
const EARLIER: usize = 16;

/// The lifetime of credentials, in seconds.
pub struct Ttl {
    /// That of credentials that are issued now.
    ttl: u64,
    /// Longer ones that were replaced, with the Unix time until which credentials had them.
    earlier: Vec<(u64, u64)>,
}

impl Ttl {
    /// All credentials have had this lifetime.
    pub fn new(ttl: u64) -> Ttl {
        Ttl { ttl, earlier: Vec::new() }
    }

    /// Credentials that are issued from now on have another one.
    pub fn set(&mut self, ttl: u64, unix: u64) {
        if ttl < self.ttl {
            self.prune(unix);
            self.earlier.push((self.ttl, unix));
            if self.earlier.len() > EARLIER {
                self.earlier.remove(0);
            }
        }
        self.ttl = ttl;
    }

    /// The latest expiry of credentials that were issued up to this time.
    pub fn expiry(&self, at: u64) -> u64 {
        let earlier = self.earlier.iter().map(|(ttl, replaced)| at.min(*replaced) + ttl);
        earlier.fold(at + self.ttl, u64::max)
    }

    /// The longest lifetime that a valid credential can have.
    pub fn longest(&self) -> u64 {
        self.earlier.iter().map(|(ttl, _)| *ttl).fold(self.ttl, u64::max)
    }

    /// Forgets lifetimes of credentials that have all expired.
    pub fn prune(&mut self, unix: u64) {
        self.earlier.retain(|(ttl, replaced)| replaced + ttl >= unix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_before_the_lifetime_was_shortened_counts_until_it_has_expired() {
        let mut ttl = Ttl::new(1000);
        ttl.set(100, 5000);
        assert_eq!((ttl.expiry(4000), ttl.expiry(5000), ttl.expiry(5100)), (5000, 6000, 6000));
        assert_eq!((ttl.expiry(5950), ttl.longest()), (6050, 1000));
        ttl.prune(6000);
        assert_eq!(ttl.longest(), 1000);
        ttl.prune(6001);
        assert_eq!((ttl.longest(), ttl.expiry(4000)), (100, 4100));
        ttl.set(200, 7000);
        assert_eq!(ttl.expiry(7000), 7200);
        for unix in 7000..7100 {
            ttl.set(8000 - unix, unix);
        }
        assert_eq!(ttl.earlier.len(), EARLIER);
    }
}
