//! The process itself: configuration, stop, start.

use nova_api::files as pb;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Told;

use crate::kit::{Region, nova_control};

#[test]
fn a_wrong_configuration_ends_with_78_and_says_what_is_wrong() {
    let region = Region::prepare();
    let refused = |text: String| {
        std::fs::write(region.config(1), text).unwrap();
        let output = nova_control(&region.config(1)).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = region.config_text(1);
    assert!(refused(format!("colour = 1\n{text}")).contains("unknown field `colour`"));
    assert!(refused(text.replace("id = 1\nlisten", "id = 4\nlisten")).contains("not among the peers"));
    assert!(
        nova_control(&region.config(1).with_extension("none")).output().unwrap().status.code() == Some(78)
    );
}

#[test]
fn a_certificate_of_another_role_is_refused() {
    let region = Region::prepare();
    let text = region.config_text(1).replace("tls/c1.", "tls/h1.");
    std::fs::write(region.config(1), text).unwrap();
    let output = nova_control(&region.config(1)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it must be a controller"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_cleanly_and_a_restarted_region_knows_everything() {
    let mut region = Region::start();
    let make =
        Ask::MakeDirectory(pb::MakeDirectory { path: "/hot/kept".into(), ..pb::MakeDirectory::default() });
    assert_eq!(region.files(1, 1, make).await.1, Told::Done(pb::Done {}));
    for id in 1..=3 {
        assert_eq!(region.terminate(id), Some(0), "{}", region.logs());
    }
    for id in 1..=3 {
        region.spawn(id);
    }
    let stat = Ask::Stat(pb::Stat { path: "/hot/kept".into(), ..pb::Stat::default() });
    let told = region.files(0, 0, stat).await.1;
    assert!(matches!(&told, Told::Entry(entry) if entry.name == "kept"), "{told:?}");
}
