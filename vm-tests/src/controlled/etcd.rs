//! One member of etcd on the third machine, with certificates of its own.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

const PORT: u16 = 2379;
const NODE_DIRECTORY: &str = "/etc/lockstep/etcd";

/// The table in `cluster.toml`.
pub(super) fn configuration(address: &str) -> String {
    format!(
        "[etcd]\nendpoints = [\"{address}:{PORT}\"]\nauthority = \"{NODE_DIRECTORY}/authority.pem\"\n\
         certificate = \"{NODE_DIRECTORY}/client.pem\"\nkey = \"{NODE_DIRECTORY}/client.key\"\n"
    )
}

/// How it is started. Only who has a certificate of the authority may ask it.
pub(super) fn command(address: &str) -> String {
    let url = format!("https://{address}:{PORT}");
    let peer = "http://127.0.0.1:2380";
    format!(
        "etcd --data-dir /var/lib/etcd --listen-client-urls {url} --advertise-client-urls {url} \
         --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster default={peer} \
         --cert-file /etc/etcd/server.pem --key-file /etc/etcd/server.key \
         --client-cert-auth --trusted-ca-file /etc/etcd/authority.pem"
    )
}

/// An authority, a certificate of etcd and one of the nodes.
pub(super) struct Trust {
    authority: String,
    server: (String, String),
    client: (String, String),
}

impl Trust {
    pub(super) fn create(address: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let issue = |name: &str, usage| -> anyhow::Result<(String, String)> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.extended_key_usages = usage;
            let signed = params.signed_by(&key, &issuer)?;
            Ok((signed.pem(), key.serialize_pem()))
        };
        let (server, client) = (
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        Ok(Self {
            // etcd's gateway calls its own server with the server's certificate.
            server: issue(address, vec![server, client.clone()])?,
            client: issue("nodes.lockstep.internal", vec![client])?,
            authority,
        })
    }

    pub(super) fn of_a_node(&self) -> [(&'static str, &String); 3] {
        [
            ("/etc/lockstep/etcd/authority.pem", &self.authority),
            ("/etc/lockstep/etcd/client.pem", &self.client.0),
            ("/etc/lockstep/etcd/client.key", &self.client.1),
        ]
    }

    pub(super) fn of_etcd(&self) -> [(&'static str, &String); 3] {
        [
            ("/etc/etcd/authority.pem", &self.authority),
            ("/etc/etcd/server.pem", &self.server.0),
            ("/etc/etcd/server.key", &self.server.1),
        ]
    }
}
