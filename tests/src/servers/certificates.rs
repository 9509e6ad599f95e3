//! A certificate authority that lives as long as the test, and one certificate for all sites.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// What clients have to trust.
    pub authority: PathBuf,
    /// The certificate of the sites.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes an authority and a certificate for these names.
    ///
    /// # Errors
    /// When a name is no DNS name or a file can't be written.
    pub fn issue(names: &[String], directory: &Path) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        authority.distinguished_name.push(DnType::CommonName, "prewarm lab authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut site = CertificateParams::new(names)?;
        site.distinguished_name.push(DnType::CommonName, "prewarm lab");
        let site = site.signed_by(&key, &authority)?;
        let files = Self {
            authority: directory.join("authority.pem"),
            certificate: directory.join("site.pem"),
            key: directory.join("site.key"),
        };
        fs::write(&files.authority, authority.pem())?;
        fs::write(&files.certificate, site.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}
