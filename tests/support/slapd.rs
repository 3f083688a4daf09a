//! OpenLDAP's server, with a directory of its own that is gone afterwards.

use std::{
    fs,
    io::{self, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Authority, eventually};

/// Below which everything is.
const SUFFIX: &str = "dc=example,dc=net";
/// Where Debian has it, which is not in everybody's PATH.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/libexec", "/usr/local/libexec"];

/// A running slapd that answers on `ldap://` and `ldaps://`; ended when dropped.
#[derive(Debug)]
pub struct Slapd {
    /// The port of `ldap://127.0.0.1`, with StartTLS.
    pub port: u16,
    /// The port of `ldaps://localhost`.
    pub tls_port: u16,
    child: Child,
    directory: tempfile::TempDir,
}

impl Slapd {
    /// Starts one with these people, each with a password, below `ou=people`; the same name may be there twice.
    /// `cn=reader` (password `reader`) may search, and nobody else. `None`, with a line that says so, where there
    /// is no slapd.
    pub fn start(people: &[(&str, &str)], authority: &Authority) -> Option<Self> {
        let Some(program) = program("slapd") else {
            // Not captured by the test harness: nobody is to take this for a success.
            writeln!(
                io::stderr(),
                "left out: slapd is not installed (Debian: slapd), so LDAP is not tested"
            )
            .expect("the terminal is there");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory is made");
        let configuration = write_configuration(directory.path(), authority);
        load(directory.path(), &configuration, people);
        let [port, tls_port] = free_ports();
        let child = Command::new(program)
            .args(["-d", "0", "-f"])
            .arg(&configuration)
            .arg("-h")
            .arg(format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"))
            .stdin(Stdio::null())
            .spawn()
            .expect("slapd is started");
        let mut slapd = Self {
            port,
            tls_port,
            child,
            directory,
        };
        eventually("slapd listens", || {
            assert!(slapd.is_running(), "slapd has ended");
            [port, tls_port]
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        Some(slapd)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it.
    pub fn stop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    candidates
        .map(|directory| directory.join(name))
        .find(|file| file.exists())
}

fn free_ports() -> [u16; 2] {
    // Both at a time, so that they are not the same.
    let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn write_configuration(directory: &Path, authority: &Authority) -> PathBuf {
    let certificate = authority.server(&["localhost"]).expect("a certificate is issued");
    certificate.write_to(directory, "server").expect("it is written");
    fs::write(directory.join("ca.crt"), authority.certificate_pem()).expect("the CA is written");
    fs::create_dir(directory.join("data")).expect("a directory is made");
    let here = directory.display();
    let text = format!(
        "include /etc/ldap/schema/core.schema\n\
         include /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\n\
         pidfile {here}/slapd.pid\n\
         modulepath /usr/lib/ldap\n\
         moduleload back_mdb\n\
         TLSCACertificateFile {here}/ca.crt\n\
         TLSCertificateFile {here}/server.crt\n\
         TLSCertificateKeyFile {here}/server.key\n\
         # A bind without a password succeeds, as with many servers.\n\
         allow bind_anon_dn bind_anon_cred\n\
         database mdb\n\
         suffix {SUFFIX}\n\
         directory {here}/data\n\
         maxsize 10485760\n\
         access to attrs=userPassword by anonymous auth\n\
         access to * by dn=cn=reader,{SUFFIX} read\n"
    );
    let path = directory.join("slapd.conf");
    fs::write(&path, text).expect("the configuration is written");
    path
}

fn load(directory: &Path, configuration: &Path, people: &[(&str, &str)]) {
    let mut ldif = format!(
        "dn: {SUFFIX}\nobjectClass: organization\nobjectClass: dcObject\no: x\ndc: example\n\n\
         dn: cn=reader,{SUFFIX}\nobjectClass: person\ncn: reader\nsn: x\nuserPassword: reader\n\n\
         dn: ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: people\n\n"
    );
    for (index, (name, password)) in people.iter().enumerate() {
        let uid = if people[..index].iter().any(|(earlier, _)| earlier == name) {
            format!("{name}-{index}\nuid: {name}")
        } else {
            (*name).to_owned()
        };
        let rdn = uid.split('\n').next().unwrap_or_default().to_owned();
        ldif += &format!(
            "dn: uid={rdn},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {name}\nsn: x\n\
             userPassword: {password}\n\n"
        );
    }
    let file = directory.join("people.ldif");
    fs::write(&file, ldif).expect("the entries are written");
    let program = program("slapadd").expect("slapadd comes with slapd");
    let loaded = Command::new(program)
        .arg("-f")
        .arg(configuration)
        .arg("-l")
        .arg(&file)
        .output()
        .expect("slapadd runs");
    assert!(
        loaded.status.success(),
        "{}",
        String::from_utf8_lossy(&loaded.stderr)
    );
}
