//! Where the real control plane comes from: `KUBEBUILDER_ASSETS`, or one build per user from the published Go modules.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The Kubernetes release to build: the newest of 1.36 that the Go module proxy serves.
pub const KUBERNETES_VERSION: &str = "1.36.3";

/// The etcd release to build: the one this Kubernetes release is tested with. Its `go.mod` names the same one, so both
/// build from one module graph and share most compiled packages.
pub const ETCD_VERSION: &str = "3.6.8";

/// The programs a test cannot do without. `kubectl` is built too, but a folder in `KUBEBUILDER_ASSETS` may lack it.
const REQUIRED: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

const GO_MISSING: &str = "the Go toolchain is missing, and the control plane for the tests is built with it: install \
    Go 1.26 or newer (https://go.dev/dl/), or set KUBEBUILDER_ASSETS to a folder that holds etcd, kube-apiserver and \
    kube-controller-manager";

/// The folder of the control plane's programs, when there is one: `KUBEBUILDER_ASSETS`, else the per-user cache.
///
/// # Errors
/// When `KUBEBUILDER_ASSETS` is set to a folder that lacks a program, or no home directory is known.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(assets) = env::var_os(ASSETS_VARIABLE).filter(|assets| !assets.is_empty()) {
        let folder = PathBuf::from(assets);
        if let Some(missing) = first_missing(&folder) {
            bail!("{ASSETS_VARIABLE} is set to {}, where there is no {missing}", folder.display());
        }
        return Ok(Some(folder));
    }
    let folder = cache_folder()?.join("bin");
    Ok(first_missing(&folder).is_none().then_some(folder))
}

/// The folder of the control plane's programs, built first when there is none. A build takes some 5 minutes on 2
/// cores; a second caller waits for the first.
///
/// # Errors
/// Those of [`find`]; no Go toolchain; a module that cannot be downloaded or built.
pub fn provide() -> Result<PathBuf> {
    if let Some(folder) = find()? {
        return Ok(folder);
    }
    let target = cache_folder()?;
    let parent = target.parent().context("the cache folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = File::create(target.with_added_extension("lock"))?;
    lock.lock().context("cannot lock the control plane's cache")?;
    if let Some(folder) = find()? {
        return Ok(folder);
    }
    let go = find_go()?;
    eprintln!("building Kubernetes {KUBERNETES_VERSION} and etcd {ETCD_VERSION} once, which takes some minutes ...");
    // We hold the lock: whatever lies here was left by a build that did not finish.
    let work = target.with_added_extension("partial");
    for stale in [&work, &target] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    build(&go, &work)?;
    fs::rename(&work, &target).with_context(|| format!("cannot rename {}", work.display()))?;
    Ok(target.join("bin"))
}

/// The per-user cache of Tidemark: `$XDG_CACHE_HOME/tidemark`, else `~/.cache/tidemark`.
///
/// # Errors
/// When neither variable is set.
pub fn user_cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set: there is no place for the cache")?.join("tidemark"))
}

fn cache_folder() -> Result<PathBuf> {
    Ok(user_cache()?.join("control-plane").join(format!("{KUBERNETES_VERSION}-{ETCD_VERSION}")))
}

fn first_missing(folder: &Path) -> Option<&'static str> {
    REQUIRED.into_iter().find(|program| !folder.join(program).is_file())
}

/// The Go toolchain.
pub(crate) fn find_go() -> Result<PathBuf> {
    for candidate in ["go", "/usr/local/go/bin/go"] {
        if Command::new(candidate).arg("version").output().is_ok_and(|output| output.status.success()) {
            return Ok(candidate.into());
        }
    }
    bail!(GO_MISSING)
}

fn build(go: &Path, work: &Path) -> Result<()> {
    let programs = work.join("bin");
    fs::create_dir_all(&programs).with_context(|| format!("cannot create {}", programs.display()))?;
    fs::write(work.join("go.mod"), go_mod(&replaced_modules(go, work)?))?;

    let etcd = programs.join("etcd");
    compile(go, work, "-s -w", &etcd, &["go.etcd.io/etcd/server/v3"])?;
    // Without the stamp the API server says it is v0.0.0, and clients then guess wrongly what it can do.
    let stamp = |field: &str, value: &str| format!(" -X k8s.io/component-base/version.{field}={value}");
    let (major, minor) = major_minor();
    let flags = format!(
        "-s -w{}{}{}",
        stamp("gitVersion", &format!("v{KUBERNETES_VERSION}")),
        stamp("gitMajor", major),
        stamp("gitMinor", minor)
    );
    let commands = ["kube-apiserver", "kube-controller-manager", "kubectl"];
    let packages = commands.map(|command| format!("k8s.io/kubernetes/cmd/{command}"));
    // The trailing separator makes Go write into the folder, one file for each package.
    compile(go, work, &flags, &programs.join(""), &packages.each_ref().map(String::as_str))?;

    let version = Command::new(programs.join("kube-apiserver")).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout);
    ensure!(version.contains(KUBERNETES_VERSION), "the API server that was built calls itself {:?}", version.trim());
    Ok(())
}

