use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nova_security::{
    Authority, CERTIFICATE_LIFETIME, Credentials, Identity, Role, SecurityError, Zone, peer_identity,
};

fn agent(region: &str) -> Identity {
    Identity::new(region, Zone::Data, Role::Agent, "host1").unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_ca_is_made_once_opens_again_and_keeps_its_key_private() {
    let folder = tempfile::tempdir().unwrap();
    let made = Authority::create(folder.path(), "eu-1").unwrap();
    assert_eq!(mode(&folder.path().join("ca.key")), 0o600);
    assert!(matches!(Authority::create(folder.path(), "eu-1"), Err(SecurityError::Exists { .. })));

    let opened = Authority::open(folder.path()).unwrap();
    assert_eq!(opened.region(), "eu-1");
    assert_eq!(opened.certificate_pem(), made.certificate_pem());
    assert!(!format!("{opened:?}").contains("PRIVATE"));

    fs::set_permissions(folder.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Authority::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn an_issued_certificate_names_its_holder_for_ninety_days() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path(), "eu-1").unwrap();
    let issued =
        authority.issue(folder.path(), "agent", &agent("eu-1"), &["127.0.0.1", "host1.lan"]).unwrap();
    assert_eq!((mode(&issued.key), mode(&issued.certificate)), (0o600, 0o644));

    let credentials = Credentials::load(folder.path(), "agent").unwrap();
    assert_eq!(credentials.identity(), &agent("eu-1"));
    let left = credentials.expires().duration_since(SystemTime::now()).unwrap();
    assert!(
        left <= CERTIFICATE_LIFETIME && left > CERTIFICATE_LIFETIME - Duration::from_secs(60),
        "{left:?}"
    );
    assert!(!format!("{credentials:?}").contains("PRIVATE"));
}

#[test]
fn a_ca_speaks_for_its_own_region_and_names_of_roles_cannot_be_added() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path(), "eu-1").unwrap();
    let other = authority.issue(folder.path(), "agent", &agent("us-1"), &[]);
    assert!(matches!(other, Err(SecurityError::NotAnIdentity { .. })), "{other:?}");
    let posing = authority.issue(folder.path(), "agent", &agent("eu-1"), &["controller.eu-1.nova"]);
    assert!(matches!(posing, Err(SecurityError::BadSubjectName { .. })), "{posing:?}");
}

#[test]
fn a_key_of_another_certificate_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path(), "eu-1").unwrap();
    authority.issue(folder.path(), "one", &agent("eu-1"), &[]).unwrap();
    authority.issue(folder.path(), "two", &agent("eu-1"), &[]).unwrap();
    fs::rename(folder.path().join("two.key"), folder.path().join("one.key")).unwrap();
    assert!(matches!(Credentials::load(folder.path(), "one"), Err(SecurityError::KeyMismatch { .. })));
}

#[test]
fn garbage_in_place_of_a_certificate_is_an_error_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path(), "eu-1").unwrap();
    let issued = authority.issue(folder.path(), "agent", &agent("eu-1"), &[]).unwrap();
    let good = fs::read(&issued.certificate).unwrap();
    let body = String::from_utf8_lossy(&good).find("-----END").expect("PEM has an end line");
    for cut in (0..body).step_by(7) {
        fs::write(&issued.certificate, &good[..cut]).unwrap();
        assert!(Credentials::load(folder.path(), "agent").is_err(), "{cut} bytes of a certificate");
    }
    assert!(peer_identity(&[good]).is_err(), "PEM is not DER");
    assert!(peer_identity::<Vec<u8>>(&[]).is_err());
}
