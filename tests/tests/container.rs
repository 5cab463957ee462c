//! The image, put together by real buildah from `deploy/container/Containerfile` with the program under test, and the Helm chart, by real Helm; then both
//! together as a node runs them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use seeway_tests::{
    authority::Authority,
    machine::seeway,
    python,
    repository::{root, run},
    turn::Turn,
};
use serde_json::Value;
use tempfile::TempDir;

/// The image, and where buildah keeps it.
struct Image {
    folder: TempDir,
}

impl Image {
    /// Builds it from the Containerfile. What its first stage would compile is there already: buildah is given a folder in that stage's place.
    fn build() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root, for chroot: run tests/run as root");
        let folder = TempDir::new().expect("the temporary folder can be written");
        let builder = folder.path().join("builder");
        fs::create_dir(&builder).expect("written");
        let mut rootfs = Command::new(root().join("deploy/container/rootfs"));
        run(rootfs.arg(seeway().get_program()).arg(builder.join("rootfs")).env("SOURCE_DATE_EPOCH", "1"));
        let image = Self { folder };
        let mut build = image.buildah("build");
        build.args(["--isolation", "chroot", "--timestamp", "1", "--tag", "seeway:test"]);
        build.arg(format!("--build-context=builder={}", builder.display()));
        run(build.arg("--file").arg(root().join("deploy/container/Containerfile")).arg(&builder));
        image
    }

    fn buildah(&self, command: &str) -> Command {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(self.folder.path().join("storage"));
        buildah.arg("--runroot").arg(self.folder.path().join("run"));
        buildah.args(["--storage-driver", "vfs", command]);
        buildah
    }

    /// A container of it: its name, and the folder with its root.
    fn container(&self) -> (String, PathBuf) {
        let name = run(self.buildah("from").arg("localhost/seeway:test")).trim().to_owned();
        let root = run(self.buildah("mount").arg(&name)).trim().into();
        (name, root)
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.symlink_metadata().expect("there").is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_image_holds_the_gateway_and_nothing_else_and_runs_it_as_nobody_special() {
    let _turn = Turn::alone();
    let image = Image::build();
    let (name, root) = image.container();
    let inspected: Value = serde_json::from_str(&run(image.buildah("inspect").arg(&name))).expect("JSON");
    let config = &inspected["OCIv1"]["config"];
    assert_eq!(config["User"], "65532:65532", "{config}");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/bin/seeway"]));
    assert_eq!(config["Cmd"], serde_json::json!(["serve", "--config", "/etc/seeway/seeway.toml"]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));

    let mut found = Vec::new();
    files(&root, &mut found);
    for file in &found {
        let within = file.strip_prefix(&root).expect("it is in there").to_string_lossy().into_owned();
        let is_known = within == "usr/bin/seeway"
            || within.contains(".so")
            || ["etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt"]
                .contains(&&*within);
        assert!(is_known, "{within} is in the image");
        let mode = file.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o6022, 0, "{within} has the mode {mode:o}");
    }

    let version =
        run(image.buildah("run").args(["--isolation", "chroot", &name, "--", "/usr/bin/seeway", "--version"]));
    assert_eq!(version.trim(), format!("seeway {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_chart_is_what_helm_and_kubernetes_take_and_its_configuration_runs_in_the_image() {
    let _turn = Turn::alone();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (repository, toml) = (root(), folder.path().join("seeway.toml"));
    let helm = repository.join("target/tools/helm");
    assert!(helm.exists(), "{} is missing: tests/run puts it there", helm.display());
    let package = root().join("tests/package");
    let path = |path: &Path| path.display().to_string();
    let mut alerts = vec![path(&package.join("alerts.yml"))];
    // The project's own rules, too.
    let rules = repository.join("deploy/prometheus/alerts.yml");
    alerts.extend(rules.exists().then(|| path(&rules)));
    let (chart, values) = (repository.join("deploy/helm/seeway"), package.join("pod-values.yaml"));
    let files = [("--helm", &helm), ("--chart", &chart), ("--pod-values", &values), ("--toml", &toml)];
    let words = files.into_iter().flat_map(|(name, file)| [name.to_owned(), path(file)]);
    python::run("chart_test.py", words.chain(["--alerts".to_owned()]).chain(alerts));

    let authority = Authority::new("callers");
    let (server, caller) = (authority.server(), authority.client("spiffe://bank.example/caller"));
    let files = [
        (&server.certificate, "tls.crt"),
        (&server.key, "tls.key"),
        (&authority.certificate(), "ca.crt"),
        (&caller.certificate, "caller.pem"),
        (&caller.key, "caller.key"),
    ];
    for (from, to) in files {
        fs::copy(from, folder.path().join(to)).expect("copied");
    }
    let image = Image::build();
    let (_, root) = image.container();
    let mut pod = Command::new("unshare");
    pod.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).arg(package.join("pod"));
    let said = run(pod.arg(root).arg(folder.path()).arg(seeway().get_program()));
    assert!(said.contains("the pod has run"), "{said}");
}