fn major_minor() -> (&'static str, &'static str) {
    let mut parts = KUBERNETES_VERSION.split('.');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn compile(go: &Path, work: &Path, flags: &str, output: &Path, packages: &[&str]) -> Result<()> {
    let status = go_command(go, work)
        .args(["build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o"])
        .arg(output)
        .args(packages)
        .status()
        .with_context(|| format!("cannot run {}", go.display()))?;
    ensure!(status.success(), "go build {} failed: {status}", packages.join(" "));
    Ok(())
}

/// A run of the toolchain in a directory.
pub(crate) fn go_command(go: &Path, directory: &Path) -> Command {
    let mut command = Command::new(go);
    // A user's own flags or workspace must not change what is built; static programs need no C compiler.
    command.current_dir(directory).env("GOFLAGS", "").env("GOWORK", "off").env("CGO_ENABLED", "0");
    command
}

/// A Go module in Go's own cache.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GoModule {
    /// Its `go.mod`.
    go_mod: PathBuf,
    /// The folder of its sources; read-only.
    pub(crate) dir: PathBuf,
    /// Of its content, as Go's checksum database has it.
    pub(crate) sum: String,
}

/// Downloads a module, `PATH@VERSION`, unless it is there.
pub(crate) fn download(go: &Path, directory: &Path, module: &str) -> Result<GoModule> {
    let output = go_command(go, directory)
        .args(["mod", "download", "-json", module])
        .output()
        .with_context(|| format!("cannot run {}", go.display()))?;
    if !output.status.success() {
        let reason = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("cannot download the Go module {module} (GOPROXY names where from): {}", reason.trim());
    }
    serde_json::from_slice(&output.stdout).context("go mod download -json")
}

/// The modules that Kubernetes keeps in its own tree. They are published apart from it, as v0 of the same release.
fn replaced_modules(go: &Path, work: &Path) -> Result<Vec<String>> {
    let module = download(go, work, &format!("k8s.io/kubernetes@v{KUBERNETES_VERSION}"))?;
    let modules = staging_modules(&fs::read_to_string(&module.go_mod)?);
    ensure!(!modules.is_empty(), "{} replaces no module by its own tree any more", module.go_mod.display());
    Ok(modules)
}

fn staging_modules(kubernetes_go_mod: &str) -> Vec<String> {
    kubernetes_go_mod
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("replace ").split_once(" => ./staging/src/"))
        .map(|(module, _)| module.trim().to_owned())
        .collect()
}

fn go_mod(replaced: &[String]) -> String {
    let staging = KUBERNETES_VERSION.split_once('.').map_or("", |(_, rest)| rest);
    let mut text = format!(
        "module tidemark.dev/control-plane\n\ngo 1.26.0\n\n\
         require (\n\tgo.etcd.io/etcd/server/v3 v{ETCD_VERSION}\n\tk8s.io/kubernetes v{KUBERNETES_VERSION}\n)\n\n\
         replace (\n"
    );
    for module in replaced {
        text.push_str(&format!("\t{module} => {module} v0.{staging}\n"));
    }
    text.push_str(")\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_become_their_published_versions() {
        let kubernetes = "module k8s.io/kubernetes\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\
            \tk8s.io/client-go => ./staging/src/k8s.io/client-go\n\texample.com/a => example.com/b v1.0.0\n)\n";
        let modules = staging_modules(kubernetes);
        assert_eq!(modules, ["k8s.io/api", "k8s.io/client-go"]);
        let text = go_mod(&modules);
        let (_, patch) = KUBERNETES_VERSION.rsplit_once('.').unwrap();
        assert!(text.contains(&format!("\tk8s.io/api => k8s.io/api v0.36.{patch}\n")), "{text}");
    }
}
