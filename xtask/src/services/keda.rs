//! KEDA itself, for the tests that compare Tidemark with it or run both beside each other: its three programs, built once
//! per user from the published Go module.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::control_plane::{GoModule, download, find_go, go_command, user_cache};

/// The KEDA release to build.
pub const VERSION: &str = "2.21.0";

/// The variable that names a folder to use instead of building one. It must hold the [`PROGRAMS`], and KEDA's folder
/// `config`.
pub const VARIABLE: &str = "TIDEMARK_TEST_KEDA";

/// What is in the folder: operator, metrics server and admission webhooks, by the names that they have in KEDA's images.
/// Field managers and agents are named after them.
pub const PROGRAMS: [&str; 3] = ["keda", "keda-adapter", "keda-admission-webhooks"];

const MODULE: &str = "github.com/kedacore/keda/v2";
/// Of the module's content, as Go's checksum database has it. Those of all that it depends on are in its own `go.sum`.
const SUM: &str = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=";
/// Packages of the [`PROGRAMS`].
const PACKAGES: [&str; 3] = ["./cmd/operator", "./cmd/adapter", "./cmd/webhooks"];
/// The part of the module that is kept beside the programs: definitions, roles, registrations, the dashboard.
const CONFIG: &str = "config";

/// The folder of KEDA's programs, when there is one: the one that [`VARIABLE`] names, else that of the per-user cache.
///
/// # Errors
/// When the variable names a folder that lacks something, or no home directory is known.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let folder = PathBuf::from(named);
        if let Some(missing) = first_missing(&folder) {
            bail!("{VARIABLE} is set to {}, where there is no {missing}", folder.display());
        }
        return Ok(Some(folder));
    }
    let folder = cached()?;
    Ok(first_missing(&folder).is_none().then_some(folder))
}

/// The folder of KEDA's programs, built first when there is none. A build takes some 7 minutes on 2 cores; a second caller
/// waits for the first.
///
/// # Errors
/// Those of [`find`]; no Go toolchain; a module that cannot be downloaded or built, or is not the one that is expected.
pub fn provide() -> Result<PathBuf> {
    if let Some(folder) = find()? {
        return Ok(folder);
    }
    build().with_context(|| {
        format!(
            "KEDA {VERSION}, which the tests compare with, cannot be built; {VARIABLE} may name a folder that holds {} and \
             KEDA's {CONFIG} instead",
            PROGRAMS.join(", ")
        )
    })
}

fn build() -> Result<PathBuf> {
    let target = cached()?;
    let parent = target.parent().context("the cache folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = fs::File::create(parent.join("lock"))?;
    lock.lock().context("cannot lock KEDA's cache")?;
    if first_missing(&target).is_none() {
        return Ok(target);
    }
    let go = find_go()?;
    eprintln!("building KEDA {VERSION} once, which takes some minutes ...");
    // We hold the lock: whatever lies here was left by a build that did not finish.
    let work = target.with_added_extension("partial");
    for stale in [&work, &target] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let module = format!("{MODULE}@v{VERSION}");
    let GoModule { dir: sources, sum, .. } = download(&go, parent, &module)?;
    ensure!(sum == SUM, "the Go module {module} is not the one that was published: {sum}");
    // As KEDA's own build stamps it: the version is written into HPAs.
    let flags = format!("-s -w -X={MODULE}/version.Version={VERSION}");
    for (program, package) in PROGRAMS.into_iter().zip(PACKAGES) {
        let status = go_command(&go, &sources)
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
            .arg(work.join(program))
            .arg(package)
            .status()
            .with_context(|| format!("cannot run {}", go.display()))?;
        ensure!(status.success(), "go build {package} in {} failed: {status}", sources.display());
    }
    copy(&sources.join(CONFIG), &work.join(CONFIG))?;
    fs::rename(&work, &target).with_context(|| format!("cannot rename {}", work.display()))?;
    Ok(target)
}

/// Go's cache is read-only, and copies must not be: they have to be removed one day.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::write(&target, fs::read(entry.path())?)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

fn cached() -> Result<PathBuf> {
    Ok(user_cache()?.join("keda").join(VERSION))
}

fn first_missing(folder: &Path) -> Option<&'static str> {
    let has = |part: &str| folder.join(part).exists();
    PROGRAMS.into_iter().chain([CONFIG]).find(|part| !has(part))
}
