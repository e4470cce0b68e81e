//! An authority of certificates that lives as long as a test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::child::Described;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A node that trusts this authority and has a certificate of `issuer` for `name`.
    pub(crate) fn node(&self, described: Described, issuer: &Self, name: &str) -> Described {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer.0).unwrap();
        let tls = Some([self.0.pem(), certificate.pem(), key.serialize_pem()]);
        Described { tls, ..described }
    }
}
